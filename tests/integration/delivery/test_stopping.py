"""Nothing is lost or sent twice when delivery is held, frozen, stopped, killed, or its store fails for a while."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from malote_dev.mailworld.behaviour import Action, Behaviour, Stage
from malote_relay.store.model import Result


async def test_held_mail_begins_when_its_hour_does(world: Any) -> None:
    mx = await world.domain("shop.example")
    await world.start()
    later = (world.clock() // 3600 + 2) * 3600  # the next hour may begin during the test
    await world.send("bia@shop.example", not_before=later, offer=False)
    await world.send("rui@shop.example")
    await mx.wait_for(1)
    await asyncio.sleep(0.2)
    assert len(mx.messages) == 1
    (held,) = await world.store.due(later + 1, 10)
    why = world.scheduler.why(held)
    assert "held" in why.words
    assert why.until == later
    world.clock.ahead += later - world.clock() + 1
    await mx.wait_for(2)
    assert mx.messages[1].recipients == ("bia@shop.example",)


async def test_frozen_stops_everything_at_once_and_thawed_it_goes_on(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.SLOW, delay=0.04)
    for _ in range(5):
        await world.send("bia@shop.example")
    scheduler = await world.start(max_connections_per_destination=1)
    await mx.wait_for(1)
    settings = {"max_connections_per_destination": 1}
    scheduler.reconfigure(world.config(frozen=True, **settings))
    await world.wait(lambda: scheduler.in_hand == 0)
    stopped = len(mx.messages)
    assert stopped < 5
    await world.send("bia@shop.example")
    scheduler.wake()
    await asyncio.sleep(0.2)
    assert len(mx.messages) == stopped
    (waiting, *_) = await world.store.due(world.clock(), 10)
    assert "frozen" in scheduler.why(waiting).words
    scheduler.reconfigure(world.config(**settings))
    await mx.wait_for(6)
    await world.ended(6)
    assert len(mx.messages) == 6


async def test_stopping_lets_transactions_end_and_keeps_the_rest_for_the_next_start(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.SLOW, delay=0.1)
    for _ in range(20):
        await world.send("bia@shop.example")
    await world.start(max_connections_per_destination=2)
    await mx.wait_for(1)
    await world.stop(grace=30)
    done = len(mx.messages)
    assert 0 < done < 20
    assert world.results() == [Result.DELIVERED] * done
    await world.wait(lambda: not mx.sessions)
    mx.behaviour = Behaviour()
    await world.reopen()
    await world.start()
    await world.ended(20)
    assert len(mx.messages) == 20


async def test_what_grace_cuts_off_before_its_final_dot_is_sent_once(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.SILENT, stage=Stage.RCPT)
    scheduler = await world.start()
    await world.send("bia@shop.example")
    await world.wait(lambda: any(command.verb == "RCPT" for command in mx.commands))
    async with asyncio.timeout(60):  # the silent host would be waited for much longer
        await world.stop(grace=0.2)
    assert world.outcomes == []
    assert not scheduler.running
    mx.behaviour = Behaviour()
    await world.start()
    await world.ended(1)
    assert len(mx.messages) == 1


async def test_killed_between_the_remotes_250_and_the_record_it_is_sent_twice_and_never_lost(world: Any) -> None:
    mx = await world.domain("shop.example")
    scheduler = await world.start()
    record = world.store.record

    async def never(outcomes: Any, **more: Any) -> None:
        await asyncio.Event().wait()

    world.store.record = never
    await world.send("bia@shop.example")
    await mx.wait_for(1)
    for task in scheduler._tasks:
        task.cancel()
    scheduler._jobs.cancel()
    world.store.record = record
    world.scheduler = None
    await world.reopen()
    await world.start()
    await mx.wait_for(2)
    await world.ended(1)
    assert [message.recipients for message in mx.messages] == [("bia@shop.example",)] * 2
    assert await world.store.due(world.clock() + 1e6, 10) == []


async def test_ends_that_cannot_be_written_are_kept_until_they_can_and_nothing_is_sent_twice(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("malote_relay.delivery.queue.recorder._RETRY_SECONDS", 0.05)
    mx = await world.domain("shop.example")
    record, failures = world.store.record, [OSError("disk"), OSError("disk")]

    async def failing(outcomes: Any, **more: Any) -> Any:
        if failures:
            raise failures.pop()
        return await record(outcomes, **more)

    world.store.record = failing
    scheduler = await world.start()
    await world.send("bia@shop.example")
    await world.ended(1)
    scheduler.wake()
    await asyncio.sleep(0.2)
    assert len(mx.messages) == 1


async def test_a_queue_that_cannot_be_read_is_asked_again(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("malote_relay.delivery.queue.window._TROUBLE_SECONDS", 0.05)
    mx = await world.domain("shop.example")
    await world.send("bia@shop.example")
    due, failures = world.store.due, [OSError("disk"), OSError("disk")]

    async def failing(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return await due(*args, **kwargs)

    world.store.due = failing
    await world.start()
    await mx.wait_for(1)


async def test_what_a_page_still_shows_though_it_has_ended_meanwhile_is_not_sent_again(world: Any) -> None:
    mx = await world.domain("shop.example")
    due, read, go_on = world.store.due, asyncio.Event(), asyncio.Event()
    pages: list[Any] = []

    async def slow(*args: Any, **kwargs: Any) -> Any:
        pages.append(await due(*args, **kwargs))
        read.set()
        await go_on.wait()
        return pages[-1]

    scheduler = await world.start()
    await world.send("bia@shop.example")
    await world.ended(1)
    world.store.due = slow
    await world.send("bia@shop.example", offer=False)
    scheduler.wake()
    await read.wait()
    scheduler.offer(pages[0], await world.store.content("m000002"))
    await world.ended(2)
    go_on.set()
    await asyncio.sleep(0.3)
    assert len(pages[0]) == 1
    assert len(mx.messages) == len(world.outcomes) == 2
