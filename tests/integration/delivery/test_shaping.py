"""Destinations that want less, on real sockets: what waits for them loses neither attempts nor its place."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from malote_dev.mailworld.behaviour import Action, Behaviour, Stage
from malote_relay.config import Shaping, ShapingLimits
from malote_relay.delivery.destinations import destination, pool, shaping
from malote_relay.delivery.queue.lanes import Bounds
from malote_relay.store.model import Result

BUSY = "421 4.7.0 [TSS04] Messages from 127.0.0.1 temporarily deferred due to unexpected volume"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that takes seconds takes tenths of them."""
    monkeypatch.setattr(shaping, "PAUSE_SECONDS", 0.4)
    monkeypatch.setattr(shaping, "RECOVERY_SECONDS", 5.0)
    monkeypatch.setattr(destination, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(pool, "DOWN_SECONDS", 0.5)


@pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.MAIL, Stage.RCPT, Stage.DATA])
async def test_a_host_that_is_too_busy_costs_one_message_an_attempt_and_the_others_wait(
    world: Any, quick: None, stage: Stage
) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.BUSY, stage=stage, reply=BUSY, times=1)
    await world.start(max_connections_per_destination=1, first_retry_seconds=1)
    for number in range(10):
        await world.send(f"r{number}@shop.example")
    outcomes = await world.ended(11)
    assert Counter(one.result for one in outcomes) == {Result.DEFERRED: 1, Result.DELIVERED: 10}
    (deferred,) = [one for one in outcomes if one.result is Result.DEFERRED]
    assert "[TSS04]" in deferred.reply
    assert deferred.bounce_class == "rate-limit"
    # Nobody else was asked to come again, and the order of arrival held.
    delivered = [one.recipient for one in outcomes if one.result is Result.DELIVERED]
    assert sorted(one.attempts for one in delivered) == [0] * 9 + [1]
    in_order = [one.address for one in delivered if one.attempts == 0]
    assert in_order == sorted(in_order)


async def test_what_waits_for_a_paused_destination_says_so_and_until_when(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.BUSY, stage=Stage.MAIL, reply=BUSY)
    scheduler = await world.start()
    await world.send("first@shop.example")
    await world.ended(1)
    await world.send("second@shop.example")
    (second,) = await world.store.due(world.clock(), 10)
    await world.wait(lambda: "asked to slow down" in scheduler.why(second).words)
    reason = scheduler.why(second)
    assert "[TSS04]" in reason.words
    assert reason.until is not None
    assert reason.until - world.clock() < 12
    (state,) = scheduler.destinations()
    assert state.why.startswith("paused: 421 4.7.0 [TSS04]")


async def test_a_destination_that_cannot_be_reached_burns_no_attempts(world: Any) -> None:
    mx = await world.domain("shop.example")
    await mx.stop()
    for number in range(20):
        await world.send(f"r{number}@shop.example")
    scheduler = await world.start(max_connections_per_destination=1)
    await world.ended(1)
    waiting = [one for one in await world.store.due(world.clock(), 100) if "r19" in one.address]
    await world.wait(lambda: "cannot be reached" in scheduler.why(waiting[0]).words)
    await mx.start()
    scheduler.retry_now("shop.example")
    outcomes = await world.ended(20)
    deferred = [one for one in outcomes if one.result is Result.DEFERRED]
    assert 1 <= len(deferred) <= 4
    assert len([one for one in outcomes if one.result is Result.DELIVERED and one.recipient.attempts == 0]) >= 16


async def test_a_destination_that_puts_everything_off_is_left_alone(world: Any, quick: None) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.DEFER, reply="451 4.7.5 must issue a STARTTLS command first")
    for number in range(40):
        await world.send(f"r{number}@shop.example")
    scheduler = await world.start(max_connections_per_destination=1)
    await world.ended(shaping.TROUBLES)
    await world.wait(lambda: any("everything is put off" in one.why for one in scheduler.destinations()))
    mx.behaviour = Behaviour()
    outcomes = await world.ended(40)
    assert Counter(one.result for one in outcomes)[Result.DEFERRED] <= shaping.TROUBLES + 2


