"""Domains with several hosts: which trouble of one sends the message to the next (RFC 5321 section 5.1)."""

from __future__ import annotations

from typing import Any

import pytest

from malote_dev.mailworld.behaviour import Action, Behaviour, Stage
from malote_dev.mailworld.mx import SinkMx
from malote_relay.delivery.peer import Timeouts
from malote_relay.delivery.queue.attempt import MAX_SESSIONS
from malote_relay.store.model import Result


async def test_a_host_that_cannot_be_reached_defers_and_the_second_mx_is_tried(world: Any) -> None:
    mx = await world.domain("shop.example")
    dead = await world.domain("dead.example")
    await dead.stop()
    world.dns.set("shop.example", "MX", f"5 {dead.hostname}.", f"10 {mx.hostname}.")
    await world.start()
    await world.send("bia@shop.example")
    await mx.wait_for(1)
    await world.send("bia@dead.example")
    outcome = (await world.ended(2))[1]
    assert (outcome.result, outcome.bounce_class) == (Result.DEFERRED, "connection")
    assert "451 4.4.1 no connection to" in outcome.reply


TROUBLES = [
    Behaviour(action=action, stage=stage)
    for stage in (Stage.CONNECT, Stage.EHLO, Stage.MAIL, Stage.RCPT, Stage.DATA)
    for action in (Action.DEFER, Action.BUSY, Action.DROP, Action.SILENT)
] + [Behaviour(action=action, stage=Stage.DATA) for action in (Action.AFFIRM, Action.PREMATURE)]


class Patience:
    """Timeouts: little patience with the first host, which may say nothing; then enough for a slow machine."""

    def __init__(self, first: SinkMx) -> None:
        self._first = first

    def __getattr__(self, name: str) -> float:
        patience: float = getattr(Timeouts(), name)
        given_up = self._first.connections and not self._first.sessions
        return 0.3 if name in {"greeting", "command", "data", "final"} and not given_up else patience


async def with_backup(world: Any) -> tuple[SinkMx, SinkMx]:
    """shop.example with two hosts, the first one preferred."""
    first = await world.domain("shop.example")
    second = await world.domain("backup.example")
    world.dns.set("shop.example", "MX", f"10 {first.hostname}.", f"20 {second.hostname}.")
    return first, second


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda one: f"{one.action}@{one.stage}")
async def test_trouble_of_one_host_before_any_content_sends_the_message_to_the_next(
    world: Any, trouble: Behaviour
) -> None:
    """RFC 5321 section 5.1."""
    first, second = await with_backup(world)
    first.behaviour = trouble
    await world.start(timeouts=Patience(first), max_connections_per_destination=1)
    await world.send("bia@shop.example")
    (outcome,) = await world.ended(1)
    assert outcome.result is Result.DELIVERED
    assert outcome.host.startswith(second.hostname)
    assert (len(first.messages), len(second.messages)) == (0, 1)


async def test_a_final_word_of_the_first_host_is_final_and_only_the_rest_goes_to_the_next(world: Any) -> None:
    first, second = await with_backup(world)
    first.recipients["gone@shop.example"] = Behaviour(action=Action.REFUSE)
    first.behaviour = Behaviour(action=Action.BUSY, stage=Stage.DATA)
    await world.start()
    await world.send("gone@shop.example", "a@shop.example", "b@shop.example", sender="")
    outcomes = {one.recipient.address: one for one in await world.ended(3)}
    assert [message.recipients for message in second.messages] == [("a@shop.example", "b@shop.example")]
    assert outcomes["gone@shop.example"].result is Result.FAILED
    assert outcomes["gone@shop.example"].host.startswith(first.hostname)
    assert outcomes["a@shop.example"].host.startswith(second.hostname)


@pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.EHLO, Stage.MAIL])
async def test_a_permanent_refusal_of_the_first_host_is_not_taken_elsewhere_once_a_session_is_open(
    world: Any, stage: Stage
) -> None:
    first, second = await with_backup(world)
    first.behaviour = Behaviour(action=Action.REFUSE_POLICY, stage=stage)
    await world.start()
    await world.send("bia@shop.example", sender="")
    (outcome,) = await world.ended(1)
    if stage is Stage.MAIL:
        assert (outcome.result, outcome.bounce_class, len(second.messages)) == (Result.FAILED, "policy", 0)
    else:
        assert (outcome.result, len(second.messages)) == (Result.DELIVERED, 1)


@pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.EHLO])
async def test_a_destination_that_refuses_us_before_any_mail_is_left_alone_and_nothing_bounces(
    world: Any, stage: Stage
) -> None:
    """Listed for an afternoon: all that is queued for it would be lost."""
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.REFUSE_POLICY, stage=stage, reply="554 5.7.1 Your address is listed")
    scheduler = await world.start()
    await world.send("bia@shop.example", sender="")
    (first,) = await world.ended(1)
    assert (first.result, first.bounce_class) == (Result.DEFERRED, "policy")
    assert first.reply.startswith("554 5.7.1 Your address is listed")
    await world.send("rui@shop.example", sender="")
    await world.wait(lambda: scheduler.left_alone() == ["shop.example"])
    assert len(world.outcomes) == 1
    mx.behaviour = Behaviour()
    scheduler.retry_now("shop.example")
    assert (await world.ended(2))[1].result is Result.DELIVERED


async def test_what_a_host_may_have_taken_is_not_offered_to_the_next_at_once(world: Any) -> None:
    first, second = await with_backup(world)
    first.behaviour = Behaviour(action=Action.DROP, stage=Stage.MESSAGE)
    await world.start()
    await world.send("bia@shop.example")
    (outcome,) = await world.ended(1)
    assert outcome.result is Result.DEFERRED
    assert second.connections == 0


async def test_but_to_the_next_it_goes_when_it_is_tried_again(world: Any) -> None:
    first, second = await with_backup(world)
    first.behaviour = Behaviour(action=Action.DROP, stage=Stage.MESSAGE)
    await world.start()
    await world.send("bia@shop.example")
    await world.ended(1)
    world.clock.ahead += 100
    world.scheduler.clock_changed()
    assert (await world.ended(2))[1].result is Result.DELIVERED
    assert len(second.messages) == 1


async def test_and_to_no_third_one_in_the_same_attempt(world: Any) -> None:
    hosts = [await world.domain(f"{name}.example") for name in ("shop", "b", "c")]
    world.dns.set("shop.example", "MX", *(f"{number} {host.hostname}." for number, host in enumerate(hosts)))
    for host in hosts:
        host.behaviour = Behaviour(action=Action.DROP, stage=Stage.MESSAGE)
    await world.start()
    await world.send("bia@shop.example")
    await world.ended(1)
    world.clock.ahead += 100
    world.scheduler.clock_changed()
    await world.ended(2)
    assert [host.connections for host in hosts] == [2, 1, 0]


async def test_content_that_a_host_cannot_take_for_its_own_trouble_goes_to_the_next(world: Any) -> None:
    first, second = await with_backup(world)
    words = "452 4.3.1 Insufficient system storage"
    first.behaviour = Behaviour(action=Action.DEFER, stage=Stage.MESSAGE, reply=words)
    await world.start()
    assert (await world.sent()).result is Result.DELIVERED
    assert len(second.messages) == 1


async def test_trouble_of_all_hosts_defers_after_a_few_sessions_with_the_last_ones_words(world: Any) -> None:
    hosts = [await world.domain(f"{name}.example") for name in ("shop", "b", "c", "d", "e")]
    records = [f"{number} {host.hostname}." for number, host in enumerate(hosts)]
    world.dns.set("shop.example", "MX", *records)
    for number, host in enumerate(hosts):
        host.behaviour = Behaviour(action=Action.BUSY, stage=Stage.MAIL, reply=f"421 4.3.2 busy {number}")
    await world.start()
    await world.send("bia@shop.example")
    (outcome,) = await world.ended(1)
    assert (outcome.result, outcome.reply) == (Result.DEFERRED, f"421 4.3.2 busy {MAX_SESSIONS - 1}")
    assert [host.connections for host in hosts] == [1] * MAX_SESSIONS + [0] * (len(hosts) - MAX_SESSIONS)


async def test_a_next_host_that_cannot_be_reached_leaves_the_first_ones_words_and_the_destination_up(
    world: Any,
) -> None:
    first, second = await with_backup(world)
    first.behaviour = Behaviour(action=Action.DEFER, stage=Stage.MAIL, times=1)
    await second.stop()
    await world.start()
    await world.send("bia@shop.example")
    (outcome,) = await world.ended(1)
    assert outcome.reply == "451 4.3.0 Try again later"
    assert outcome.host.startswith(first.hostname)
    await world.send("rui@shop.example")
    assert (await world.ended(2))[1].result is Result.DELIVERED
