"""The age limit in every state in which mail can wait, and the watchdog on a scheduler that lives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from malote_dev.mailworld.behaviour import Action, Behaviour, Stage
from malote_relay.delivery.queue import upkeep, watchdog
from malote_relay.delivery.queue.commands import Drop, QueueCommands, Retry
from malote_relay.delivery.queue.lanes import Bounds
from malote_relay.delivery.queue.upkeep import Upkeep
from malote_relay.store.model import DsnRequest, Notify, Outcome, Result

AGE = 3600
PAST = AGE + AGE * upkeep.GRACE + 60


class Care:
    """The upkeep of a world's scheduler, and what it said of stalls."""

    def __init__(self, world: Any) -> None:
        self.stalled: list[float] = []
        self.ahead = 0.0
        self.upkeep = Upkeep(
            world.store, world.store, world.scheduler, world.clock, self.stalled.append, monotonic=self.monotonic
        )

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead


@pytest.fixture(autouse=True)
async def stopped(world: Any) -> AsyncIterator[None]:
    yield
    await world.stop(grace=0)


def only(outcomes: list[Outcome], result: Result) -> Outcome:
    (found,) = [one for one in outcomes if one.result is result]
    return found


async def empty(world: Any) -> bool:
    state = await world.store.queue_state(world.clock())
    return not (state.ready or state.deferred or state.held)


async def test_what_a_frozen_tenant_has_waiting_expires_and_the_sender_is_told_when_it_thaws(world: Any) -> None:
    mx = await world.domain("shop.example")
    home = await world.domain("acme.example")
    scheduler = await world.start(frozen=True, max_age_seconds=AGE)
    await world.send("bia@shop.example")
    care = Care(world)
    assert await care.upkeep.sweep() == 0
    world.clock.ahead = AGE - 60
    assert await care.upkeep.sweep() == 0
    world.clock.ahead = PAST
    assert await care.upkeep.sweep() == 1
    (outcome,) = world.outcomes
    assert outcome.result is Result.FAILED
    assert outcome.reply.startswith("554 5.4.7 not delivered within 60 minutes; it was never tried: all delivery")
    assert not home.messages
    scheduler.reconfigure(world.config(max_age_seconds=AGE))
    (told,) = await home.wait_for(1)
    assert b"554 5.4.7" in told.content
    assert not mx.messages


async def test_what_was_deferred_beyond_its_age_expires_with_the_last_answer(world: Any) -> None:
    """As after a change of the limit, or of the clock: by itself no attempt is put so far."""
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.DEFER, reply="452 4.2.2 Mailbox full")
    await world.start(max_age_seconds=100 * AGE, first_retry_seconds=90 * AGE, max_retry_seconds=90 * AGE)
    await world.send("bia@shop.example")
    await world.ended(1)
    world.scheduler.reconfigure(world.config(max_age_seconds=AGE))
    world.clock.ahead = PAST
    assert await Care(world).upkeep.sweep() == 1
    failed = only(world.outcomes, Result.FAILED)
    assert failed.reply == "554 5.4.7 not delivered within 60 minutes; the last answer was: 452 4.2.2 Mailbox full"
    assert failed.bounce_class == "quota"


@pytest.mark.parametrize("older", [False, True], ids=["kept", "kept by an older release"])
async def test_an_expiry_has_the_class_and_the_host_of_the_answer_it_tells_of(world: Any, older: bool) -> None:
    """One provider's words: without its host, as older releases kept them, they mean nothing in particular."""
    mx, home = await world.domain("mxmail.netease.com"), await world.domain("acme.example")
    await world.domain("shop.example", host=mx)
    mx.behaviour = Behaviour(action=Action.DEFER, reply="451 MI:DMC")
    await world.start(max_age_seconds=100 * AGE, first_retry_seconds=90 * AGE, max_retry_seconds=90 * AGE)
    await world.send("bia@shop.example")
    (deferred,) = await world.ended(1)
    assert deferred.bounce_class == "rate-limit"
    if older:
        forget = "UPDATE recipients SET last_class = '', last_host = ''"
        await world.store.write(lambda database: database.execute(forget).rowcount)
    world.scheduler.reconfigure(world.config(max_age_seconds=AGE))
    world.clock.ahead = PAST
    assert await Care(world).upkeep.sweep() == 1
    failed = only(world.outcomes, Result.FAILED)
    assert (failed.bounce_class == "rate-limit") is not older
    (told,) = await home.wait_for(1)
    diagnosis = f"Remote-MTA: dns; {mx.hostname}\r\nDiagnostic-Code: smtp; 451 MI:DMC"
    assert (diagnosis.encode() in told.content) is not older


async def test_what_waits_for_a_destination_that_is_left_alone_expires(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.BUSY, stage=Stage.CONNECT)
    await world.start(max_age_seconds=AGE)
    for number in range(5):
        await world.send(f"r{number}@shop.example")
    await world.ended(1)
    await world.wait(lambda: bool(world.scheduler.left_alone()))
    world.clock.ahead = PAST
    care = Care(world)
    async with asyncio.timeout(60):
        while not await empty(world):
            await care.upkeep.sweep()
            await asyncio.sleep(0.05)
    failed = [one for one in world.outcomes if one.result is Result.FAILED]
    assert len(failed) == 5
    assert any("it was never tried: its destination" in one.reply for one in failed)


