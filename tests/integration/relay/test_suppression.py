"""Bounces and complaints have consequences: recipients that are refused, accounts that are paused."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from tests.integration.relay.running import readiness

from malote_dev.mailworld.behaviour import Action, Behaviour
from malote_operator.api.tenant import AccountPaused
from malote_operator.reconcile import relaypods
from malote_operator.reconcile.cache import RelayPod, RelaySet
from malote_relay.store.suppressions import Reason

DAY = 86_400


async def bounce(relay: Any, world: Any, compose: Any, eventually: Any, *recipients: str) -> None:
    """Send to recipients that the remote host does not know; wait until it is written down."""
    before = relay.counted("malote_deliveries_total", result="failed", bounce_class="bad-mailbox")
    world.mx.behaviour = Behaviour(action=Action.REFUSE)
    assert (await relay.send(compose(), to=recipients)).accepted

    async def failed() -> bool:
        now = relay.counted("malote_deliveries_total", result="failed", bounce_class="bad-mailbox")
        return bool(now >= before + len(recipients))

    await eventually(failed)
    await relay.relay.suppressions.flush()


async def paused_accounts(relay: Any) -> list[dict[str, str]]:
    """What /readyz tells of pauses."""
    told: list[dict[str, str]] = (await readiness(relay)).get("pausedAccounts", [])
    return told


async def test_after_a_hard_bounce_the_recipient_is_refused_until_its_time_is_over(
    start: Any, site: Any, world: Any, compose: Any, eventually: Any
) -> None:
    relay = await start()
    await bounce(relay, world, compose, eventually, "gone@dest.example")
    answer = await relay.rcpt("Gone@dest.example")
    assert answer.startswith("550")
    assert "5.7.1 the recipient <Gone@dest.example> is on this tenant's suppression list since" in answer
    assert "mail to it bounced (bad-mailbox: 550 5.1.1 No such mailbox here)" in answer
    assert relay.counted("malote_messages_refused_total", reason="recipient_suppressed") == 1
    assert relay.counted("malote_suppressed_total", reason="bounce") == 1
    assert (await relay.rcpt("bob@dest.example")).startswith("250 ")

    site.change(rehearsal={"clock_offset_seconds": 30 * DAY + 60})

    async def over() -> bool:
        return str(await relay.rcpt("gone@dest.example")).startswith("250 ")

    await eventually(over)


async def test_a_suppressed_recipient_costs_no_unit_and_the_others_of_a_message_go(
    start: Any, site: Any, world: Any, compose: Any
) -> None:
    site.begin_an_hour()
    relay = await start()
    await relay.relay.suppressions.add("gone@dest.example")
    dialogue = await relay.signed_in()
    await dialogue.say("MAIL FROM:<ana@acme.example>")
    assert (await dialogue.say("RCPT TO:<gone@dest.example>")).startswith("550")
    assert relay.reserved() == 0
    assert (await dialogue.say("RCPT TO:<bob@dest.example>")).startswith("250 ")
    assert relay.reserved() == 1
    assert (await dialogue.say("DATA")).startswith("354 ")
    dialogue.send(compose() + b"\r\n.\r\n")
    assert (await dialogue.read()).startswith("250 ")
    (message,) = await world.mx.wait_for(1)
    assert message.recipients == ("bob@dest.example",)
    assert await relay.stored() == 1


@pytest.mark.parametrize("written", ['"gone"@dest.example', '"g\\one"@dest.example', "@a.example:gone@DEST.example"])
async def test_another_way_to_write_an_address_does_not_take_it_off_the_list(relay: Any, written: str) -> None:
    await relay.relay.suppressions.add("gone@dest.example")
    assert (await relay.rcpt(written)).startswith("550")


async def test_the_list_is_there_after_a_restart_and_can_be_changed_by_hand(
    start: Any, world: Any, compose: Any, eventually: Any
) -> None:
    first = await start()
    await bounce(first, world, compose, eventually, "gone@dest.example")
    await first.stop()
    relay = await start()
    suppressions = relay.relay.suppressions
    await suppressions.add("eva@dest.example", note="asked by phone")
    listed = [(entry.address, entry.reason) async for entry in suppressions.entries()]
    assert listed == [("eva@dest.example", Reason.MANUAL), ("gone@dest.example", Reason.BOUNCE)]
    assert "for good: it was put there by hand (asked by phone)" in await relay.rcpt("eva@dest.example")
    for address in ("eva@dest.example", "gone@dest.example"):
        assert (await relay.rcpt(address)).startswith("550")
        await suppressions.remove(address)
        assert (await relay.rcpt(address)).startswith("250 ")


async def test_what_waits_already_is_delivered_and_takes_its_recipient_off(
    relay: Any, world: Any, compose: Any, eventually: Any
) -> None:
    world.mx.behaviour = Behaviour(action=Action.DEFER)
    assert (await relay.send(compose(), to=("bob@dest.example",))).accepted

    async def deferred() -> bool:
        return bool(relay.counted("malote_deliveries_total", result="deferred", bounce_class="system"))

    await eventually(deferred)
    await bounce(relay, world, compose, eventually, "bob@dest.example")
    assert (await relay.rcpt("bob@dest.example")).startswith("550")
    world.mx.behaviour = Behaviour()
    relay.site.change(rehearsal={"clock_offset_seconds": 120})

    async def taken_off() -> bool:
        return str(await relay.rcpt("bob@dest.example")).startswith("250 ")

    await eventually(taken_off)


async def test_an_account_that_bounces_too_much_is_paused_until_it_is_resumed(
    start: Any, site: Any, world: Any, compose: Any, eventually: Any
) -> None:
    site.change(account_pause={"min_recipients": 5}, suppression={"enabled": False})
    relay = await start()
    await bounce(relay, world, compose, eventually, *(f"gone{number}@dest.example" for number in range(5)))
    await eventually(relay.relay.pauses.standing)
    dialogue = await relay.signed_in()
    answer = await dialogue.say("MAIL FROM:<ana@acme.example>")
    assert answer.startswith("550 5.7.1 the account app@acme is paused since ")
    assert "5 of 5 recipients within 24 hours bounced: 100 %, and 5 % is the limit" in answer
    assert answer.endswith("it stays so until your platform resumes it")
    assert relay.counted("malote_messages_refused_total", reason="account_paused") == 1
    assert relay.counted("malote_account_paused", account="app") == 1
    assert relay.counted("malote_account_paused", account="news") == 0
    (told,) = await paused_accounts(relay)
    assert (told["account"], "until" in told) == ("app", False)
    assert told["reason"] == "5 of 5 recipients within 24 hours bounced: 100 %, and 5 % is the limit"
    await relay.stop()
    again = await start()
    assert await paused_accounts(again) == [told], "the operator is told the same after a restart"
    dialogue = await again.signed_in()
    assert (await dialogue.say("MAIL FROM:<ana@acme.example>")).startswith("550 5.7.1 the account")
    assert again.relay.pauses.resume("app") is not None
    assert (await dialogue.say("MAIL FROM:<ana@acme.example>")).startswith("250 ")
    assert await paused_accounts(again) == []


async def test_a_message_under_way_when_its_account_is_paused_is_refused(start: Any, site: Any, compose: Any) -> None:
    """Else as many as there may be sessions and recipients could be got ready, to leave after the pause."""
    site.change(account_pause={"min_recipients": 5, "min_complaints": 1})
    relay = await start()
    dialogue = await relay.at_data()
    for _ in range(5):
        relay.relay.pauses._window("app").count(relay.relay._clock.now(), delivered=1)
    relay.relay.pauses.complained("app", relay.relay._clock.now())
    assert (await dialogue.say(compose() + b".\r\n")).startswith("550 5.7.1 the account app@acme is paused since ")
    await relay.keeps_nothing()


async def test_a_pause_with_an_end_says_when_and_ends_then(start: Any, site: Any, eventually: Any) -> None:
    hours = 2
    site.change(account_pause={"min_recipients": 5, "min_complaints": 1, "pause_hours": hours})
    relay = await start()
    pauses = relay.relay.pauses
    for _ in range(5):
        pauses._window("app").count(relay.relay._clock.now(), delivered=1)
    pauses.complained("app", relay.relay._clock.now())
    dialogue = await relay.signed_in()
    answer = await dialogue.say("MAIL FROM:<ana@acme.example>")
    assert "1 of 5 recipients within 24 hours complained: 20 %, and 0.3 % is the limit" in answer
    assert "sending resumes at " in answer
    assert "until" in (await paused_accounts(relay))[0]
    site.change(rehearsal={"clock_offset_seconds": hours * 3600 + 1})
    await relay.relay._watcher.look()
    assert (await dialogue.say("MAIL FROM:<ana@acme.example>")).startswith("250 ")


async def test_the_operator_reads_from_the_relay_whom_it_has_paused_and_why(
    relay: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaypods, "OBSERVE_PORT", relay.relay.observatory.port)
    monkeypatch.setattr(relaypods, "_TIMEOUT", aiohttp.ClientTimeout(total=30.0))
    pod = RelayPod(name="acme-relay-0", uid="u", tenant="acme", address="127.0.0.1", ready=True)
    pauses, now = relay.relay.pauses, relay.relay._clock.now()
    async with relaypods.RelayPods(None, "relays") as pods:  # type: ignore[arg-type]  # nothing is written

        async def seen() -> dict[str, AccountPaused]:
            (one,) = (await pods.observe(RelaySet(1, 1), [pod])).pods
            assert one.config_hash
            return dict(one.paused)

        assert await seen() == {}
        pauses._window("news").count(now, delivered=100)
        for _ in range(6):
            pauses.bounced_later("news", "bad-mailbox", now)
        told = await seen()
        assert list(told) == ["news"]
        assert abs(told["news"].since.timestamp() - now) < 60
        assert told["news"].until is None
        assert "recipients within 24 hours bounced" in told["news"].reason
        pauses.resume("news")
        assert await seen() == {}
