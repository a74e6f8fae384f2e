"""Shaping in the pool: how many and how fast, for each destination and for all of a provider's."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any, cast

import pytest
from tests.unit.relay.delivery.destinations.paper import Network, google, refuse, settled, shaped, to

from malote_relay.config import ProviderShaping, Shaping, ShapingLimits, TogetherLimits
from malote_relay.delivery.destinations.destination import LONGEST_LINE, Held
from malote_relay.delivery.destinations.pool import DOWN_SECONDS
from malote_relay.delivery.destinations.room import Limits
from malote_relay.delivery.destinations.shapes import Shapes
from malote_relay.delivery.destinations.shaping import PAUSE_JITTER, PAUSE_SECONDS, RECOVERY_SECONDS
from malote_relay.delivery.dialogue.wire import SessionFailed
from malote_relay.delivery.peer import Identity, Peer
from malote_relay.delivery.reply import Failure, Reply
from malote_relay.delivery.route import MailHost, Route

# Shaping: how many and how fast, for each destination and for all of a provider's.
BUSY = [Reply(421, ("4.7.0 [TSS04] Messages temporarily deferred",))]


async def test_a_rate_keeps_those_who_come_too_early_in_line_and_in_order() -> None:
    network = Network()
    pool = network.pool(shaping=shaped(messages_per_minute=6000))
    for _ in range(100):
        pool.release(await pool.acquire(to("a.example")))
    tasks = [asyncio.create_task(pool.acquire(to("a.example"))) for _ in range(3)]
    await settled()
    assert not any(task.done() for task in tasks)
    for number, task in enumerate(tasks):
        network.now += 0.011
        session = await asyncio.wait_for(task, 30)
        assert not any(later.done() for later in tasks[number + 1 :])
        pool.release(session)
    assert len(network.opened) == 1


async def test_who_would_wait_long_for_a_rate_is_sent_back_with_a_time() -> None:
    pool = Network().pool(shaping=shaped(messages_per_minute=2))
    pool.release(await pool.acquire(to("a.example")))
    with pytest.raises(Held, match="no more than its rate allows") as held:
        await pool.acquire(to("a.example"))
    assert held.value.seconds == pytest.approx(30)


async def test_a_message_that_could_not_begin_costs_nothing_of_the_rate() -> None:
    network = Network()
    network.trouble = refuse
    pool = network.pool(shaping=shaped(messages_per_minute=1))
    with pytest.raises(SessionFailed):
        await pool.acquire(to("a.example"))
    network.trouble = lambda peer, tls: None
    network.now += DOWN_SECONDS
    pool.release(await pool.acquire(to("a.example")))


async def test_recipients_count_too() -> None:
    network = Network()
    pool = network.pool(shaping=shaped(recipients_per_minute=60))
    pool.release(await pool.acquire(to("a.example"), recipients=30))
    with pytest.raises(Held) as held:
        await pool.acquire(to("a.example"))
    assert held.value.seconds == pytest.approx(30)
    network.now += 30
    pool.release(await pool.acquire(to("a.example")))


async def test_a_connection_carries_no_more_messages_and_recipients_than_it_may() -> None:
    network = Network()
    pool = network.pool(shaping=shaped(recipients_per_connection=10, messages_per_connection=3))
    route = to("a.example")
    assert pool.recipients_per_message(route) == 10
    first = cast(Any, await pool.acquire(route, recipients=6))
    pool.release(first)
    again = cast(Any, await pool.acquire(route, recipients=4))
    assert again is first
    pool.release(again)
    await settled()
    assert first.closed
    third = cast(Any, await pool.acquire(route, recipients=6))
    waiting = asyncio.create_task(pool.acquire(route, recipients=5))
    await settled()
    pool.release(third)
    assert await waiting is not third
    pool.release(await waiting)
    fourth = cast(Any, await pool.acquire(route))
    fourth.transactions = 3
    pool.release(fourth)
    await settled()
    assert fourth.closed


async def test_a_host_that_asks_for_less_gets_less_and_who_waits_for_it_goes_back_unharmed() -> None:
    network = Network()
    pool = network.pool(per_destination=4)
    sessions = [await pool.acquire(to("a.example")) for _ in range(4)]
    waiting = [asyncio.create_task(pool.acquire(to("a.example"))) for _ in range(3)]
    await settled()
    pool.heard(to("a.example"), BUSY)
    for held in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(held, Held)
        assert "asked to slow down: 421 4.7.0 [TSS04]" in held.words
        assert PAUSE_SECONDS * (1 - PAUSE_JITTER) <= held.seconds <= PAUSE_SECONDS * (1 + PAUSE_JITTER)
    for session in sessions:
        pool.release(session)
    assert pool.connections == 2
    (state,) = pool.states()
    assert (state.limit, state.why) == (2, "paused: 421 4.7.0 [TSS04] Messages temporarily deferred")
    network.now += PAUSE_SECONDS * (1 + PAUSE_JITTER)
    pool.release(await pool.acquire(to("a.example")))
    (state,) = pool.states()
    assert state.why.startswith("slowed: ")
    network.now += RECOVERY_SECONDS
    assert all((one.limit, one.why) == (4, "") for one in pool.states())


async def test_a_greeting_that_says_too_much_slows_the_destination_when_it_is_up_again() -> None:
    network = Network()
    pool = network.pool(per_destination=10)

    def busy(peer: Peer, tls: bool) -> None:
        raise SessionFailed(Failure("421 4.3.2 Too many connections (mx, greeting)", ""))

    network.trouble = busy
    with pytest.raises(SessionFailed):
        await pool.acquire(to("a.example"))
    network.trouble = lambda peer, tls: None
    network.now += DOWN_SECONDS
    pool.release(await pool.acquire(to("a.example")))
    (state,) = pool.states()
    assert state.limit < 4


async def test_a_greeting_is_read_with_the_words_of_the_hosts_provider() -> None:
    network = Network()
    pool = network.pool()

    def busy(peer: Peer, tls: bool) -> None:
        raise SessionFailed(Failure("451 MI:DMC (mx, greeting)", ""))

    network.trouble = busy
    for name, slowed in (("mx.netease.com", True), ("mx.a.example", False)):
        route = Route("a.example", (MailHost(name, (ipaddress.ip_address("192.0.2.1"),)),))
        with pytest.raises(SessionFailed):
            await pool.acquire(route)
        network.now += DOWN_SECONDS
        assert any(one.why == "slowed: 451 MI:DMC (mx, greeting)" for one in pool.states()) is slowed
        network.now += RECOVERY_SECONDS


async def test_all_destinations_of_a_provider_stay_within_its_limit_and_none_is_left_out() -> None:
    network = Network()
    shaping = Shaping(providers={"google": ProviderShaping(connections=4, together=TogetherLimits(connections=4))})
    pool = network.pool(shaping=shaping)
    held = [await pool.acquire(google("a.example")) for _ in range(4)]
    others = [asyncio.create_task(pool.acquire(google(f"{name}.example"))) for name in "bc"]
    more = [asyncio.create_task(pool.acquire(google("a.example"))) for _ in range(10)]
    elsewhere = await pool.acquire(to("d.example"))
    await settled()
    assert not any(task.done() for task in others)
    assert pool.connections == 5
    for session in held[:2]:
        pool.release(session)
    for task in others:
        pool.release(await asyncio.wait_for(task, 30))
    assert pool.connections <= 5
    for session in held[2:]:
        pool.release(session)
    for task in more:
        pool.release(await asyncio.wait_for(task, 30))
    pool.release(elsewhere)


async def test_an_idle_connection_gives_way_to_another_destination_of_its_provider() -> None:
    shaping = Shaping(providers={"google": ProviderShaping(together=TogetherLimits(connections=1))})
    pool = Network().pool(shaping=shaping)
    first = cast(Any, await pool.acquire(google("a.example")))
    pool.release(first)
    second = await asyncio.wait_for(pool.acquire(google("b.example")), 30)
    assert second is not first
    assert pool.connections == 1


async def test_a_line_for_a_provider_is_not_longer_than_leaves_room_for_others() -> None:
    shaping = Shaping(providers={"google": ProviderShaping(together=TogetherLimits(connections=1))})
    pool = Network().pool(shaping=shaping)
    session = await pool.acquire(google("a.example"))
    waiting = [asyncio.create_task(pool.acquire(google(f"{n % 9}.example"))) for n in range(LONGEST_LINE)]
    await settled()
    with pytest.raises(Held, match="many wait for the same provider"):
        await asyncio.wait_for(pool.acquire(google("5.example")), 30)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    pool.release(session)
    pool.release(await asyncio.wait_for(pool.acquire(google("5.example")), 30))


async def test_a_domain_with_limits_of_its_own_does_not_share_those_of_its_hosts() -> None:
    shaping = Shaping(destinations={"partner.example": ShapingLimits(connections=1)})
    pool = Network().pool(shaping=shaping, per_destination=3)
    hosts = to("mx.shared.example").hosts
    await pool.acquire(Route("partner.example", hosts))
    waiting = asyncio.create_task(pool.acquire(Route("partner.example", hosts)))
    for _ in range(3):
        await pool.acquire(Route("other.example", hosts))
    await settled()
    assert not waiting.done()
    assert pool.connections == 4
    waiting.cancel()


async def test_new_limits_hold_for_who_is_connected_already() -> None:
    network = Network()
    pool = network.pool(per_destination=3)
    sessions = [await pool.acquire(to("a.example")) for _ in range(3)]
    pool.configure(Identity("relay.example", ""), Limits(), Shapes(shaped(connections=1), 3))
    for session in sessions:
        pool.release(session)
    assert pool.connections == 1
