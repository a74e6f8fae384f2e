"""SendingDomain: admitted or not, what its records show, and whether its tenant may send from it.

A domain's way: admitted (its tenant, namespace and plan allow it) → given a key, so that its three records can
be shown → DKIM seen: the domain is claimed for this tenant → all three seen: verified. When a record of a
verified domain goes away, that shows at once, and mail goes on for the grace period.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass, replace

from malote_operator.api.meta import ConditionStatus
from malote_operator.api.sendingdomain import (
    Purpose,
    Record,
    RecordState,
    SendingDomain,
    SendingDomainStatus,
)
from malote_operator.dns import expected
from malote_operator.dns.model import Outcome
from malote_operator.settings import Settings

from . import admission, returnpath
from .conditions import merge, no, unknown, yes
from .model import Decided, DomainDecision, DomainMemory, DomainWorld
from .records import records_of, words, wrong

AGE_SHARE = 0.02
"""An unverified domain is looked at again after this share of its age: a record that its owner has waited an hour
for is seen within about a minute, …"""
PENDING_LIMIT = 300.0
"""… and never later than these seconds."""
FAILED_RECHECK = 60.0
"""Seconds until a verified domain whose servers could not be asked is looked at again."""
JITTER = 0.1
"""The share by which a regular interval is moved, so that thousands do not fall due together."""
_CONDITION_OF = {Purpose.SPF: "SPFValid", Purpose.DKIM: "DKIMValid", Purpose.DMARC: "DMARCValid"}
_LOST = frozenset({RecordState.MISSING, RecordState.MISMATCH})


def decide(domain: SendingDomain, world: DomainWorld, settings: Settings, now: dt.datetime) -> DomainDecision:
    """What holds for this domain now."""
    refused = admission.check(domain, world, settings)
    base = DomainDecision(
        namespace=domain.metadata.namespace,
        name=domain.metadata.name,
        uid=domain.metadata.uid,
        domain=domain.spec.domain,
        conditions=(),
        memory=world.memory,
        keys=world.keys,
        return_path=returnpath.known(domain, world.memory, settings, now),
    )
    if refused is not None:
        return _refused(base, domain, refused, world)
    if not world.keys:
        waiting = _waiting(base, domain, world, "KeyPending", "the domain's DKIM key is being made")
        return replace(waiting, wants_key=True)
    if world.observation is None and not domain.status.records:
        # An SPF record to paste is made from the one that stands there: show none before that was looked for.
        looking = "the domain's DNS records are being looked up"
        return _waiting(base, domain, world, "LookingUp", looking, next_check=now)
    records = records_of(domain, world, settings)
    return _judged(base, domain, world, records, settings, now)


def status(domain: SendingDomain, decision: DomainDecision, now: dt.datetime) -> SendingDomainStatus:
    """The whole status to write."""
    generation = domain.metadata.generation
    return SendingDomainStatus(
        observed_generation=generation,
        records=decision.records,
        conditions=merge(domain.status.conditions, decision.conditions, generation, now),
    )


def _refused(
    base: DomainDecision, domain: SendingDomain, refused: admission.Refusal, world: DomainWorld
) -> DomainDecision:
    conditions = (
        no("Ready", refused.reason, refused.message),
        no("Accepted", refused.reason, refused.message),
        *(unknown(kind, "NotAccepted", "not looked up while the domain is not accepted") for kind in _valid_kinds()),
        no("Verified", "NotAccepted", "the domain is not accepted"),
        *returnpath.undecided(domain, "NotAccepted", "not looked up while the domain is not accepted"),
        no("Reconciling", "Settled"),
        yes("Stalled", refused.reason, refused.message) if refused.final else no("Stalled", "Waiting"),
    )
    return replace(
        base,
        conditions=conditions,
        in_config=refused.in_config,
        refusal=f"{base.domain} cannot be sent from: {refused.to_sender}",
        releases_claim=admission.own_claim(domain, world),
    )


def _waiting(
    base: DomainDecision,
    domain: SendingDomain,
    world: DomainWorld,
    reason: str,
    message: str,
    next_check: dt.datetime | None = None,
) -> DomainDecision:
    """Admitted, but without anything to show yet. What was verified once (T-state knows) goes on meanwhile."""
    problem = _problem(world)
    sending = _still_sending(world)
    conditions = (
        problem or no("Ready", reason, message),
        yes("Accepted", "Accepted"),
        *(unknown(kind, reason, message) for kind in _valid_kinds()),
        no("Verified", reason, message),
        *returnpath.undecided(domain, reason, message),
        *_progress(world, reason, message, running=True),
    )
    return replace(
        base,
        conditions=conditions,
        accepted=True,
        sending=sending,
        in_config=True,
        refusal="" if sending else f"{base.domain} is not verified yet: its DNS records are being prepared",
        releases_claim=admission.void_claim(base.uid, world),
        next_check=next_check,
    )


def _still_sending(world: DomainWorld) -> bool:
    """Whether the domain was verified, and nothing has been seen amiss since (a lost status proves nothing)."""
    return bool(world.keys) and world.memory.verified_at is not None and world.memory.grace_started is None


@dataclass(frozen=True, slots=True)
class _Standing:
    """Where a domain stands between never seen and given up."""

    verified: bool
    sending: bool
    memory: DomainMemory
    reason: str
    message: str


def _judged(
    base: DomainDecision,
    domain: SendingDomain,
    world: DomainWorld,
    records: tuple[Record, ...],
    settings: Settings,
    now: dt.datetime,
) -> DomainDecision:
    by_purpose = {record.purpose: record for record in records}
    dkim_seen = by_purpose[Purpose.DKIM].state is RecordState.FOUND and world.observation is not None
    claimed = world.claim is not None and world.claim.spec.uid == base.uid
    standing = _standing(base.domain, world, records, claimed, settings, now)
    returning = returnpath.judge(domain, world, settings, now)
    dkim_lost = by_purpose[Purpose.DKIM].state in _LOST and not standing.sending
    pending = "; ".join(f"{one.purpose.value} {one.state.value.lower()}" for one in records if not _is_found(one))
    ready = _problem(world) or (
        yes("Ready", "Verified", standing.message)
        if standing.verified
        else no("Ready", standing.reason, standing.message)
    )
    unseen = any(record.state is RecordState.UNKNOWN for record in records) and world.observation is None
    conditions = (
        ready,
        yes("Accepted", "Accepted"),
        *(_record_condition(record) for record in records),
        yes("Verified", standing.reason, standing.message)
        if standing.verified
        else no("Verified", standing.reason, standing.message),
        *returning.conditions,
        *_progress(world, standing.reason, standing.message, running=unseen or standing.reason == "ClaimPending"),
    )
    return replace(
        base,
        conditions=conditions,
        records=(*records, *returning.records),
        accepted=True,
        wants_claim=dkim_seen and world.claim is None,
        releases_claim=admission.void_claim(base.uid, world) or (claimed and dkim_lost),
        verified=standing.verified,
        sending=standing.sending,
        in_config=True,
        refusal="" if standing.sending else f"{base.domain} is not verified: {pending or 'not claimed yet'}",
        return_path=returning.host,
        memory=replace(standing.memory, return_path=returning.memory),
        next_check=_next_check(domain, world, standing, returning, settings, now),
    )


def _standing(
    domain: str,
    world: DomainWorld,
    records: tuple[Record, ...],
    claimed: bool,
    settings: Settings,
    now: dt.datetime,
) -> _Standing:
    memory = world.memory
    amiss = wrong(records)
    complete = not amiss
    # What an earlier process saw counts only for a domain that T-state knows as verified.
    trusted = world.observation is not None or memory.verified_at is not None
    if complete and claimed and trusted:
        since = replace(memory, verified_at=memory.verified_at or now, grace_started=None)
        return _Standing(True, True, since, "AllRecordsFound", f"{domain} may be sent from")
    if memory.verified_at is None:
        if complete:
            return _Standing(False, False, memory, "ClaimPending", f"{domain} is being claimed for the tenant")
        return _Standing(False, False, memory, "RecordsPending", amiss)
    lost = any(record.state in _LOST for record in records)
    if not lost and memory.grace_started is None:
        # Nothing is known to be wrong: a failure to look up, or to claim, does not downgrade.
        if complete:
            return _Standing(False, True, memory, "ClaimPending", f"{domain} is being claimed for the tenant again")
        return _Standing(True, True, memory, "LookupFailed", amiss)
    amiss = amiss or f"{domain} is being claimed for the tenant again"
    started = memory.grace_started or now
    ends = started + dt.timedelta(seconds=settings.dns.grace_period)
    memory = replace(memory, grace_started=started)
    if now < ends:
        return _Standing(
            False, True, memory, "GracePeriod", f"mail goes on until {ends:%Y-%m-%d %H:%M} UTC, then stops: {amiss}"
        )
    return _Standing(False, False, memory, "GraceExpired", f"mail stopped at {ends:%Y-%m-%d %H:%M} UTC: {amiss}")


def _next_check(
    domain: SendingDomain,
    world: DomainWorld,
    standing: _Standing,
    returning: returnpath.ReturnPath,
    settings: Settings,
    now: dt.datetime,
) -> dt.datetime:
    """When to ask DNS again."""
    seen, dns = world.observation, settings.dns
    if seen is None or seen.dkim is None or seen.dkim.name != _dkim_name(domain, world):
        return now
    host = returnpath.looked_for(domain, settings)
    if host and (seen.return_path_mx is None or seen.return_path_mx.name != host):
        return now
    failed = any(answer.outcome is Outcome.FAILED for answer in seen.answers)
    if standing.verified:
        interval = min(FAILED_RECHECK, dns.verified_recheck) if failed else dns.verified_recheck
        interval *= jitter(domain.metadata.uid)
    else:
        since = standing.memory.grace_started or domain.metadata.creation_timestamp or seen.at
        interval = min(_pending(since, seen.at, settings), max(dns.pending_recheck, PENDING_LIMIT))
    if returning.waiting_since is not None:
        interval = min(interval, _pending(returning.waiting_since, seen.at, settings))
    due = seen.at + dt.timedelta(seconds=interval)
    if standing.sending and standing.memory.grace_started is not None:
        due = min(due, standing.memory.grace_started + dt.timedelta(seconds=dns.grace_period))
    return min(due, returning.until) if returning.until is not None else due


def _pending(since: dt.datetime, seen: dt.datetime, settings: Settings) -> float:
    """Seconds until a record that has been awaited since then is looked for again."""
    return max(settings.dns.pending_recheck, (seen - since).total_seconds() * AGE_SHARE)


def _dkim_name(domain: SendingDomain, world: DomainWorld) -> str:
    return expected.dkim_name(domain.spec.domain, world.keys[-1].selector)


def jitter(uid: str) -> float:
    """What an interval of this object is multiplied by."""
    return 1 + JITTER * (2 * fraction(uid) - 1)


def fraction(uid: str) -> float:
    """A number from 0 to 1 that is always the same for one object and spread evenly over many."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:4], "big") / 0xFFFFFFFF


