"""Pauses as `/readyz` tells of them, for whoever looks after the relay: few fields, each of bounded length. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from malote_relay.store.pauses import Pause

MAX_REASON: Final = 200
"""Characters of a reason; the ones that `rule` writes are shorter."""

_LATEST: Final = datetime(9998, 12, 31, tzinfo=UTC).timestamp()
"""What ends later does not end."""


def told_of(pauses: Iterable[Pause]) -> list[dict[str, Any]]:
    """Each with `account`, `since`, `until` (left out: until somebody resumes it) and `reason`; times by RFC 3339."""
    return [_one(pause) for pause in pauses]


def _one(pause: Pause) -> dict[str, Any]:
    told = {"account": pause.account, "since": _time(pause.since), "reason": pause.reason[:MAX_REASON]}
    if pause.until is not None and pause.until < _LATEST:
        told["until"] = _time(pause.until)
    return told


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
