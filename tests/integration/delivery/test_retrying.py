"""Mail that could not be delivered: when it is tried again, and when it is given up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from malote_dev.mailworld.behaviour import Action, Behaviour, Stage, TlsMode
from malote_relay.delivery.peer import Timeouts
from malote_relay.store.model import Result


async def test_a_deferred_message_is_tried_again_when_its_time_has_come(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.GREYLIST)
    await world.start()
    await world.send("bia@shop.example")
    (first,) = await world.ended(1)
    assert (first.result, first.bounce_class) == (Result.DEFERRED, "greylist")
    assert 50 < first.next_attempt_at - first.at < 70
    assert mx.messages == []
    world.clock.ahead += 100
    world.scheduler.clock_changed()
    await mx.wait_for(1)
    assert [one.result for one in await world.ended(2)] == [Result.DEFERRED, Result.DELIVERED]
    assert world.outcomes[1].recipient.attempts == 1


async def test_a_clock_that_jumps_is_noticed_without_being_told(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.GREYLIST)
    await world.start()
    await world.send("bia@shop.example")
    await world.ended(1)
    world.clock.ahead += 100
    await mx.wait_for(1)


@pytest.mark.parametrize("action", [Action.DROP, Action.SILENT, Action.EMPTY, Action.BUSY, Action.DEFER])
@pytest.mark.parametrize("stage", list(Stage))
async def test_trouble_at_any_stage_defers_and_the_next_attempt_delivers(
    world: Any, stage: Stage, action: Action
) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=action, stage=stage)
    await world.start(timeouts=Timeouts(1, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.1))
    await world.send("bia@shop.example")
    (outcome,) = await world.ended(1)
    assert outcome.result is Result.DEFERRED, outcome
    assert outcome.reply[:2] in {"45", "42"}
    await world.stop()
    mx.behaviour = Behaviour()
    world.clock.ahead += 100
    await world.start()
    await mx.wait_for(1)
    assert (await world.ended(2))[1].result is Result.DELIVERED


async def test_the_deferred_recipients_of_a_message_come_back_in_one_transaction(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.GREYLIST)
    await world.start()
    recipients = tuple(f"r{number:02}@shop.example" for number in range(50))
    await world.send(*recipients)
    await world.send("other@shop.example")
    outcomes = await world.ended(51)
    assert len({one.next_attempt_at for one in outcomes}) == 2
    world.clock.ahead += 100
    world.scheduler.clock_changed()
    await world.ended(102)
    assert sorted(message.recipients for message in mx.messages) == [("other@shop.example",), recipients]


@pytest.mark.parametrize("mode", [TlsMode.BROKEN, TlsMode.UNAVAILABLE])
@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT])
async def test_a_host_that_insists_on_tls_which_fails_now_is_tried_again(
    world: Any, mode: TlsMode, stage: Stage
) -> None:
    """Its words are final, and would bounce the mail for a handshake that somebody cut off."""
    mx = await world.domain("shop.example")
    mx.tls = mode
    words = "530 5.7.0 Must issue a STARTTLS command first"
    mx.behaviour = Behaviour(action=Action.REFUSE, stage=stage, reply=words)
    await world.start()
    await world.send("bia@shop.example")
    (outcome,) = await world.ended(1)
    assert (outcome.result, outcome.bounce_class) == (Result.DEFERRED, "tls"), outcome
    assert outcome.reply.endswith(words)


async def test_a_host_that_insists_on_tls_and_offers_none_has_the_last_word(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.tls = TlsMode.NONE
    mx.behaviour = Behaviour(action=Action.REFUSE, stage=Stage.MAIL, reply="530 5.7.0 Must issue a STARTTLS command")
    await world.start()
    await world.send("bia@shop.example")
    (outcome,) = await world.ended(1)
    assert (outcome.result, outcome.bounce_class) == (Result.FAILED, "tls")


async def test_a_name_server_that_fails_only_defers(world: Any) -> None:
    mx = await world.domain("shop.example")
    world.dns.fail("shop.example", "SERVFAIL")
    await world.start()
    await world.send("bia@shop.example")
    (outcome,) = await world.ended(1)
    assert (outcome.result, outcome.bounce_class) == (Result.DEFERRED, "routing")
    world.dns.fail("shop.example", None)
    await asyncio.sleep(0.3)  # that there is no way is taken for true for a quarter of a second
    world.clock.ahead += 100
    await mx.wait_for(1)


async def test_what_is_too_old_is_given_up_and_reported(world: Any) -> None:
    mx = await world.domain("shop.example")
    home = await world.domain("acme.example")
    mx.behaviour = Behaviour(action=Action.DEFER)
    await world.start(max_age_seconds=150)
    await world.send("bia@shop.example")
    await world.ended(1)
    for count in (2, 3):
        world.clock.ahead += 100
        world.scheduler.clock_changed()
        await world.ended(count)
    expired = world.outcomes[2]
    assert expired.result is Result.FAILED
    assert expired.reply.startswith("554 5.4.7 not delivered within 2.5 minutes; the last answer was: 451 4.3.0")
    assert b"Status: 5.4.7" in (await home.wait_for(1))[0].content


async def test_an_unexpected_error_defers_and_does_not_spin(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.domain("shop.example")

    async def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("malote_relay.delivery.queue.jobs.attempt", broken)
    await world.start()
    await world.send("bia@shop.example")
    (outcome,) = await world.ended(1)
    assert (outcome.result, outcome.bounce_class) == (Result.DEFERRED, "other")
    assert "ZeroDivisionError" in outcome.reply
    await asyncio.sleep(0.3)
    assert len(world.outcomes) == 1


@pytest.mark.parametrize(
    "end",
    [
        Behaviour(action=Action.BUSY, stage=Stage.MAIL, times=1),
        # Out of step by itself, or it takes one message a connection and says so in this way.
        Behaviour(action=Action.REFUSE, stage=Stage.MAIL, times=1, reply="503 5.5.1 Sender already specified"),
    ],
    ids=["421", "503"],
)
async def test_a_kept_connection_that_the_host_gives_up_costs_the_message_nothing(world: Any, end: Behaviour) -> None:
    mx = await world.domain("shop.example")
    await world.start()
    await world.send("bia@shop.example")
    await world.ended(1)
    mx.behaviour = end
    await world.send("rui@shop.example")
    await world.ended(2)
    assert world.results() == [Result.DELIVERED] * 2
    assert mx.connections == 2


@pytest.mark.parametrize("action", [Action.AFFIRM, Action.PREMATURE])
async def test_a_host_that_says_250_to_what_it_has_not_got_loses_nothing(world: Any, action: Action) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=action, stage=Stage.DATA, times=1)
    scheduler = await world.start()
    await world.send("bia@shop.example")
    await world.ended(1)
    assert not mx.messages
    world.clock.ahead = 600
    scheduler.clock_changed()
    outcomes = await world.ended(2)
    assert [one.result for one in outcomes] == [Result.DEFERRED, Result.DELIVERED]
    assert (outcomes[0].reply[:9], outcomes[0].bounce_class) == ("451 4.5.0", "system")
    assert len(mx.messages) == 1
