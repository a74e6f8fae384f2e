"""What the DNS must say of a relay's EHLO name, and what it says.

The relay's own messages (notices to senders, TLS reports) come from that name, with a null reverse-path: so SPF looks
at it (RFC 7208 section 2.4), and DKIM signs for it. The records are the platform team's to publish. Mail of tenants
leaves without them, so that nothing waits for them; they are only shown.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from malote_operator.api.egress import EgressPurpose, EgressRecord, EgressStatus
from malote_operator.api.sendingdomain import RecordState
from malote_operator.dns import compare, expected
from malote_operator.dns.model import Answer, Outcome

from .conditions import no, unknown, yes
from .model import Decided, EgressWorld

CONDITION = "EgressRecordsPublished"
CHECKED_AT_RESOLUTION = dt.timedelta(hours=1)
"""`checkedAt` of a record that stays as it was moves in such steps: looking alone writes no status."""

_OBSERVED_KEPT = 10
_SHOWN = 900


def status(world: EgressWorld | None, before: EgressStatus | None, now: dt.datetime) -> EgressStatus | None:
    """The name and its records. What is not known now (no plan, an unreadable key) stays as it was shown."""
    if world is None or world.key is None:
        return before
    name, key, seen = world.helo_name, world.key, world.observation
    shown = before.records if before is not None else ()
    dkim = _record(
        EgressPurpose.DKIM,
        expected.dkim_txt(name, key.selector, key.public_key),
        seen.dkim if seen is not None else None,
        shown,
        now,
        lambda texts: compare.dkim(texts, key.public_key),
    )
    if world.smart_host:
        return EgressStatus(helo_name=name, records=(dkim,))  # the world sees the smart host's name
    wanted = expected.helo_spf(name)
    spf = _record(
        EgressPurpose.SPF,
        wanted,
        seen.spf if seen is not None else None,
        shown,
        now,
        lambda texts: compare.helo_spf(texts, wanted.value),
    )
    return EgressStatus(helo_name=name, records=(spf, dkim))


def condition(shown: EgressStatus | None) -> Decided:
    """Whether the records are there; Ready does not wait for it."""
    if shown is None:
        return unknown(CONDITION, "NotProvisioned", "there is no relay, and so no key, yet")
    lost = [one for one in shown.records if one.state in {RecordState.MISSING, RecordState.MISMATCH}]
    if lost:
        said = "; ".join(f"{one.purpose.value}: {one.message or one.state.value}" for one in lost)
        what = "the platform team publishes status.egress.records, or the relay's notices may count as spam"
        return no(CONDITION, lost[0].state.value, f"{shown.helo_name}: {said} ({what})")
    unseen = [one for one in shown.records if one.state is RecordState.UNKNOWN]
    if unseen:
        said = "; ".join(f"{one.purpose.value}: {one.message or 'not looked up yet'}" for one in unseen)
        failed = any(one.message for one in unseen)
        return unknown(CONDITION, "LookupFailed" if failed else "NotLookedUp", f"{shown.helo_name}: {said}")
    return yes(CONDITION, "Found", "; ".join(one.message for one in shown.records if one.message))


def _record(
    purpose: EgressPurpose,
    wanted: expected.Wanted,
    answer: Answer | None,
    shown: Iterable[EgressRecord],
    now: dt.datetime,
    judge: Callable[[tuple[str, ...]], compare.Verdict],
) -> EgressRecord:
    fresh = EgressRecord(purpose=purpose, type=wanted.type, name=wanted.name, value=wanted.value)
    # What was seen before was about this record only if it has the same name and value.
    previous = next((one for one in shown if (one.name, one.value) == (wanted.name, wanted.value)), None)
    if answer is None or answer.name != wanted.name:
        return previous if previous is not None else fresh
    if answer.outcome is Outcome.FAILED:
        return replace(
            previous if previous is not None else fresh,
            message=f"could not be looked up, which changes nothing: {answer.error}"[:_SHOWN],
        )
    verdict = judge(answer.texts)
    seen = replace(
        fresh,
        state=verdict.state,
        observed=_observed(purpose, answer.texts),
        message=verdict.message,
        checked_at=now.replace(microsecond=0),
    )
    if previous is None or previous.checked_at is None or replace(previous, checked_at=seen.checked_at) != seen:
        return seen
    return previous if now - previous.checked_at < CHECKED_AT_RESOLUTION else seen


def _observed(purpose: EgressPurpose, texts: tuple[str, ...]) -> tuple[str, ...]:
    """What to show of the answer: other TXT records at the name are none of our business."""
    if purpose is EgressPurpose.SPF:
        texts = tuple(text for text in texts if text.lower().lstrip(" \"'").startswith("v=spf"))
    return tuple(sorted(texts))[:_OBSERVED_KEPT]
