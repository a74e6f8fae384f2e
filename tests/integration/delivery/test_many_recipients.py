"""Messages to many recipients: hosts that take few at once, and what stays done when the rest is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from malote_dev.mailworld.behaviour import Action, Behaviour
from malote_dev.mailworld.mx import SinkMx
from malote_relay.delivery.dialogue.connection import Session
from malote_relay.delivery.dialogue.envelope import Envelope
from malote_relay.delivery.queue.lanes import Bounds
from malote_relay.delivery.reply import Answer
from malote_relay.store.model import Result


def crowd(mx: SinkMx, recipients: Sequence[str], limit: int) -> None:
    """Let the host take no more than `limit` of these in one transaction."""
    for number, recipient in enumerate(recipients):
        if turns := number // limit:
            words = f"452 4.5.3 Too many recipients, {recipient} not now"
            mx.recipients[recipient] = Behaviour(action=Action.DEFER, reply=words, times=turns)


async def test_a_host_that_takes_few_recipients_at_once_gets_the_others_at_once_over_the_same_connection(
    world: Any,
) -> None:
    mx = await world.domain("shop.example")
    recipients = [f"r{number:02}@shop.example" for number in range(35)]
    crowd(mx, recipients, 10)
    await world.start()
    await world.send(*recipients)
    assert [one.result for one in await world.ended(35)] == [Result.DELIVERED] * 35
    assert [message.recipients for message in mx.messages] == [
        tuple(recipients[start : start + 10]) for start in range(0, 35, 10)
    ]
    assert mx.connections == 1


async def test_a_host_that_hangs_up_after_each_of_few_recipients_gets_the_others_over_new_connections(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mx = await world.domain("shop.example")
    recipients = [f"r{number}@shop.example" for number in range(6)]
    crowd(mx, recipients, 2)
    deliver = Session.deliver

    async def once(self: Session, envelope: Envelope) -> list[Answer]:
        answers = await deliver(self, envelope)
        self.abort()
        return answers

    monkeypatch.setattr(Session, "deliver", once)
    await world.start()
    await world.send(*recipients)
    assert [one.result for one in await world.ended(6)] == [Result.DELIVERED] * 6
    assert mx.connections == 3


@pytest.mark.parametrize("trouble", [asyncio.Event, ZeroDivisionError])
async def test_what_was_delivered_or_refused_stays_so_when_a_later_transaction_is_cut_off(
    world: Any, monkeypatch: pytest.MonkeyPatch, trouble: type[Any]
) -> None:
    mx = await world.domain("shop.example")
    recipients = [f"r{number}@shop.example" for number in range(4)]
    crowd(mx, recipients, 2)
    mx.recipients["r1@shop.example"] = Behaviour(action=Action.REFUSE)
    deliver, begun = Session.deliver, asyncio.Event()

    async def first_only(self: Session, envelope: Envelope) -> list[Answer]:
        if self.transactions == 0:
            return await deliver(self, envelope)
        begun.set()
        if trouble is not asyncio.Event:
            raise trouble
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(Session, "deliver", first_only)
    await world.start()
    await world.send(*recipients, sender="")
    await begun.wait()
    await world.wait(lambda: len(world.outcomes) >= 1)
    await world.stop(grace=0.1)
    results = {one.recipient.address[:2]: one.result for one in world.outcomes if one.result is not Result.DEFERRED}
    assert results == {"r0": Result.DELIVERED, "r1": Result.FAILED}
    waiting = await world.store.due(world.clock() + 1e6, 10)
    assert [one.address for one in waiting] == recipients[2:]
    monkeypatch.undo()
    world.clock.ahead += 100
    await world.reopen()
    await world.start()
    await mx.wait_for(2)
    assert [message.recipients for message in mx.messages] == [(recipients[0],), tuple(recipients[2:])]


async def test_a_host_that_says_too_many_to_everyone_is_left_in_peace(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.DEFER, reply="452 4.5.3 Too many recipients")
    await world.start()
    await world.send("a@shop.example", "b@shop.example")
    outcomes = await world.ended(2)
    assert [(one.result, one.bounce_class) for one in outcomes] == [(Result.DEFERRED, "rate-limit")] * 2
    assert len([command for command in mx.commands if command.verb == "RCPT"]) == 2


async def test_a_page_of_the_queue_cuts_no_message_in_two(world: Any) -> None:
    mx = await world.domain("shop.example")
    for _ in range(4):
        await world.send("a@shop.example", "b@shop.example", "c@shop.example")
    await world.start(bounds=Bounds(window=64, lane=64, page=5))
    await world.ended(12)
    assert [len(message.recipients) for message in mx.messages] == [3] * 4
