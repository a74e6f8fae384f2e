"""What the DNS must say of a relay's EHLO name, and what it says.

Receivers look whether the name leads to the address that mail comes from, and the address back to the name. The
relay's own messages (notices to senders, TLS reports) come from that name, with a null reverse-path: so SPF looks
at it (RFC 7208 section 2.4), and DKIM signs for it. The records are the platform team's to publish. Mail of tenants
leaves without them, so that nothing waits for them; they are only shown.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterable

from malote_operator.api.egress import EgressPurpose, EgressRecord, EgressStatus
from malote_operator.api.sendingdomain import RecordState
from malote_operator.dns import compare, expected
from malote_operator.dns.model import Answer, Outcome

from .conditions import no, unknown, yes
from .model import Decided, EgressWorld
from .records import seen, shown

CONDITION = "EgressRecordsPublished"
CHECKED_AT_RESOLUTION = dt.timedelta(hours=1)
"""`checkedAt` of a record that stays as it was moves in such steps: looking alone writes no status."""


def status(world: EgressWorld | None, before: EgressStatus | None) -> EgressStatus | None:
    """The name and its records. What is not known now (no plan, an unreadable key) stays as it was shown."""
    if world is None or world.key is None:
        return before
    name, key, look = world.helo_name, world.key, world.observation
    at = look.at if look is not None else None
    known = before.records if before is not None else ()
    dkim = _record(
        EgressPurpose.DKIM,
        expected.dkim_txt(name, key.selector, key.public_key),
        look.dkim if look is not None else None,
        known,
        at,
        lambda one: compare.dkim(one.texts, key.public_key),
    )
    if world.smart_host:
        return EgressStatus(helo_name=name, records=(dkim,))  # the world sees the smart host's name
    leads = expected.host_address(name, world.source_address)
    address = _record(
        EgressPurpose.ADDRESS,
        leads,
        look.host if look is not None else None,
        known,
        at,
        lambda one: compare.host_address(one.texts, leads.value),
    )
    wanted = expected.helo_spf(name)
    spf = _record(
        EgressPurpose.SPF,
        wanted,
        look.spf if look is not None else None,
        known,
        at,
        lambda one: compare.helo_spf(one.texts, wanted.value),
    )
    return EgressStatus(helo_name=name, records=(address, *_reverse(world, known), spf, dkim))


def _reverse(world: EgressWorld, before: Iterable[EgressRecord]) -> tuple[EgressRecord, ...]:
    """The PTR record of each address that the name has; while these cannot be had, those that were shown stay."""
    name, look = world.helo_name, world.observation
    if look is None or look.host is None or look.host.name != name or look.host.outcome is Outcome.FAILED:
        return tuple(one for one in before if one.purpose is EgressPurpose.PTR and one.value == name)
    return tuple(
        _record(
            EgressPurpose.PTR,
            expected.host_reverse(name, answer.name),
            answer,
            before,
            look.at,
            functools.partial(_leads_back, name, address),
        )
        for address, answer in zip(look.host.texts, look.reverse, strict=False)  # of many addresses not all are asked
    )


def _leads_back(name: str, address: str, answer: Answer) -> compare.Verdict:
    return compare.host_reverse(answer.texts, name, address)


def condition(published: EgressStatus | None) -> Decided:
    """Whether the records are there; Ready does not wait for it."""
    if published is None:
        return unknown(
            CONDITION, "NotProvisioned", "the relay has no key yet; if it runs, the operator's log says why"
        )
    lost = [one for one in published.records if one.state in {RecordState.MISSING, RecordState.MISMATCH}]
    if lost:
        said = "; ".join(f"{one.purpose.value}: {one.message or one.state.value}" for one in lost)
        what = "the platform team publishes status.egress.records, or the relay's notices may count as spam"
        return no(CONDITION, lost[0].state.value, f"{published.helo_name}: {said} ({what})")
    unseen = [one for one in published.records if one.state is RecordState.UNKNOWN]
    if unseen:
        said = "; ".join(f"{one.purpose.value}: {one.message or 'not looked up yet'}" for one in unseen)
        failed = any(one.message for one in unseen)
        return unknown(CONDITION, "LookupFailed" if failed else "NotLookedUp", f"{published.helo_name}: {said}")
    return yes(CONDITION, "Found", "; ".join(one.message for one in published.records if one.message))


def _record(
    purpose: EgressPurpose,
    wanted: expected.Wanted,
    answer: Answer | None,
    before: Iterable[EgressRecord],
    at: dt.datetime | None,
    judge: Callable[[Answer], compare.Verdict],
) -> EgressRecord:
    fresh = EgressRecord(purpose=purpose, type=wanted.type, name=wanted.name, value=wanted.value)
    # What was seen before was about this record only if it has the same name and value.
    previous = next((one for one in before if (one.name, one.value) == (wanted.name, wanted.value)), None)
    observed = shown(answer.texts if answer is not None else (), spf=purpose is EgressPurpose.SPF)
    return seen(fresh, previous, answer, judge, observed, at, CHECKED_AT_RESOLUTION)
