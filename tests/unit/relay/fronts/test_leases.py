"""The hour's units over several fronts: whatever the order in which things happen and who dies, the window's
invariants hold, no unit is lost or doubled, and nobody is refused for a unit that only lies in somebody's stock."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from malote_relay.fronts.leases import Leases
from malote_relay.fronts.protocol import Ask, Frame, Grant, Over, Recall, Return
from malote_relay.fronts.purse import Purse
from malote_relay.quota import Charge, HourWindow, OverLimit, start_of

NOW = start_of(480_000)
FRONTS = 3


class Side:
    """One front with its channel: what was said in either direction and is not yet heard."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.to_core: deque[Frame | int] = deque()  # a number: a message with so many recipients
        self.to_front: deque[Frame] = deque()
        self.purse = Purse(self.to_core.append, stock=4)
        self.used = 0  # units that recipients of open transactions have
        self.asking: list[asyncio.Task[Any]] = []

    @property
    def on_the_way(self) -> int:
        """Units in frames that are not yet heard."""
        granted = sum(frame.count for frame in self.to_front if isinstance(frame, Grant))
        returned = sum(frame.count for frame in self.to_core if isinstance(frame, Return))
        return granted + returned + sum(one for one in self.to_core if isinstance(one, int))


class Machine(RuleBasedStateMachine):
    """Three fronts, whose words arrive whenever the machine lets them."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now = NOW
        self.charges: list[Charge] = []
        self.wanted = 0
        self.refused = 0

    def teardown(self) -> None:
        for side in getattr(self, "sides", {}).values():
            for task in side.asking:
                task.cancel()
            self.turn()
        self.loop.close()

    def turn(self) -> None:
        async def turn() -> None:
            for _ in range(3):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turn())

    @initialize(limit=st.integers(1, 40), percent=st.sampled_from([0, 20, 100]))
    def start(self, limit: int, percent: int) -> None:
        self.limit, self.percent = limit, percent
        self.window = HourWindow(limit, percent, {}, 0)
        self.leases = Leases(self.window, lambda: self.now, self.say, stock=4, plenty=4)
        self.sides: dict[int, Side] = {}
        for number in range(FRONTS):
            self.join(number)

    def join(self, number: int) -> None:
        self.sides[number] = Side(number)
        self.leases.join(number)

    def say(self, number: int, frame: Frame) -> None:
        if isinstance(frame, Over):
            assert self.window.room(self.now) == 0
            for side in self.sides.values():
                # Nobody has a stock that was not given up. What is on the way back was let go only just now.
                stock = [one for one in side.to_front if isinstance(one, Grant) and one.count > 1]
                assert not stock
                assert not (side.purse.spare and not side.purse.tight)
        self.sides[number].to_front.append(frame)

    @rule(number=st.integers(0, FRONTS - 1), count=st.integers(1, 12))
    def recipients(self, number: int, count: int) -> None:
        side = self.sides[number]

        async def one() -> None:
            got = await side.purse.reserve()
            if isinstance(got, OverLimit):
                self.refused += 1
            else:
                side.used += 1

        side.asking += [self.loop.create_task(one()) for _ in range(count)]
        self.turn()

    @rule(number=st.integers(0, FRONTS - 1), data=st.data())
    def give_up(self, number: int, data: st.DataObject) -> None:
        side = self.sides[number]
        count = data.draw(st.integers(0, side.used))
        side.used -= count
        side.purse.release(count)
        self.turn()

    @rule(number=st.integers(0, FRONTS - 1))
    def a_client_leaves_while_it_waits(self, number: int) -> None:
        side = self.sides[number]
        for task in side.asking:
            if not task.done():
                task.cancel()
                break
        self.turn()

    @precondition(lambda self: any(side.used for side in self.sides.values()))
    @rule(number=st.integers(0, FRONTS - 1), data=st.data())
    def a_message_is_complete(self, number: int, data: st.DataObject) -> None:
        side = self.sides[number]
        if side.used:
            count = data.draw(st.integers(1, side.used))
            side.used -= count
            side.to_core.append(count)

    @rule(number=st.integers(0, FRONTS - 1), count=st.integers(1, 8))
    def core_hears(self, number: int, count: int) -> None:
        side = self.sides[number]
        for _ in range(min(count, len(side.to_core))):
            frame = side.to_core.popleft()
            match frame:
                case int():
                    self.charges += self.window.charge(self.leases.take(number, frame), self.now)
                case Ask():
                    self.leases.ask(number, frame.number)
                case Return():
                    self.leases.give_back(number, frame.count, recalled=frame.recalled)
                case _:
                    raise AssertionError(frame)

    @rule(number=st.integers(0, FRONTS - 1), count=st.integers(1, 8))
    def front_hears(self, number: int, count: int) -> None:
        side = self.sides[number]
        for _ in range(min(count, len(side.to_front))):
            frame = side.to_front.popleft()
            match frame:
                case Grant():
                    side.purse.granted(frame.number, frame.count)
                case Over():
                    side.purse.over(frame)
                case Recall():
                    side.purse.recall()
                case _:
                    raise AssertionError(frame)
            self.turn()

    @rule(number=st.integers(0, FRONTS - 1))
    def dies(self, number: int) -> None:
        for task in self.sides[number].asking:
            task.cancel()
        self.turn()
        self.leases.leave(number)
        self.join(number)

    @rule(hours=st.integers(1, 2))
    def time_goes_on(self, hours: int) -> None:
        self.now += 3600 * hours
        self.charges.clear()
        self.window.settle(self.now)

    @invariant()
    def units_are_where_they_should_be(self) -> None:
        if not hasattr(self, "sides"):
            return
        for number, side in self.sides.items():
            assert self.leases.held(number) == side.purse.spare + side.used + side.on_the_way
        assert self.window.usage(self.now).reserved == sum(map(self.leases.held, self.sides))

    @invariant()
    def the_hour_is_never_overdrawn(self) -> None:
        if hasattr(self, "sides"):
            assert sum(not charge.held for charge in self.charges) <= self.limit
            assert sum(charge.held for charge in self.charges) <= self.limit * self.percent // 100

    @rule()
    def everything_said_is_heard(self) -> None:
        """In the end every recipient has its answer, and who got one had not to be refused."""
        for _ in range(100):
            if not any(side.to_core or side.to_front for side in self.sides.values()):
                break
            for number in self.sides:
                self.core_hears(number, 8)
                self.front_hears(number, 8)
        for side in self.sides.values():
            self.turn()
            assert not side.to_core
            assert all(task.done() for task in side.asking)
            side.asking.clear()


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestLeases = Machine.TestCase


class Desk:
    """A core and fronts without a delay between them."""

    def __init__(self, limit: int, fronts: int) -> None:
        self.window = HourWindow(limit, 0, {}, 0)
        self.leases = Leases(self.window, lambda: NOW, self.to_front)
        self.purses = [Purse(lambda frame, number=number: self.to_core(number, frame)) for number in range(fronts)]  # type: ignore[misc]
        for number in range(fronts):
            self.leases.join(number)
        self.asked = 0

    def to_core(self, number: int, frame: Frame) -> None:
        match frame:
            case Ask():
                self.asked += 1
                asyncio.get_running_loop().call_soon(self.leases.ask, number, frame.number)
            case Return():
                self.leases.give_back(number, frame.count, recalled=frame.recalled)

    def to_front(self, number: int, frame: Frame) -> None:
        match frame:
            case Grant():
                self.purses[number].granted(frame.number, frame.count)
            case Over():
                self.purses[number].over(frame)
            case Recall():
                self.purses[number].recall()


async def test_with_plenty_of_room_few_recipients_have_to_ask() -> None:
    desk = Desk(limit=100_000, fronts=2)
    for _ in range(1000):
        assert not isinstance(await desk.purses[0].reserve(), OverLimit)
    assert desk.asked < 60


@pytest.mark.parametrize("limit", [1, 31, 64, 255, 257, 1000])
async def test_the_last_unit_is_found_wherever_it_lies(limit: int) -> None:
    desk = Desk(limit, fronts=3)
    for taken in range(limit):
        assert not isinstance(await desk.purses[taken % 3 if taken < 90 else 2].reserve(), OverLimit), taken
    for purse in desk.purses:
        assert isinstance(await purse.reserve(), OverLimit)


async def test_what_a_dead_front_had_goes_to_those_who_wait() -> None:
    desk = Desk(limit=3, fronts=2)
    for _ in range(3):
        await desk.purses[0].reserve()
    assert isinstance(await desk.purses[1].reserve(), OverLimit)
    desk.leases.leave(0)
    assert not isinstance(await desk.purses[1].reserve(), OverLimit)
