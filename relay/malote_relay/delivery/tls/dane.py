"""Finding a mail host's TLSA records: RFC 7672 section 2.2.

They count only where the signed DNS vouches for the whole way to them: that the domain's mail goes to this host, the
host's addresses, and the records. The resolver says so by its AD bit, which is believed of a validating one only.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from dns.rdtypes.ANY.TLSA import TLSA

from malote_relay.delivery.tls import tlsa
from malote_relay.delivery.tls.security import Level, Security, Tlsa
from malote_relay.resolver import Examined, ResolverError, TemporaryFailure

UNUSABLE = Security(Level.ENCRYPTED, "dane-unusable")
"""There are records, and none that we can check: TLS is required all the same (section 2.2)."""


class SignedNames(Protocol):
    """What is asked of the DNS."""

    async def examine(self, name: str, rdtype: str) -> Examined:
        """See `Resolver.examine`."""
        ...


async def next_hop_names(domain: str, names: SignedNames) -> tuple[str, ...]:
    """The names of a domain whose MX records (or their absence) are signed, itself first; else none.

    Raises TemporaryFailure.
    """
    found = await names.examine(domain, "MX")
    return tuple(dict.fromkeys((domain, found.canonical))) if found.authentic else ()


async def security_of(host: str, port: int, next_hop: tuple[str, ...], names: SignedNames) -> Security | None:
    """What TLSA records ask of a session with `host`; None: there are none. Raises TemporaryFailure."""
    for base in await _bases(host, names):
        found = await names.examine(f"_{port}._tcp.{base}", "TLSA")
        if not found.authentic or not found.records:
            continue
        records = [
            Tlsa(one.usage, one.selector, one.mtype, one.cert) for one in found.records if isinstance(one, TLSA)
        ]
        if not (usable := tlsa.usable(records)):
            return UNUSABLE
        # Section 3.2.2: the names a certificate under a trust anchor may be for. Where there is none, hosts shared by
        # many domains have the same for all of them.
        anchored = any(one.usage == tlsa.DANE_TA for one in usable)
        names_of = tuple(dict.fromkeys((base, *next_hop))) if anchored else (base,)
        return Security(Level.DANE, "dane", tlsa=usable, names=names_of)
    return None


async def _bases(host: str, names: SignedNames) -> tuple[str, ...]:
    """The names under which records may be (section 2.2.3): what an alias leads to, then the host's own."""
    answers = await asyncio.gather(names.examine(host, "AAAA"), names.examine(host, "A"), return_exceptions=True)
    found: list[Examined] = []
    for answer in answers:
        if isinstance(answer, Examined):
            found += [answer] if answer.records else []
        elif not isinstance(answer, ResolverError):
            raise answer
    if not found:
        raise TemporaryFailure(f"the addresses of {host} could not be looked up")
    if all(answer.authentic for answer in found):
        return tuple(dict.fromkeys((found[0].canonical, host)))
    if found[0].canonical != host and (await names.examine(host, "CNAME")).authentic:
        return (host,)
    return ()
