"""Which host and address a session is opened with, with which TLS, and what is kept of one that cannot be reached."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any, cast

import pytest
from tests.unit.relay.delivery.destinations.paper import Network, refuse, requiring, settled, to, two_hosts

from malote_relay.delivery.destinations.destination import Held
from malote_relay.delivery.destinations.dialling import PLAIN_SECONDS, others
from malote_relay.delivery.destinations.pool import DOWN_SECONDS
from malote_relay.delivery.destinations.shaping import RECOVERY_SECONDS
from malote_relay.delivery.dialogue.wire import SessionFailed
from malote_relay.delivery.peer import Peer
from malote_relay.delivery.reply import Failure
from malote_relay.delivery.tls.results import ResultType, Trouble


async def test_a_destination_that_cannot_be_reached_costs_one_attempt_and_is_left_alone_for_a_while() -> None:
    network = Network()
    network.trouble = refuse
    pool = network.pool(per_destination=1)
    first, *others = await asyncio.gather(*(pool.acquire(to("a.example")) for _ in range(5)), return_exceptions=True)
    assert isinstance(first, SessionFailed)
    assert all(isinstance(one, Held) and one.seconds == DOWN_SECONDS for one in others)
    assert "cannot be reached: 451 4.4.1 no connection" in str(others[0])
    with pytest.raises(Held):
        await pool.acquire(to("a.example"))
    assert len(network.tried) == 1
    network.now = DOWN_SECONDS + 1
    network.trouble = lambda peer, tls: None
    await pool.acquire(to("a.example"))
    assert pool.held(to("a.example")) is None


async def test_a_destination_that_stays_away_is_asked_ever_more_rarely_and_then_at_once_again() -> None:
    network = Network()
    network.trouble = refuse
    pool = network.pool()
    pauses = []
    for _ in range(7):
        with pytest.raises(SessionFailed):
            await pool.acquire(to("a.example"))
        held = pool.held(to("a.example"))
        assert held is not None
        pauses.append(held.seconds)
        network.now += held.seconds
    assert pauses == [30, 60, 120, 240, 480, 600, 600]
    network.trouble = lambda peer, tls: None
    pool.release(await pool.acquire(to("a.example")))
    pool.close_idle()
    network.trouble = refuse
    with pytest.raises(SessionFailed):
        await pool.acquire(to("a.example"))
    assert pool.held(to("a.example")) is not None
    pool.forgive(to("a.example"))
    assert pool.held(to("a.example")) is None


async def test_a_host_that_wants_no_more_connections_keeps_those_it_has() -> None:
    network = Network()
    pool = network.pool(per_destination=5)
    first = await pool.acquire(to("a.example"))
    network.trouble = refuse
    second = asyncio.create_task(pool.acquire(to("a.example")))
    third = asyncio.create_task(pool.acquire(to("a.example")))
    await settled()
    assert not second.done()
    (state,) = pool.states()
    assert (state.connections, state.limit, state.why) == (1, 1, "slowed: it refused more than 1 connections")
    pool.release(first)
    assert await asyncio.wait_for(second, 30) is first
    assert pool.connections == 1
    network.trouble = lambda peer, tls: None
    network.now = RECOVERY_SECONDS / 5 + 1
    pool.release(await second)
    await asyncio.wait_for(third, 30)


async def test_a_refused_greeting_is_final_only_when_no_host_may_take_it_later() -> None:
    network = Network()

    def by_address(peer: Peer, tls: bool) -> None:
        permanent = str(peer.address) != "192.0.2.2"
        raise SessionFailed(Failure("554 5.7.1 no" if permanent else "421 4.3.2 busy", "", permanent=permanent))

    network.trouble = by_address
    with pytest.raises(SessionFailed) as both:
        await network.pool().acquire(to("a.example", "192.0.2.1", "192.0.2.2", "192.0.2.3"))
    assert both.value.failure.words.startswith("421")
    with pytest.raises(SessionFailed) as never:
        await network.pool().acquire(to("a.example", "192.0.2.1", "192.0.2.3"))
    assert never.value.failure.permanent


async def test_the_next_address_is_tried_when_one_cannot_be_reached() -> None:
    network = Network()

    def first_is_dead(peer: Peer, tls: bool) -> None:
        if str(peer.address) == "192.0.2.1":
            refuse(peer, tls)

    network.trouble = first_is_dead
    session = await network.pool().acquire(to("a.example", "192.0.2.1", "192.0.2.2"))
    assert str(session.peer.address) == "192.0.2.2"


async def test_broken_tls_leads_to_clear_text_and_is_not_tried_again_for_a_while() -> None:
    network = Network()
    tries: list[bool] = []

    def no_tls(peer: Peer, tls: bool) -> None:
        tries.append(tls)
        if tls:
            raise SessionFailed(
                Failure("451 4.7.5 handshake", "tls"),
                tls=Trouble(ResultType.VALIDATION_FAILURE, "an alert", lasting=True),
            )

    network.trouble = no_tls
    pool = network.pool()
    sessions = [await pool.acquire(to("a.example")) for _ in range(2)]
    assert [session.tls for session in sessions] == ["", ""]
    assert tries == [True, False, False]
    network.now = PLAIN_SECONDS + 1
    await pool.acquire(to("a.example"))
    assert tries[3:] == [True, False]


async def test_tls_that_is_required_and_fails_is_down_for_those_alone_who_require_it() -> None:
    network = Network()
    tried: list[bool] = []

    def untrusted(peer: Peer, tls: bool) -> None:
        tried.append(peer.security.required)
        if peer.security.required:
            trouble = Trouble(ResultType.NOT_TRUSTED, "who?")
            raise SessionFailed(Failure("451 4.7.5 no TLS", "tls"), tls=trouble)

    network.trouble = untrusted
    pool = network.pool(per_destination=1)
    route = to("a.example")
    plain = await pool.acquire(route)
    waiting = [asyncio.create_task(pool.acquire(requiring(route))) for _ in range(3)]
    await settled()
    pool.release(plain)
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(end) for end in ends] == [SessionFailed] * 3
    assert tried == [False, True]
    assert pool.held(route) is None
    with pytest.raises(SessionFailed, match="no TLS"):
        await pool.acquire(requiring(route))
    assert tried == [False, True]
    pool.release(await pool.acquire(route))
    assert pool.connections == 1


async def test_a_session_is_handed_on_only_to_whom_its_tls_is_enough() -> None:
    network = Network()
    pool = network.pool(per_destination=1)
    route = to("a.example")
    first = cast(Any, await pool.acquire(route))
    strict = asyncio.create_task(pool.acquire(requiring(route)))
    await settled()
    pool.release(first)
    second = cast(Any, await asyncio.wait_for(strict, 30))
    await settled()
    assert first.closed
    assert second.peer.security.required
    pool.release(second)
    # What is verified is good enough for everyone.
    assert await pool.acquire(route) is second
    assert pool.connections == 1


async def test_a_source_address_reaches_its_own_family_only() -> None:
    network = Network()
    pool = network.pool(source="192.0.2.9")
    session = await pool.acquire(to("a.example", "2001:db8::1", "192.0.2.1"))
    assert str(session.peer.address) == "192.0.2.1"
    with pytest.raises(SessionFailed, match="could reach"):
        await pool.acquire(to("b.example", "2001:db8::1"))


def test_the_next_host_comes_before_another_address_and_what_was_not_tried_before_what_was() -> None:
    peers = [Peer(f"mx{host}", ipaddress.ip_address(f"192.0.2.{host}{n}")) for host in (1, 2, 3) for n in (1, 2)]

    def order(at: int, *passed: int) -> list[str]:
        return [str(peer.address)[-2:] for peer in others(peers, peers[at], [peers[place] for place in passed])]

    assert order(0, 0) == ["21", "22", "31", "32", "12"]
    assert order(2, 0, 2) == ["31", "32", "22", "12"]
    assert order(4, 4) == ["11", "12", "21", "22", "32"]
    assert order(0, *range(6)) == []


@pytest.mark.parametrize("room", [True, False])
async def test_a_session_is_exchanged_for_one_with_another_host_within_the_limits(room: bool) -> None:
    network = Network()
    pool = network.pool(per_destination=2 if room else 1)
    session = cast(Any, await pool.acquire(two_hosts()))
    waiting = asyncio.create_task(pool.acquire(two_hosts())) if not room else None
    await settled()
    other = await pool.elsewhere(session, two_hosts(), [session.peer])
    assert other is not None
    assert (session.peer.name, other.peer.name) == ("mx1.a.example", "mx2.a.example")
    await settled()
    assert session.closed is not room
    assert (pool.connections, pool.idle) == ((2, 1) if room else (1, 0))
    pool.release(other)
    if waiting is not None:
        assert await asyncio.wait_for(waiting, 30) is other


async def test_a_session_is_given_back_when_there_is_no_other_host() -> None:
    pool = Network().pool()
    session = await pool.acquire(to("a.example"))
    assert await pool.elsewhere(session, to("a.example"), [session.peer]) is None
    assert (pool.connections, pool.idle) == (1, 1)


async def test_another_host_that_cannot_be_reached_takes_the_destination_not_down() -> None:
    network = Network()
    pool = network.pool(per_destination=1)
    session = await pool.acquire(two_hosts())
    network.trouble = refuse
    with pytest.raises(SessionFailed):
        await pool.elsewhere(session, two_hosts(), [session.peer])
    assert network.tried[1:] == ["192.0.2.3", "192.0.2.2"]
    assert pool.connections == 0
    network.trouble = lambda peer, tls: None
    assert await pool.acquire(two_hosts())