async def test_what_stands_in_line_or_in_the_overflow_expires_and_what_is_being_sent_does_not(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.SLOW, delay=0.5)
    for number in range(10):
        await world.send(f"r{number}@shop.example")
    await world.start(max_connections_per_destination=1, max_age_seconds=AGE, bounds=Bounds(window=8, lane=4, page=8))
    await world.wait(lambda: any(command.verb == "MAIL" for command in mx.commands))
    world.clock.ahead = PAST
    assert await Care(world).upkeep.sweep() == 9
    await world.ended(10)
    assert only(world.outcomes, Result.DELIVERED).recipient.address == "r0@shop.example"
    failed = [one.reply for one in world.outcomes if one.result is Result.FAILED]
    assert any("it waits for a connection" in reply for reply in failed)
    assert any("behind others" in reply for reply in failed)
    assert await empty(world)


async def test_the_last_attempt_at_the_limit_is_made_before_the_sweep_comes(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.DEFER, times=1)
    await world.start(max_age_seconds=AGE, first_retry_seconds=AGE, max_retry_seconds=AGE)
    await world.send("bia@shop.example")
    await world.ended(1)
    world.clock.ahead = AGE + 60
    assert await Care(world).upkeep.sweep() == 0
    await world.ended(2)
    assert world.results() == [Result.DEFERRED, Result.DELIVERED]


