"""The relay's idea of the time: passed in wherever a decision depends on it.

Everything durable (hours, retry times, events) is kept in epoch seconds of this clock. For demonstrations and
tests it can run ahead by an offset that changes while the relay runs. Hours never run backwards whatever the
clock does: `HourWindow` keeps the latest hour it has seen; `StepWatch` tells people when the clock was moved.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

STEP_SECONDS = 60.0
"""A jump of the clock by more than this is reported."""

LATEST = 253_402_300_799.0
"""The last second that calendars have a date for, in the year 9999."""


class Clock(Protocol):
    """Something that knows the time."""

    def now(self) -> float:
        """Seconds since the epoch (UTC)."""
        ...


class SystemClock:
    """The machine's clock, running ahead by `offset` seconds (0 but in rehearsals)."""

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset

    def now(self) -> float:
        """Seconds since the epoch, offset included."""
        return time.time() + self.offset


def moment(at: float) -> str:
    """A time (epoch seconds) as people read it in replies and notices, in UTC to the minute; `LATEST` at most."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(min(at, LATEST)))


class StepWatch:
    """Notices that the clock has been moved, by comparing it with one that cannot be."""

    def __init__(self, clock: Clock, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._difference = clock.now() - monotonic()

    def step(self) -> float:
        """Seconds by which the clock was moved since the last call; 0.0 when not worth a word."""
        difference = self._clock.now() - self._monotonic()
        moved = difference - self._difference
        self._difference = difference
        return moved if abs(moved) > STEP_SECONDS else 0.0
