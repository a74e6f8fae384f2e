"""A clock that is moved loses nobody's mail and is told; a configuration is in force as a whole or not at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from malote_dev.mailworld.behaviour import Action, Behaviour
from malote_relay import housekeeping
from malote_relay import relay as composition
from malote_relay.config import configuration_hash, encode

DAY = 86_400
LONGEST_RETRY = 4 * 3_600 * 1.15


async def put_off_a_day_ahead(site: Any, world: Any, start: Callable[[], Any], compose: Any, eventually: Any) -> Any:
    """A relay whose clock is a day ahead, with a recipient that was put off."""
    world.mx.behaviour = Behaviour(action=Action.DEFER)
    site.change(rehearsal={"clock_offset_seconds": DAY})
    relay = await start()
    assert (await relay.send(compose())).accepted

    async def put_off() -> bool:
        return bool((await relay.relay._store.queue_state(0)).deferred)

    await eventually(put_off)
    assert await waits(relay) > DAY
    return relay


async def waits(relay: Any) -> float:
    """How long, by the machine's clock, the first that waits has to; 0 for nothing."""
    following = await relay.relay._store.next_time(time.time())
    return float(following - time.time()) if following else 0.0


async def test_mail_put_off_by_a_clock_that_ran_ahead_is_tried_in_its_time_when_the_clock_is_set_right(
    site: Any, world: Any, start: Callable[[], Any], compose: Any, eventually: Any
) -> None:
    relay = await put_off_a_day_ahead(site, world, start, compose, eventually)
    site.change(rehearsal={"clock_offset_seconds": 0})

    async def in_time() -> bool:
        return 0 < await waits(relay) <= LONGEST_RETRY

    await eventually(in_time)


async def test_the_same_holds_when_the_clock_is_set_right_while_the_relay_is_down(
    site: Any, world: Any, start: Callable[[], Any], compose: Any, eventually: Any
) -> None:
    relay = await put_off_a_day_ahead(site, world, start, compose, eventually)
    await relay.stop()
    site.change(rehearsal={"clock_offset_seconds": 0})
    relay = await start()
    assert 0 < await waits(relay) <= LONGEST_RETRY