async def test_greylisting_slows_nobody_but_the_message(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.GREYLIST)
    scheduler = await world.start(max_connections_per_destination=2)
    for number in range(30):
        await world.send(f"r{number}@shop.example")
    outcomes = await world.ended(30)
    assert {one.result for one in outcomes} == {Result.DEFERRED}
    assert all(not one.why for one in scheduler.destinations())


async def test_a_paused_destination_takes_no_room_from_others(world: Any, quick: None) -> None:
    """Far more waits for it than fits in hand."""
    busy = await world.domain("busy.example")
    await world.domain("shop.example")
    busy.behaviour = Behaviour(action=Action.BUSY, stage=Stage.CONNECT, reply=BUSY)
    await world.start(bounds=Bounds(window=16, lane=16, page=16))
    for number in range(60):
        await world.send(f"r{number}@busy.example")
    await world.ended(1)
    for number in range(10):
        await world.send(f"r{number}@shop.example")
    await world.wait(lambda: world.results().count(Result.DELIVERED) == 10, timeout=20)


async def test_no_transaction_and_no_connection_carries_more_than_it_may(world: Any) -> None:
    mx = await world.domain("shop.example")
    limits = ShapingLimits(recipients_per_message=3, messages_per_connection=2, connections=1)
    await world.start(shaping=Shaping(destinations={"shop.example": limits}))
    await world.send(*(f"r{number}@shop.example" for number in range(10)))
    outcomes = await world.ended(10)
    assert {one.result for one in outcomes} == {Result.DELIVERED}
    assert [len(message.recipients) for message in mx.messages] == [3, 3, 3, 1]
    assert mx.connections == 2
    assert sorted(to for message in mx.messages for to in message.recipients) == [
        f"r{number}@shop.example" for number in range(10)
    ]


async def test_a_rate_is_kept(world: Any) -> None:
    mx = await world.domain("shop.example")
    await world.start(shaping=Shaping(default=ShapingLimits(messages_per_minute=600)))
    began = time.time()
    for number in range(20):
        await world.send(f"r{number}@shop.example")
    await world.ended(20)
    assert {one.result for one in world.outcomes} == {Result.DELIVERED}
    # A second's worth at once, and then ten a second; from the first sending, since arrivals may be late in any way.
    assert max(message.at for message in mx.messages) - began >= 0.9


async def test_trouble_of_one_host_of_several_does_not_slow_the_destination(world: Any) -> None:
    good = await world.domain("shop.example")
    busy = await world.domain("other.example")
    busy.behaviour = Behaviour(action=Action.BUSY, stage=Stage.MAIL, reply=BUSY)
    world.dns.set("shop.example", "MX", f"10 {busy.hostname}.", f"20 {good.hostname}.")
    scheduler = await world.start()
    for number in range(15):
        await world.send(f"r{number}@shop.example")
    outcomes = await world.ended(15)
    assert {one.result for one in outcomes} == {Result.DELIVERED}
    assert all(not one.why for one in scheduler.destinations())


@pytest.fixture(autouse=True)
async def stopped(world: Any) -> AsyncIterator[None]:
    yield
    await world.stop(grace=0)


@pytest.mark.parametrize("by", ["freeze", "stop"])
async def test_when_delivery_stops_a_message_in_parts_ends_with_the_part_under_way(world: Any, by: str) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.SLOW, delay=0.1)
    shaping = Shaping(default=ShapingLimits(recipients_per_message=1))
    scheduler = await world.start(shaping=shaping, max_connections_per_destination=1)
    await world.send(*(f"r{number}@shop.example" for number in range(10)))
    await mx.wait_for(1)
    if by == "freeze":
        scheduler.reconfigure(world.config(shaping=shaping, frozen=True))
        await world.wait(lambda: scheduler.in_hand == 0)
    else:
        await world.stop(grace=10.0)
    assert 1 <= len(mx.messages) <= 2
    state = await world.store.queue_state(world.clock())
    assert (state.ready, state.deferred) == (10 - len(mx.messages), 0)
    await world.start(shaping=shaping) if by == "stop" else scheduler.reconfigure(world.config(shaping=shaping))
    assert len({message.recipients for message in await mx.wait_for(10)}) == 10
