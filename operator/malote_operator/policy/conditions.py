"""From decided conditions to metav1 conditions (Kubernetes API conventions, "Typical status properties")."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

from malote_operator.api.meta import Condition, ConditionStatus

from .model import Decided

MESSAGE_LIMIT = 1024
"""Longer messages are cut: what DNS answered may be quoted in them and is not ours to bound."""


def merge(
    previous: Iterable[Condition], decided: Sequence[Decided], generation: int, now: dt.datetime
) -> tuple[Condition, ...]:
    """The conditions to write: `last_transition_time` is `now` (whole seconds) only where the status changed.

    Types that are no longer decided are dropped; the order is the decided one.
    """
    before = {condition.type: condition for condition in previous}
    return tuple(_merged(before.get(one.type), one, generation, now.replace(microsecond=0)) for one in decided)


def find(conditions: Iterable[Condition], condition_type: str) -> Condition | None:
    """The condition of that type, if there is one."""
    return next((condition for condition in conditions if condition.type == condition_type), None)


def yes(condition_type: str, reason: str, message: str = "") -> Decided:
    """A condition that is True."""
    return Decided(condition_type, ConditionStatus.TRUE, reason, message)


def no(condition_type: str, reason: str, message: str = "") -> Decided:
    """A condition that is False."""
    return Decided(condition_type, ConditionStatus.FALSE, reason, message)


def unknown(condition_type: str, reason: str, message: str = "") -> Decided:
    """A condition that could not be established (yet)."""
    return Decided(condition_type, ConditionStatus.UNKNOWN, reason, message)


def _merged(before: Condition | None, one: Decided, generation: int, now: dt.datetime) -> Condition:
    unchanged = before is not None and before.status == one.status
    message = one.message if len(one.message) <= MESSAGE_LIMIT else one.message[: MESSAGE_LIMIT - 1] + "…"
    return Condition(
        type=one.type,
        status=one.status,
        reason=one.reason,
        message=message,
        observed_generation=generation,
        last_transition_time=before.last_transition_time if before is not None and unchanged else now,
    )