async def test_the_same_holds_when_the_machines_clock_is_set_right_and_it_is_told(
    site: Any,
    world: Any,
    start: Callable[[], Any],
    compose: Any,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(housekeeping, "_HOUSEKEEPING_SECONDS", 0.05)
    relay = await put_off_a_day_ahead(site, world, start, compose, eventually)
    assert relay.counted("malote_clock_steps_total") == 0
    relay.relay._clock.offset = 0  # as if the machine's clock had been set

    async def in_time() -> bool:
        return 0 < await waits(relay) <= LONGEST_RETRY

    await eventually(in_time)
    await eventually(lambda: relay.counted("malote_clock_steps_total"))
    assert relay.counted("malote_clock_steps_total") == 1


async def test_a_clock_behind_the_hours_that_were_charged_is_told_at_the_start_and_in_the_metrics(
    site: Any, start: Callable[[], Any], compose: Any
) -> None:
    site.begin_an_hour()
    ahead = 10 * DAY + site.config.rehearsal.clock_offset_seconds
    site.change(plan={"messages_per_hour": 2, "tolerance_percent": 0}, rehearsal={"clock_offset_seconds": ahead})
    relay = await start()
    for _ in range(2):
        assert (await relay.send(compose())).accepted
    await relay.relay._refresh()
    assert relay.counted("malote_clock_behind_seconds") == 0
    await relay.stop()
    site.change(rehearsal={"clock_offset_seconds": 0})
    with capture_logs() as log:
        relay = await start()
    (said,) = [entry for entry in log if "clock is behind" in entry["event"]]
    assert said["log_level"] == "error"
    assert ahead - 120 < said["seconds"] <= ahead
    await relay.relay._refresh()
    assert relay.counted("malote_clock_behind_seconds") == pytest.approx(said["seconds"], abs=120)
    assert str(await relay.send(compose())).startswith("550 5.7.1 hourly limit reached"), "an hour does not reopen"


async def test_a_held_message_whose_hour_begins_while_it_is_accepted_goes_at_once(
    site: Any, world: Any, start: Callable[[], Any], compose: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.begin_an_hour()
    site.change(plan={"messages_per_hour": 1, "tolerance_percent": 100})
    relay = await start()
    await relay.send(compose())
    await world.mx.wait_for(1)
    accept = relay.relay._store.accept

    async def hour_begins(message: Any) -> Any:
        assert message.recipients[0].not_before > relay.relay._clock.now(), "it is held"
        relay.relay._clock.offset += 3600
        await asyncio.sleep(1.5)  # delivery looks for what the new hour releases, and finds nothing
        return await accept(message)

    monkeypatch.setattr(relay.relay._desk, "_store", type("", (), {"accept": staticmethod(hour_begins)})())
    assert (await relay.send(compose())).accepted
    assert len(await world.mx.wait_for(2, timeout=20)) == 2


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("delivery", {"source_address": "nonsense", "smtp_port": 25}, "delivery.sourceAddress: 'nonsense'"),
        ("limits", {"command_timeout": -1.0}, "`$.limits.commandTimeout`"),
        ("delivery", {"helo_name": ""}, "delivery.heloName"),
    ],
)
async def test_a_configuration_that_would_fail_in_use_never_comes_in_force(
    relay: Any, site: Any, eventually: Any, name: str, fields: dict[str, Any], said: str
) -> None:
    before = relay.relay._readiness()
    good = site.config
    site.change(hostname="renamed.smtp.example", rehearsal={"clock_offset_seconds": DAY}, **{name: fields})
    await eventually(lambda: relay.relay._watcher.error)
    assert said in relay.relay._watcher.error
    assert relay.relay._readiness() == before | {"configError": relay.relay._watcher.error}
    assert relay.counted("malote_config_error") == 1
    site.config = msgspec.structs.replace(good, hostname="right.smtp.example")
    site.write()
    await eventually(lambda: not relay.relay._watcher.error)
    assert relay.counted("malote_config_error") == 0
    assert relay.counted("malote_config_errors_total") == 1
    assert relay.relay._readiness()["configHash"] == configuration_hash(encode(site.config))


@pytest.mark.parametrize("part", ["Policy.of", "Resolver.reconfigure", "Rules.__init__"])
async def test_a_part_that_cannot_be_built_leaves_everything_as_it_was(
    relay: Any, site: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def failing(*_: Any) -> None:
        raise ValueError("cannot be built")

    one = relay.relay
    before = one._readiness()
    rules, signer, context, clock = one._door.rules, one._door.signer, one.server._context, one._clock.offset
    name, method = part.split(".")
    monkeypatch.setattr(getattr(composition, name), method, failing)
    site.change(
        hostname="renamed.smtp.example",
        rehearsal={"clock_offset_seconds": DAY},
        plan={"messages_per_hour": 5},
        sender_verification={"timeout": 1.0},
    )
    await eventually(lambda: "cannot be built" in one._watcher.error)
    assert (one._door.rules, one._door.signer, one.server._context, one._clock.offset) == (
        rules,
        signer,
        context,
        clock,
    )
    assert one._scheduler._config.hostname == rules.config.hostname
    assert one._senders._verification == rules.config.sender_verification
    assert one._window.usage(time.time()).limit == rules.config.plan.messages_per_hour
    assert one._readiness() == before | {"configError": one._watcher.error}
    monkeypatch.undo()
    site.write()
    await eventually(lambda: one._readiness()["configHash"] == configuration_hash(encode(site.config)))
    await asyncio.sleep(0)
    assert one._door.rules.config.hostname == "renamed.smtp.example"
