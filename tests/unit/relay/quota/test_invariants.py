"""What holds whatever happens: sessions interleaved, clocks stepping, plans changing, crashes between."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.unit.relay.quota.examples import search

from malote_relay.quota import Charge, HourWindow, OverLimit, Reservation, hour_of, start_of
from malote_relay.store.model import Hour, HourCharge, Respread

FIRST = start_of(480_000)

clocks = st.one_of(
    st.floats(0, 900),  # time goes on
    st.floats(3000, 8000),  # past the hour
    st.floats(-8000, 0),  # set back
    st.floats(100_000, 1_000_000),  # far ahead
)

sessions = st.integers(0, 3)


@dataclass
class Accepted:
    """A recipient on disk, as the store has it."""

    hour: Hour
    held: bool
    accepted_in: Hour


class Machine(RuleBasedStateMachine):
    """Drives a window beside a list of what was accepted; the list is the store."""

    def __init__(self) -> None:
        super().__init__()
        self.now = FIRST
        self.latest = 0  # the latest hour any call was made in
        self.kept: list[Accepted] = []  # in order of arrival
        self.sessions: dict[int, list[Reservation]] = {}  # what each has reserved for its current message
        self.highest: Counter[Hour] = Counter()  # the largest limit an hour has seen
        self.plan_shrunk = False

    @initialize(limit=st.integers(1, 5), percent=st.sampled_from([0, 20, 50, 100]))
    def start(self, limit: int, percent: int) -> None:
        self.limit, self.percent = limit, percent
        self.window = HourWindow(limit, percent, {}, 0)
        self.enter()

    @property
    def tolerance(self) -> int:
        return self.limit * self.percent // 100

    def enter(self) -> Hour:
        self.latest = max(self.latest, hour_of(self.now))
        self.highest[self.latest] = max(self.highest[self.latest], self.limit)
        return self.latest

    def charged(self, hour: Hour) -> int:
        return sum(accepted.hour == hour for accepted in self.kept)

    def held_for(self, hour: Hour) -> int:
        return sum(accepted.hour == hour and accepted.held for accepted in self.kept)

    def waiting(self) -> bool:
        return any(accepted.hour > self.latest for accepted in self.kept)

    @rule(seconds=clocks)
    def clock(self, seconds: float) -> None:
        self.now = max(0.0, self.now + seconds)

    @property
    def open(self) -> int:
        return sum(map(len, self.sessions.values()))

    @rule(session=sessions, recipients=st.integers(1, 8))
    def reserve(self, session: int, recipients: int) -> None:
        for _ in range(recipients):
            hour = self.enter()
            answer = self.window.reserve(self.now)
            room = 0 if self.waiting() else max(0, self.limit - self.charged(hour))
            if isinstance(answer, OverLimit):
                assert answer.returns_at > start_of(hour)
                assert (answer.limit, answer.tolerance) == (self.limit, self.tolerance)
                assert self.open >= room, "an hour with room refuses nobody"
                continue
            self.sessions.setdefault(session, []).append(answer)
            if not self.plan_shrunk:
                assert self.open <= room + self.tolerance - self.held_for(hour + 1)

    @rule(session=sessions)
    def reset(self, session: int) -> None:
        for reservation in self.sessions.pop(session, ()):
            self.window.release(reservation)

    @rule(session=sessions, committed=st.sampled_from([True, True, True, False]))
    def commit(self, session: int, committed: bool) -> None:
        message = self.sessions.pop(session, [])
        hour = self.enter()
        free, overtakes = self.limit - self.charged(hour), self.waiting()
        charges = self.window.charge(message, self.now)
        released = [charge for charge in charges if not charge.held]
        assert charges == [*released, *(charge for charge in charges if charge.held)]
        assert all(charge == Charge(hour, False, 0.0) for charge in released)
        assert len(released) == (0 if overtakes else min(len(message), max(0, free))), "below N it goes at once"
        for charge in charges:
            if charge.held:
                assert charge.hour > hour
                assert charge.not_before == start_of(charge.hour)
                if not self.plan_shrunk:
                    assert charge.hour == hour + 1
        if not committed:
            self.window.refund(charges)
            return
        for charge in charges:
            self.highest[charge.hour] = max(self.highest[charge.hour], self.limit)
        self.kept += [Accepted(charge.hour, charge.held, hour) for charge in charges]

    @rule(limit=st.integers(1, 5), percent=st.sampled_from([0, 20, 50, 100]))
    def set_plan(self, limit: int, percent: int) -> None:
        self.plan_shrunk |= limit * (100 + percent) < self.limit * (100 + self.percent) or limit < self.limit
        self.limit, self.percent = limit, percent
        self.enter()
        self.respread(self.window.set_plan(limit, percent, self.now))

    @rule(limit=st.integers(1, 5))
    def crash(self, limit: int) -> None:
        """Reservations are gone, the charges are not; the plan may be another one after it."""
        hours = {hour: HourCharge(self.charged(hour), self.held_for(hour)) for hour in {a.hour for a in self.kept}}
        own = [hour for hour, charge in hours.items() if charge.charged > charge.held]
        self.sessions.clear()
        self.plan_shrunk |= limit < self.limit
        self.limit = limit
        self.latest = max(own, default=0)
        self.window = HourWindow(limit, self.percent, hours, self.latest)
        self.enter()
        self.respread(self.window.settle(self.now))

    def respread(self, plan: Respread | None) -> None:
        if plan is None:
            return
        assert plan.current == self.latest
        held = sorted((a for a in self.kept if a.hour > plan.current), key=lambda accepted: accepted.hour)
        slots = [hour for hour, count in plan.hours for _ in range(count)]
        assert len(slots) == len(held), "nothing held is dropped"
        for accepted, hour in zip(held, slots, strict=True):
            self.highest[hour] = max(self.highest[hour], self.limit)
            accepted.hour, accepted.held = hour, hour > plan.current

    @invariant()
    def nothing_beyond_the_limit(self) -> None:
        for hour in {accepted.hour for accepted in self.kept}:
            assert self.charged(hour) <= (self.limit if hour > self.latest else self.highest[hour])

    @invariant()
    def nothing_held_beyond_the_tolerance(self) -> None:
        if not self.plan_shrunk:
            assert all(
                self.held_for(accepted.hour) <= max(self.tolerance, 0)
                for accepted in self.kept
                if accepted.hour > self.latest
            )

    @invariant()
    def order_of_arrival_is_kept(self) -> None:
        due = [accepted.hour for accepted in self.kept]
        assert due == sorted(due)

    @invariant()
    def no_hour_but_one_with_a_full_predecessor_holds(self) -> None:
        later = sorted({accepted.hour for accepted in self.kept if accepted.hour > self.latest})
        assert later == list(range(self.latest + 1, self.latest + 1 + len(later)))

    @invariant()
    def usage_is_what_is_kept(self) -> None:
        if not hasattr(self, "window"):
            return
        hour = self.enter()
        usage = self.window.usage(self.now)
        assert (usage.hour, usage.charged, usage.reserved) == (hour, self.charged(hour), self.open)
        assert usage.held == sum(accepted.hour > hour for accepted in self.kept)


TestMachine = Machine.TestCase
TestMachine.settings = search(150, 40)
