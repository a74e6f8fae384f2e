"""Conditions as the API conventions want them."""

import datetime as dt

from malote_operator.api.meta import ConditionStatus
from malote_operator.policy.conditions import MESSAGE_LIMIT, find, merge, no, unknown, yes

THEN = dt.datetime(2026, 11, 1, 10, 0, 0, tzinfo=dt.UTC)
NOW = dt.datetime(2026, 11, 2, 10, 0, 0, 123456, tzinfo=dt.UTC)


def test_the_time_changes_only_with_the_status_not_with_reason_or_message() -> None:
    before = merge((), (no("Ready", "Waiting", "a"), yes("Approved", "Approved")), 1, THEN)
    after = merge(before, (no("Ready", "Other", "b"), no("Approved", "Withdrawn")), 2, NOW)
    ready, approved = after
    assert (ready.reason, ready.message, ready.last_transition_time) == ("Other", "b", THEN)
    assert (approved.status, approved.last_transition_time) == (ConditionStatus.FALSE, NOW.replace(microsecond=0))
    assert {one.observed_generation for one in after} == {2}


def test_the_order_is_the_decided_one_and_what_is_no_longer_decided_goes() -> None:
    before = merge((), (yes("Old", "Old"), yes("Ready", "Ready")), 1, THEN)
    after = merge(before, (unknown("New", "New"), yes("Ready", "Ready")), 1, NOW)
    assert [one.type for one in after] == ["New", "Ready"]
    assert find(after, "Old") is None


def test_merging_again_changes_nothing() -> None:
    decided = (yes("Ready", "Ready"), no("Stalled", "Settled"))
    before = merge((), decided, 1, THEN)
    assert merge(before, decided, 1, NOW) == before


def test_overlong_messages_are_cut() -> None:
    (condition,) = merge((), (no("Ready", "Waiting", "x" * 5000),), 1, NOW)
    assert len(condition.message) == MESSAGE_LIMIT
