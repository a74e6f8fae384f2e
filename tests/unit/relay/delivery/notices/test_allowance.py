from __future__ import annotations

import pytest

from malote_relay.delivery.notices import allowance
from malote_relay.delivery.notices.allowance import HOUR, Allowance, Withheld

NOW = 1_800_000_000.0


def test_a_sender_gets_an_hours_notices_at_once_and_then_as_many_an_hour() -> None:
    some = Allowance(10, 1000)
    assert [some.take("a@x.example", NOW) for _ in range(12)] == [True] * 10 + [False] * 2
    assert not some.take("a@x.example", NOW + HOUR / 10 - 1)
    assert some.take("a@x.example", NOW + HOUR / 10 + 1)
    assert some.take("b@x.example", NOW)


def test_all_senders_together_have_a_limit_too() -> None:
    some = Allowance(10, 15)
    assert sum(some.take(f"{number}@x.example", NOW) for number in range(40)) == 15


def test_what_was_left_out_is_told_of_once_after_an_hour() -> None:
    some = Allowance(1, 1000)
    for second in range(5):
        some.take("a@x.example", NOW + second)
    some.take("b@x.example", NOW)
    assert some.summaries(NOW + HOUR) == []
    assert some.summaries(NOW + HOUR + 1) == [Withheld("a@x.example", 4, NOW + 1)]
    assert some.summaries(NOW + 3 * HOUR) == []


def test_summaries_wait_while_nothing_at_all_may_go() -> None:
    some = Allowance(1, 1)
    for _ in range(3):
        some.take("a@x.example", NOW)
    some.take("b@x.example", NOW + 0.9 * HOUR)
    assert len(some.summaries(NOW + 1.1 * HOUR)) == 1
    assert some.summaries(NOW + 1.9 * HOUR) == []
    assert [one.sender for one in some.summaries(NOW + 2.2 * HOUR)] == ["b@x.example"]


def test_a_clock_that_steps_back_gives_nothing_and_blocks_nothing() -> None:
    some = Allowance(2, 1000)
    assert [some.take("a@x.example", NOW) for _ in range(3)] == [True, True, False]
    assert not some.take("a@x.example", NOW - 10 * HOUR)
    assert some.take("a@x.example", NOW - 9 * HOUR)


def test_other_numbers_hold_at_once() -> None:
    some = Allowance(5, 1000)
    some.take("a@x.example", NOW)
    some.configure(1, 1000)
    assert [some.take("a@x.example", NOW) for _ in range(2)] == [True, False]


def test_senders_without_end_are_forgotten_those_with_something_to_tell_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "MAX_SENDERS", 100)
    some = Allowance(1, 1_000_000)
    for _ in range(2):
        some.take("kept@x.example", NOW)
    for number in range(1000):
        some.take(f"{number}@x.example", NOW)
    assert len(some._senders) <= 100
    assert [one.sender for one in some.summaries(NOW + 2 * HOUR)] == ["kept@x.example"]