def _record_condition(record: Record) -> Decided:
    kind = _CONDITION_OF[record.purpose]
    if record.state is RecordState.FOUND:
        return yes(kind, record.state.value, record.message)
    if record.state is RecordState.UNKNOWN:
        return unknown(kind, "LookupFailed" if record.message else "NotLookedUp", words(record))
    return no(kind, record.state.value, words(record))


def _is_found(record: Record) -> bool:
    return record.state is RecordState.FOUND


def _valid_kinds() -> tuple[str, ...]:
    return tuple(_CONDITION_OF.values())


def _problem(world: DomainWorld) -> Decided | None:
    if not world.problems:
        return None
    return Decided("Ready", ConditionStatus.FALSE, world.problems[0].reason, world.problems[0].message)


def _progress(world: DomainWorld, reason: str, message: str, *, running: bool) -> tuple[Decided, Decided]:
    """Reconciling and Stalled as kstatus reads them; waiting for DNS is neither."""
    problem = world.problems[0] if world.problems else None
    if problem is not None and problem.permanent:
        return no("Reconciling", problem.reason), yes("Stalled", problem.reason, problem.message)
    if problem is not None:
        return yes("Reconciling", problem.reason, problem.message), no("Stalled", "Progressing")
    if running:
        return yes("Reconciling", reason, message), no("Stalled", "Progressing")
    return no("Reconciling", "Settled"), no("Stalled", "Settled")
