"""Which TLSA records can be used between mail servers: RFC 6698 section 2.1, RFC 7671, RFC 7672 section 3.1. Pure.

Of the four usages two make sense (RFC 7672 section 3.1.3): DANE-EE(3) names the server's own certificate or key,
DANE-TA(2) one that issued it.
"""

from __future__ import annotations

from collections.abc import Iterable

from malote_relay.delivery.tls.security import Tlsa

DANE_TA, DANE_EE = 2, 3
FULL, SHA256, SHA512 = 0, 1, 2
MAX_RECORDS = 32
_LENGTHS = {SHA256: 32, SHA512: 64}


def usable(records: Iterable[Tlsa]) -> tuple[Tlsa, ...]:
    """Those that we can check; of several digests of one kind only the strongest (RFC 7671 section 9)."""
    good = [one for one in records if _is_usable(one)][:MAX_RECORDS]
    strongest: dict[tuple[int, int], int] = {}
    for one in good:
        kind = one.usage, one.selector
        strongest[kind] = max(strongest.get(kind, FULL), one.matching)
    # In one order, however the DNS turns them: sessions are compared by what was asked of them.
    return tuple(sorted(one for one in set(good) if one.matching in (FULL, strongest[one.usage, one.selector])))


def _is_usable(record: Tlsa) -> bool:
    if record.usage not in (DANE_TA, DANE_EE) or record.selector not in (0, 1):
        return False
    if record.matching == FULL:
        return bool(record.data)
    return len(record.data) == _LENGTHS.get(record.matching, -1)
