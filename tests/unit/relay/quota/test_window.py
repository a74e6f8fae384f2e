"""The hour window by example: the product's own words."""

from __future__ import annotations

import doctest

import pytest

from malote_relay import quota
from malote_relay.quota import Charge, HourWindow, OverLimit, Reservation, Usage, hour_of, start_of
from malote_relay.store.model import HourCharge, Respread

HOUR = 480_000
NOW = start_of(HOUR) + 600.0
NEXT = start_of(HOUR + 1)


def window(limit: int, tolerance_percent: int = 20, hours: dict[int, HourCharge] | None = None) -> HourWindow:
    return HourWindow(limit, tolerance_percent, hours or {}, HOUR if hours else 0)


def take(window: HourWindow, now: float = NOW) -> Reservation:
    reservation = window.reserve(now)
    assert isinstance(reservation, Reservation)
    return reservation


def send(window: HourWindow, count: int, now: float = NOW) -> list[Charge]:
    """What is accepted of `count` messages sent one after the other."""
    charges = []
    for _ in range(count):
        reservation = window.reserve(now)
        if isinstance(reservation, Reservation):
            charges += window.charge([reservation], now)
    return charges


def refused(window: HourWindow, now: float = NOW) -> OverLimit:
    answer = window.reserve(now)
    assert isinstance(answer, OverLimit)
    return answer


def test_of_3700_on_a_plan_of_3000_600_are_held_and_100_refused() -> None:
    hours = window(3000)
    charges = send(hours, 3700)
    assert charges == [Charge(HOUR, False, 0.0)] * 3000 + [Charge(HOUR + 1, True, NEXT)] * 600
    assert refused(hours) == OverLimit(NEXT, 3000, 600)
    charges = send(hours, 3700, NEXT + 1)
    assert [charge.hour for charge in charges] == [HOUR + 1] * 2400 + [HOUR + 2] * 600


def test_an_hour_with_nothing_held_never_delays() -> None:
    hours = window(10)
    send(hours, 10)
    assert send(hours, 1, NEXT) == [Charge(HOUR + 1, False, 0.0)]


def test_two_sessions_never_share_the_last_unit() -> None:
    hours = window(1, 0)
    first = take(hours)
    assert refused(hours).returns_at == NEXT
    hours.release(first)
    hours.release(first)
    take(hours)
    refused(hours)


def test_a_released_reservation_cannot_be_charged_nor_one_be_charged_twice() -> None:
    hours = window(10)
    first, second = take(hours), take(hours)
    hours.release(first)
    with pytest.raises(ValueError, match="already released or charged"):
        hours.charge([first, second], NOW)
    hours.charge([second], NOW)
    with pytest.raises(ValueError, match="already released or charged"):
        hours.charge([second], NOW)
    third = take(hours)
    with pytest.raises(ValueError, match="already released or charged"):
        hours.charge([third, third], NOW)


def test_a_reservation_that_idles_delays_nobody() -> None:
    hours = window(1, 100)
    idle, quick = take(hours), take(hours)
    assert hours.charge([quick], NOW) == [Charge(HOUR, False, 0.0)]
    assert hours.charge([idle], NOW) == [Charge(HOUR + 1, True, NEXT)]


def test_recipients_of_one_message_may_straddle_the_limit() -> None:
    hours = window(2, 50)
    reservations = [take(hours) for _ in range(3)]
    refused(hours)
    assert [charge.held for charge in hours.charge(reservations, NOW)] == [False, False, True]


def test_a_reservation_is_charged_to_the_hour_of_the_commit() -> None:
    hours = window(2, 50)
    reservations = [take(hours, NEXT - 1) for _ in range(3)]
    assert [charge.hour for charge in hours.charge(reservations, NEXT + 1)] == [HOUR + 1, HOUR + 1, HOUR + 2]


def test_a_failed_commit_gives_its_units_back() -> None:
    hours = window(2, 50)
    charges = hours.charge([take(hours) for _ in range(3)], NOW)
    refused(hours)
    hours.refund(charges)
    assert len(send(hours, 10)) == 3


def test_a_refund_lets_nobody_overtake_what_is_held() -> None:
    hours = window(2, 100)
    first, _second, _held = send(hours, 3)
    hours.refund([first])
    assert send(hours, 1) == [Charge(HOUR + 1, True, NEXT)]


def test_what_fails_after_held_mail_was_spread_leaves_its_gap_where_the_store_has_it() -> None:
    hours = window(4, 100)
    *_, failing = send(hours, 7)
    assert hours.set_plan(2, 0, NOW) == Respread(HOUR, ((HOUR + 1, 2), (HOUR + 2, 1)))
    hours.refund([failing])
    assert hours.usage(NEXT) == Usage(HOUR + 1, 2, 0, 0, 2, 0), "the store has two in this hour, and none after it"


