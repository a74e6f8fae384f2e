"""Events about return paths: when mail begins to leave with one, and when it is lost."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.unit.operator.policy import worlds

from malote_operator.api.meta import Condition, ConditionStatus
from malote_operator.api.sendingdomain import SendingDomainStatus
from malote_operator.reconcile.returnpathevents import tell_of_return_path

FOUND, LOOKUP_FAILED = "True/RecordsFound", "True/LookupFailed"
PENDING, GRACE, EXPIRED, NOT_OFFERED = (
    f"False/{reason}" for reason in ("RecordsPending", "GracePeriod", "GraceExpired", "NotOffered")
)
NOT_ACCEPTED = "Unknown/NotAccepted"
BEGINS, LOST = ("ReturnPathVerified", False), ("ReturnPathLost", True)


def status(shown: str) -> SendingDomainStatus:
    if not shown:
        return SendingDomainStatus()
    state, _, reason = shown.partition("/")
    one = Condition(
        type="ReturnPathVerified",
        status=ConditionStatus(state),
        reason=reason,
        message=f"why {reason}",
        last_transition_time=dt.datetime(2026, 11, 23, tzinfo=dt.UTC),
    )
    return SendingDomainStatus(conditions=(one,))


async def told(before: str, after: str) -> list[tuple[str, str, bool]]:
    events: list[tuple[str, str, bool]] = []

    class Events:
        async def record(self, regarding: Any, *, reason: str, note: str, action: str, warning: bool) -> None:
            assert regarding["metadata"]["name"] == "acme-example"
            events.append((reason, note, warning))

    domain = msgspec.structs.replace(worlds.domain(), status=status(before))
    await tell_of_return_path(SimpleNamespace(events=Events()), domain, status(after))  # type: ignore[arg-type]
    return events


@pytest.mark.parametrize(
    ("before", "after", "event"),
    [
        ("", FOUND, BEGINS),
        (PENDING, FOUND, BEGINS),
        (GRACE, FOUND, BEGINS),
        (FOUND, GRACE, LOST),
        (LOOKUP_FAILED, GRACE, LOST),
        (GRACE, EXPIRED, LOST),
        (FOUND, NOT_OFFERED, LOST),
        (FOUND, PENDING, LOST),
    ],
)
async def test_it_is_told_with_the_reason_when_mail_leaves_with_one_and_when_it_is_lost(
    before: str, after: str, event: tuple[str, bool]
) -> None:
    name, warning = event
    assert await told(before, after) == [(name, f"why {after.partition('/')[2]}", warning)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        (FOUND, ""),
        ("", PENDING),
        (FOUND, FOUND),
        (FOUND, LOOKUP_FAILED),
        (GRACE, GRACE),
        (EXPIRED, EXPIRED),
        (FOUND, NOT_ACCEPTED),
        (NOT_ACCEPTED, PENDING),
    ],
)
async def test_what_was_never_found_or_stays_as_it_was_is_not_told(before: str, after: str) -> None:
    assert await told(before, after) == []
