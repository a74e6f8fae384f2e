"""The clock can be rehearsed, and its being moved is noticed."""

from __future__ import annotations

import time

import pytest

from malote_relay.clock import LATEST, StepWatch, SystemClock, moment


def test_the_offset_counts_at_once() -> None:
    clock = SystemClock(100.0)
    for offset in (100.0, 0.0):
        clock.offset, before = offset, time.time()
        assert before <= clock.now() - offset <= time.time()


def test_a_step_is_noticed_once_and_drift_is_not() -> None:
    class Fake:
        value = 1000.0

        def now(self) -> float:
            return self.value

    clock, monotonic = Fake(), [0.0]
    watch = StepWatch(clock, lambda: monotonic[0])
    monotonic[0], clock.value = 60.0, 1061.0
    assert watch.step() == 0.0
    monotonic[0], clock.value = 120.0, 1121.0 + 7200
    assert watch.step() == 7200.0
    assert watch.step() == 0.0
    clock.value -= 600
    assert watch.step() == -600.0


def test_people_read_a_time_in_utc_to_the_minute() -> None:
    assert moment(1_750_000_059.9) == "2025-06-15 15:07 UTC"


@pytest.mark.parametrize("at", [LATEST + 1e6, 1e18, float("inf")])
def test_a_time_beyond_all_calendars_is_told_as_the_last_one(at: float) -> None:
    """So long may be what somebody writes who means for ever."""
    assert moment(at) == "9999-12-31 23:59 UTC"
