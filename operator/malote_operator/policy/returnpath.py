"""The return path of a SendingDomain: its two records, and whether mail leaves with it.

It is optional and no part of a domain being verified: with or without it mail is sent, signed and aligned. What it
needs is judged for itself. A return path without its MX record gets mail refused (many servers look the reverse-path
up) and loses what bounces; one without its SPF record fails SPF. So mail leaves with it only once both were seen
right; until then with the sender's own reverse-path, which is as good but for the bounces that come later. When a
record goes away, that shows at once, and a grace period follows (an hour by default, about as long as resolvers keep
what was there): a zone that was broken for a moment changes nothing.

What was sent with a return path may bounce to it for days: the relay believes those whatever is decided here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, replace

from malote_operator.api.sendingdomain import Record, RecordState, SendingDomain
from malote_operator.settings import Settings

from .conditions import no, unknown, yes
from .model import Decided, DomainMemory, DomainWorld, ReturnPathMemory
from .records import return_path_records_of, wrong

CONDITION = "ReturnPathVerified"
GRACE_EXPIRED = "GraceExpired"
_OWN = "mail leaves with the sender's own reverse-path"
_LOST = frozenset({RecordState.MISSING, RecordState.MISMATCH})


@dataclass(frozen=True, slots=True)
class ReturnPath:
    """Where the return path of a domain stands; all empty for one that names none.

    `host`: what mail leaves with, "" while it does not. `waiting_since`: since when records are awaited, None when
    none are. `until`: when the grace period ends.
    """

    host: str = ""
    records: tuple[Record, ...] = ()
    conditions: tuple[Decided, ...] = ()
    memory: ReturnPathMemory | None = None
    waiting_since: dt.datetime | None = None
    until: dt.datetime | None = None


def looked_for(domain: SendingDomain, settings: Settings) -> str:
    """The host whose records are looked up; "" without one, or where the platform takes no bounces in."""
    return domain.spec.return_path if settings.bounces.enabled else ""


def known(domain: SendingDomain, memory: DomainMemory, settings: Settings, now: dt.datetime) -> str:
    """The host that mail leaves with as far as is remembered."""
    kept = memory.return_path
    if kept is None or kept.host != looked_for(domain, settings) or kept.verified_at is None:
        return ""
    return kept.host if kept.grace_started is None or now < _end(kept.grace_started, settings) else ""


def undecided(domain: SendingDomain, reason: str, message: str) -> Iterator[Decided]:
    """The condition while nothing is known."""
    if domain.spec.return_path:
        yield unknown(CONDITION, reason, message)


def judge(domain: SendingDomain, world: DomainWorld, settings: Settings, now: dt.datetime) -> ReturnPath:
    """Where it stands now."""
    host = domain.spec.return_path
    if not host:
        return ReturnPath()
    memory = world.memory.return_path
    if memory is None or memory.host != host:
        memory = ReturnPathMemory(host, named_at=now)
    if not looked_for(domain, settings):
        said = f"this platform takes no bounces in (setting bounces.enabled): {_OWN}"
        # Nobody looks meanwhile: should it be offered again, both records have to be seen first.
        memory = ReturnPathMemory(host, memory.named_at)
        return ReturnPath(conditions=(no(CONDITION, "NotOffered", said),), memory=memory)
    records = return_path_records_of(domain, world, settings)
    return replace(_standing(host, world, records, memory, settings, now), records=records)


def _standing(
    host: str,
    world: DomainWorld,
    records: tuple[Record, ...],
    memory: ReturnPathMemory,
    settings: Settings,
    now: dt.datetime,
) -> ReturnPath:
    amiss = wrong(records) if records else "its DNS records are being looked up"
    # What an earlier process saw counts only for a return path that T-state knows as verified.
    trusted = world.observation is not None or memory.verified_at is not None
    if not amiss and trusted:
        memory = replace(memory, verified_at=memory.verified_at or now, grace_started=None)
        said = f"mail leaves with reverse-paths at {host}, and bounces come back to the relay"
        return ReturnPath(host, conditions=(yes(CONDITION, "RecordsFound", said),), memory=memory)
    if memory.verified_at is None:
        reason = "RecordsPending" if records else "LookingUp"
        said = f"until both records are seen, {_OWN}: {amiss}" if amiss else _OWN
        return ReturnPath(conditions=(no(CONDITION, reason, said),), memory=memory, waiting_since=memory.named_at)
    if memory.grace_started is None and not any(record.state in _LOST for record in records):
        # Nothing is known to be wrong.
        return ReturnPath(host, conditions=(yes(CONDITION, "LookupFailed", amiss),), memory=memory)
    started = memory.grace_started or now
    ends = _end(started, settings)
    memory = replace(memory, grace_started=started)
    if now < ends:
        said = f"mail leaves with reverse-paths at {host} until {ends:%Y-%m-%d %H:%M} UTC, then with the sender's own"
        lost = no(CONDITION, "GracePeriod", f"{said}: {amiss}")
        return ReturnPath(host, conditions=(lost,), memory=memory, waiting_since=started, until=ends)
    lost = no(CONDITION, GRACE_EXPIRED, f"since {ends:%Y-%m-%d %H:%M} UTC {_OWN}: {amiss}")
    return ReturnPath(conditions=(lost,), memory=memory, waiting_since=started)


def _end(started: dt.datetime, settings: Settings) -> dt.datetime:
    return started + dt.timedelta(seconds=settings.bounces.grace_period)