async def test_what_is_held_for_a_later_hour_gets_its_full_time(world: Any) -> None:
    await world.domain("shop.example")
    await world.start(max_age_seconds=AGE, frozen=True)
    later = (world.clock() // 3600 + 2) * 3600
    await world.send("bia@shop.example", not_before=later)
    world.clock.ahead = PAST
    assert await Care(world).upkeep.sweep() == 0
    world.clock.ahead = later - world.clock() + PAST + world.clock.ahead
    assert await Care(world).upkeep.sweep() == 1


async def test_a_sweep_looks_no_further_than_mail_is_old(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.domain("shop.example")
    await world.start(frozen=True, max_age_seconds=AGE)
    for number in range(5):
        await world.send(f"r{number}@shop.example")
    world.clock.ahead = PAST
    for number in range(50):
        await world.send(f"n{number}@shop.example")
    monkeypatch.setattr(upkeep, "_ROWS", 10)
    reads = 0
    read = world.store.read

    async def counted(query: Any) -> Any:
        nonlocal reads
        reads += 1
        return await read(query)

    monkeypatch.setattr(world.store, "read", counted)
    assert await Care(world).upkeep.sweep() == 5
    assert reads == 1


async def test_who_waits_untried_for_a_destination_left_alone_is_told_once_that_it_takes_longer(world: Any) -> None:
    mx = await world.domain("shop.example")
    home = await world.domain("acme.example")
    await mx.stop()
    scheduler = await world.start(max_connections_per_destination=1, first_retry_seconds=6 * 3600)
    for number in range(3):
        await world.send(f"r{number}@shop.example")
    await world.ended(1)
    await world.wait(lambda: "shop.example" in scheduler.left_alone())
    care = Care(world)
    assert await care.upkeep.enter_untried() == 0
    world.clock.ahead = 4 * 3600 + 60
    # The wall clock ran ahead, the monotonic one did not: the destination is still left alone.
    assert await care.upkeep.enter_untried() == 3
    told = await home.wait_for(3)
    # One of them was tried once: it is told of that.
    assert sum(b"not tried yet: its destination cannot be reached" in one.content for one in told) == 2
    assert await care.upkeep.enter_untried() == 0


async def test_so_is_who_was_tried_once_before_the_destination_was_left_alone(world: Any) -> None:
    mx = await world.domain("shop.example")
    home = await world.domain("acme.example")
    mx.behaviour = Behaviour(action=Action.DEFER, reply="451 4.2.0 not now")
    scheduler = await world.start()
    for notify in (Notify.DELAY, Notify.FAILURE):
        await world.send(f"{notify.name}@shop.example", dsn=DsnRequest(notify=notify))
    await world.ended(2)
    await world.stop()
    await mx.stop()
    world.clock.ahead = 5 * 60
    scheduler = await world.start()
    await world.send("other@shop.example")
    await world.wait(lambda: "shop.example" in scheduler.left_alone() and not scheduler.in_hand)
    world.clock.ahead = 5 * 3600
    care = Care(world)
    assert await care.upkeep.enter_untried() == 2
    assert await care.upkeep.enter_untried() == 0
    told = [one.content for one in await home.wait_for(2)]
    (early,) = [one for one in told if b"DELAY@shop.example" in one]
    assert b"Action: delayed" in early
    assert b"Diagnostic-Code: smtp; 451 4.2.0 not now" in early
    assert b"This relay itself found" not in early
    # The other is about who came last: who wants to hear of failures alone has heard nothing.
    assert sum(b"other@shop.example" in one for one in told) == 1
    assert len(home.messages) == 2


# The watchdog.


async def test_a_loop_that_died_is_started_again(world: Any) -> None:
    mx = await world.domain("shop.example")
    scheduler = await world.start()
    care = Care(world)
    await care.upkeep.look()
    assert care.stalled == [0.0]
    for task in scheduler._tasks:
        task.cancel()
    await world.wait(lambda: not scheduler.running)
    await world.send("bia@shop.example", offer=False)
    verdict = await care.upkeep.look()
    assert (verdict.alarm, verdict.push) == (True, True)
    assert care.stalled[-1] > 0
    assert scheduler.running
    await mx.wait_for(1)
    await world.ended(1)
    await care.upkeep.look()
    assert care.stalled[-1] == 0.0


async def test_mail_that_nobody_sends_is_noticed_and_pushed(world: Any) -> None:
    mx = await world.domain("shop.example")
    scheduler = await world.start()
    care = Care(world)
    fill = scheduler._window._fill

    async def asleep() -> float:
        await asyncio.sleep(0.01)
        return 0.0

    scheduler._window._fill = asleep
    await world.send("bia@shop.example", offer=False)
    await care.upkeep.look()
    care.ahead = watchdog.STALLED_SECONDS / 2
    assert not (await care.upkeep.look()).alarm
    care.ahead = watchdog.STALLED_SECONDS + 1
    assert (await care.upkeep.look()).alarm
    assert care.stalled[-1] > watchdog.STALLED_SECONDS
    scheduler._window._fill = fill
    await mx.wait_for(1)


async def test_no_alarm_for_a_frozen_tenant_or_a_destination_that_is_down(world: Any) -> None:
    mx = await world.domain("shop.example")
    await mx.stop()
    scheduler = await world.start(max_connections_per_destination=1)
    for number in range(5):
        await world.send(f"r{number}@shop.example")
    await world.ended(1)
    await world.wait(lambda: bool(scheduler.left_alone()))
    care = Care(world)
    for minutes in range(0, 60, 5):
        care.ahead = minutes * 60.0
        assert (await care.upkeep.look()).stalled == 0.0
    scheduler.reconfigure(world.config(frozen=True))
    for minutes in range(60, 120, 5):
        care.ahead = minutes * 60.0
        assert (await care.upkeep.look()).stalled == 0.0


class SlowReader:
    """The store's tables, of which each reading takes until everything under way has ended."""

    def __init__(self, world: Any) -> None:
        self._world = world

    async def read(self, query: Any) -> Any:
        read = await self._world.store.read(query)
        await self._world.wait(lambda: not self._world.scheduler.in_hand)
        return read


async def test_what_ends_while_the_queue_is_being_read_has_one_end(world: Any) -> None:
    """Taken by its host, it is neither dropped nor given up by who still sees it in the queue."""
    mx, home = await world.domain("shop.example"), await world.domain("acme.example")
    mx.behaviour = Behaviour(action=Action.SLOW, delay=0.1)
    await world.start(max_age_seconds=AGE)
    id = await world.send("bia@shop.example")
    done = await QueueCommands(SlowReader(world), world.scheduler, world.clock).drop(Drop(message=id, notify=True))  # type: ignore[arg-type]
    assert (done.recipients, done.said) == (0, "0 taken off the queue; 1 left: being sent right now, or just ended")
    await world.send("rui@shop.example")
    world.clock.ahead = PAST
    care = Upkeep(world.store, SlowReader(world), world.scheduler, world.clock, lambda stalled: None)  # type: ignore[arg-type]
    assert await care.sweep() == 0
    await asyncio.sleep(0.2)
    assert world.results() == [Result.DELIVERED] * 2
    assert not home.messages


@pytest.mark.parametrize("by", ["message", "domain"])
async def test_what_is_retried_by_hand_goes_at_once_though_its_destination_is_left_alone(world: Any, by: str) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.BUSY, stage=Stage.CONNECT)
    await world.start()
    await world.send("bia@shop.example")
    await world.ended(1)
    id = await world.send("rui@shop.example")
    await world.wait(lambda: bool(world.scheduler.left_alone()))
    mx.behaviour = Behaviour()
    asked = Retry(message=id) if by == "message" else Retry(domain="Shop.example")
    await QueueCommands(world.store, world.scheduler, world.clock).retry(asked)
    await mx.wait_for(1)


async def test_nor_need_anything_have_waited_for_the_destination_since_it_was_found_down(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.BUSY, stage=Stage.CONNECT)
    await world.start()
    id = await world.send("bia@shop.example")
    await world.ended(1)
    mx.behaviour = Behaviour()
    await QueueCommands(world.store, world.scheduler, world.clock).retry(Retry(message=id))
    await mx.wait_for(1)


async def test_a_retry_while_all_delivery_is_stopped_promises_nothing_for_now(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.DEFER)
    scheduler = await world.start()
    id = await world.send("bia@shop.example")
    await world.ended(1)
    scheduler.reconfigure(world.config(frozen=True))
    done = await QueueCommands(world.store, scheduler, world.clock).retry(Retry(message=id))
    assert done.said.startswith("1 of 1 that wait are tried as soon as delivery is not stopped any more")
