from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from malote_relay.delivery.queue.watchdog import HEAL_SECONDS, STALLED_SECONDS, Facts, Verdict, Watchdog


def test_nothing_that_moves_though_something_is_due_raises_one_alarm_and_is_pushed_again_and_again() -> None:
    dog = Watchdog()
    assert dog.look(Facts(0.0, 0.0, due=True)) == Verdict()
    assert dog.look(Facts(STALLED_SECONDS - 1, 0.0, due=True)) == Verdict()
    assert dog.look(Facts(STALLED_SECONDS, 0.0, due=True)) == Verdict(STALLED_SECONDS, alarm=True, push=True)
    later = STALLED_SECONDS + HEAL_SECONDS - 1
    assert dog.look(Facts(later, 0.0, due=True)) == Verdict(later, alarm=False, push=False)
    assert dog.look(Facts(later + 1, 0.0, due=True)) == Verdict(later + 1, alarm=False, push=True)


def test_whatever_begins_or_ends_starts_the_time_anew_and_a_new_stall_is_a_new_alarm() -> None:
    dog = Watchdog()
    dog.look(Facts(0.0, 0.0, due=True))
    assert dog.look(Facts(STALLED_SECONDS, 0.0, due=True)).alarm
    moved = STALLED_SECONDS + 1
    assert dog.look(Facts(moved + 1, moved, due=True)) == Verdict()
    assert dog.look(Facts(moved + STALLED_SECONDS, moved, due=True)).alarm


def test_what_waits_for_a_good_reason_is_no_stall() -> None:
    for facts in (
        {"due": False},
        {"due": True, "frozen": True},
        {"due": True, "busy": True},
    ):
        dog = Watchdog()
        for minute in range(0, 10_000, 60):
            assert dog.look(Facts(float(minute), 0.0, **facts)) == Verdict()


def test_a_reason_that_ends_starts_the_time_anew() -> None:
    dog = Watchdog()
    assert dog.look(Facts(0.0, 0.0, due=True, frozen=True)) == Verdict()
    assert dog.look(Facts(5000.0, 0.0, due=True)) == Verdict()
    assert dog.look(Facts(5000.0 + STALLED_SECONDS, 0.0, due=True)).alarm


def test_a_loop_that_has_died_is_said_once_and_pushed_at_once() -> None:
    dog = Watchdog()
    first = dog.look(Facts(100.0, 90.0, due=False, turning=False))
    assert (first.alarm, first.push) == (True, True)
    assert first.stalled > 0
    second = dog.look(Facts(110.0, 90.0, due=False, turning=False))
    assert (second.alarm, second.push) == (False, True)
    assert second.stalled > 10
    assert dog.look(Facts(120.0, 90.0, due=False)) == Verdict()


@given(st.lists(st.tuples(st.floats(0, 300), st.booleans(), st.booleans(), st.booleans()), max_size=100))
def test_no_alarm_unless_it_was_due_and_still_for_the_whole_time(
    looks: list[tuple[float, bool, bool, bool]],
) -> None:
    dog, now, moved, quiet_since = Watchdog(), 0.0, 0.0, 0.0
    for seconds, due, busy, moves in looks:
        now += seconds
        if moves:
            moved = now
        if moves or busy or not due:
            quiet_since = now
        verdict = dog.look(Facts(now, moved, due=due, busy=busy))
        assert bool(verdict.stalled) <= (now - quiet_since >= STALLED_SECONDS - 1e-6)
