from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from malote_relay.delivery.answers.retry import JITTER, Schedule, delay, next_attempt

SCHEDULES = st.builds(Schedule, st.integers(1, 600), st.integers(600, 14_400), st.integers(3600, 432_000))


@given(SCHEDULES, st.integers(1, 200), st.text())
def test_delays_double_up_to_the_longest_give_or_take_the_jitter(
    schedule: Schedule, attempts: int, message: str
) -> None:
    plain = min(schedule.first * 2 ** (attempts - 1), schedule.longest)
    found = delay(schedule, message, attempts)
    assert plain * (1 - JITTER) <= found <= plain * (1 + JITTER)


@given(SCHEDULES, st.floats(0, 2e9), st.text())
def test_attempts_go_on_until_the_age_limit_and_the_last_is_made_at_it(
    schedule: Schedule, released_at: float, message: str
) -> None:
    at, attempts = released_at, 1
    while (following := next_attempt(schedule, at, released_at, message, attempts)) is not None:
        assert following > at
        at, attempts = following, attempts + 1
    assert at == released_at + schedule.max_age
    assert attempts > 2


def test_messages_that_failed_together_do_not_return_together() -> None:
    schedule = Schedule(60, 14_400, 432_000)
    assert len({round(delay(schedule, f"m{number}", 3)) for number in range(50)}) > 20


def test_the_recipients_of_a_message_return_together_and_not_always_early_or_late() -> None:
    schedule = Schedule(60, 60, 432_000)
    assert len({delay(schedule, "m1", 3) for _ in range(10)}) == 1
    assert len({delay(schedule, "m1", attempts) for attempts in range(1, 11)}) == 10
