"""Domains that are left alone: for how long, why, and when their time has come."""

from __future__ import annotations

from malote_relay.delivery.destinations.destination import Held
from malote_relay.delivery.queue.leftalone import LeftAlone


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_domain_is_left_alone_until_its_time_comes_and_says_why() -> None:
    clock = Time()
    alone = LeftAlone(clock)
    alone.add("a.example", Held("it is down", 30))
    alone.add("b.example", Held("it asked to slow down", 10))
    assert alone.domains() == ["a.example", "b.example"]
    assert alone.soonest() == 10
    clock.now += 10
    why = alone.why("a.example")
    assert why is not None
    assert (why.words, why.seconds) == ("it is down", 20)
    assert alone.why("b.example") is None
    assert alone.domains() == ["a.example"]
    assert "b.example" not in alone
    clock.now += 20
    assert alone.domains() == []


def test_the_longer_of_two_reasons_holds() -> None:
    alone = LeftAlone(Time())
    alone.add("a.example", Held("it is down", 30))
    alone.add("a.example", Held("it asked to slow down", 10))
    assert alone.soonest() == 30
    alone.add("a.example", Held("it asked to slow down", 40))
    assert (alone.soonest(), str(alone.why("a.example"))) == (40, "it asked to slow down")


def test_a_domain_that_is_up_again_is_forgotten_before_its_time() -> None:
    alone = LeftAlone(Time())
    alone.add("a.example", Held("it is down", 30))
    alone.add("b.example", Held("it is down", 30))
    alone.forget("a.example")
    alone.forget("c.example")
    assert alone.domains() == ["b.example"]
    alone.clear()
    assert alone.domains() == []
