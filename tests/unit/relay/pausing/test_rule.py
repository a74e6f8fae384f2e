"""Counts over a sliding window, and when they pause an account."""

from __future__ import annotations

import pytest

from malote_relay.config import AccountPause
from malote_relay.delivery.answers.classify import CLASSES
from malote_relay.pausing.rule import COUNTED, verdict
from malote_relay.pausing.window import SPAN_SECONDS, Tally, Window

NOW = 1_800_000_000.0
CONFIG = AccountPause()


@pytest.mark.parametrize(
    ("tally", "paused"),
    [
        (Tally(delivered=95, bounced=5), False),
        (Tally(delivered=94, bounced=6), True),
        (Tally(delivered=0, bounced=99), False),
        (Tally(delivered=0, bounced=100), True),
        (Tally(delivered=1000, complained=3), False),
        (Tally(delivered=999, complained=3), True),
        (Tally(delivered=200, complained=2), False),
        (Tally(delivered=50, complained=50), False),
        (Tally(), False),
    ],
)
def test_more_than_five_percent_bounces_or_a_third_of_a_percent_complaints_pause(tally: Tally, paused: bool) -> None:
    assert bool(verdict(tally, CONFIG)) is paused


def test_the_reason_has_the_figures() -> None:
    assert verdict(Tally(delivered=180, bounced=20), CONFIG) == (
        "20 of 200 recipients within 24 hours bounced: 10 %, and 5 % is the limit"
    )
    assert verdict(Tally(delivered=1000, complained=4), CONFIG) == (
        "4 of 1000 recipients within 24 hours complained: 0.4 %, and 0.3 % is the limit"
    )


def test_what_counts_as_a_bounce_are_known_classes() -> None:
    assert set(CLASSES) > COUNTED


def test_the_window_slides_and_forgets() -> None:
    window = Window()
    window.count(NOW, delivered=10)
    window.count(NOW + 3600, bounced=2)
    assert window.tally(NOW + 3600, 24) == Tally(delivered=10, bounced=2)
    assert window.tally(NOW + 24 * 3600 + 2 * SPAN_SECONDS, 24) == Tally(bounced=2)
    assert window.tally(NOW + 26 * 3600, 24) == Tally()
    assert window._spans == {}


def test_a_clock_that_is_set_back_loses_nothing() -> None:
    window = Window()
    window.count(NOW, bounced=3)
    assert window.tally(NOW - 7200, 24) == Tally(bounced=3)