def test_what_fails_after_held_mail_was_let_go_leaves_its_unit_to_others() -> None:
    hours = window(4, 100)
    *_, failing = send(hours, 7)
    assert hours.set_plan(10, 0, NOW) == Respread(HOUR, ((HOUR, 3),))
    hours.refund([failing])
    assert len(send(hours, 10)) == 4


def test_a_clock_that_steps_back_never_reopens_an_hour() -> None:
    hours = window(2, 0)
    send(hours, 2, NEXT)
    assert refused(hours, NOW).returns_at == start_of(HOUR + 2)
    assert send(hours, 1, start_of(HOUR + 2)) != []


def test_a_crash_between_hours_far_apart_keeps_the_latest_hour() -> None:
    rebuilt = HourWindow(2, 0, {HOUR: HourCharge(2, 0)}, HOUR)
    assert refused(rebuilt, NOW - 10 * 3600).returns_at == NEXT


def test_held_mail_counts_in_its_hour_after_a_restart() -> None:
    rebuilt = window(10, 20, {HOUR: HourCharge(10, 0), HOUR + 1: HourCharge(1, 1)})
    assert [charge.hour for charge in send(rebuilt, 5)] == [HOUR + 1]
    assert [charge.hour for charge in send(rebuilt, 99, NEXT)] == [HOUR + 1] * 8 + [HOUR + 2] * 2


def test_a_smaller_plan_spreads_what_is_held_and_drops_nothing() -> None:
    hours = window(100, 50)
    send(hours, 150)
    assert hours.set_plan(20, 10, NOW) == Respread(HOUR, ((HOUR + 1, 20), (HOUR + 2, 20), (HOUR + 3, 10)))
    assert hours.usage(NOW).held == 50
    assert refused(hours) == OverLimit(start_of(HOUR + 3), 20, 2)
    assert refused(hours, start_of(HOUR + 2)).returns_at == start_of(HOUR + 3)
    assert [charge.hour for charge in send(hours, 99, start_of(HOUR + 3))] == [HOUR + 3] * 10 + [HOUR + 4] * 2


def test_a_larger_plan_lets_go_at_once_what_it_has_room_for() -> None:
    hours = window(100, 50)
    send(hours, 150)
    assert hours.set_plan(130, 50, NOW) == Respread(HOUR, ((HOUR, 30), (HOUR + 1, 20)))
    assert hours.usage(NOW) == Usage(HOUR, 130, 20, 0, 130, 65)


def test_a_plan_that_changes_nothing_for_what_is_held_moves_nothing() -> None:
    hours = window(100, 50)
    send(hours, 120)
    assert hours.set_plan(100, 10, NOW) is None
    assert hours.set_plan(50, 10, NOW) is None
    refused(hours)


def test_a_plan_changed_while_the_relay_was_down_is_settled_at_start() -> None:
    rebuilt = window(2, 100, {HOUR: HourCharge(4, 0), HOUR + 1: HourCharge(4, 4)})
    assert rebuilt.settle(NOW) == Respread(HOUR, ((HOUR + 1, 2), (HOUR + 2, 2)))
    assert rebuilt.settle(NOW) is None


def test_reservations_beyond_a_smaller_plan_are_still_charged() -> None:
    hours = window(10, 0)
    reservations = [take(hours) for _ in range(10)]
    hours.set_plan(4, 25, NOW)
    refused(hours)
    assert [charge.hour - HOUR for charge in hours.charge(reservations, NOW)] == [0] * 4 + [1] * 4 + [2] * 2


def test_those_reservations_never_overtake_what_is_held() -> None:
    hours = window(3, 100)
    send(hours, 3)
    first, second, third = (take(hours) for _ in range(3))
    hours.set_plan(1, 0, NOW)
    (refunded,) = hours.charge([first], NOW)
    assert [charge.hour - HOUR for charge in hours.charge([second], NOW)] == [2]
    hours.refund([refunded])
    assert [charge.hour - HOUR for charge in hours.charge([third], NOW)] == [3]


def test_usage_shows_the_hour() -> None:
    hours = window(10)
    send(hours, 11)
    take(hours)
    assert hours.usage(NOW) == Usage(HOUR, 10, 1, 1, 10, 2)
    assert hours.usage(NEXT) == Usage(HOUR + 1, 1, 0, 1, 10, 2)


def test_hours_are_utc_and_the_examples_in_the_code_hold() -> None:
    assert hour_of(3599.999) == 0
    assert hour_of(3600.0) == 1
    assert doctest.testmod(quota).failed == 0
