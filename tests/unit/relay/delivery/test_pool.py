"""The pool's limits and fairness, with sessions that exist only on paper."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Callable
from typing import Any, cast

import pytest

from malote_relay.delivery.connection import Identity, Peer, Session, SessionFailed, Timeouts
from malote_relay.delivery.pool import CEILING_SECONDS, DOWN_SECONDS, PLAIN_SECONDS, Limits, Pool, others
from malote_relay.delivery.reply import Failure
from malote_relay.delivery.route import MailHost, Route


class Paper:
    """A session without a socket."""

    def __init__(self, peer: Peer, tls: object) -> None:
        self.peer = peer
        self.tls = "TLSv1.3" if tls else ""
        self.transactions = 0
        self.usable = True
        self.closed = False

    async def quit(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


class Network:
    """Opens paper sessions; `trouble` may raise for a peer."""

    def __init__(self) -> None:
        self.opened: list[Paper] = []
        self.tried: list[str] = []
        self.trouble: Callable[[Peer, bool], None] = lambda peer, tls: None
        self.now = 0.0

    async def open(self, peer: Peer, identity: Identity, timeouts: Timeouts, tls: ssl.SSLContext | None) -> Session:
        self.tried.append(str(peer.address))
        await asyncio.sleep(0)
        self.trouble(peer, tls is not None)
        session = Paper(peer, tls)
        self.opened.append(session)
        return cast(Session, session)

    def pool(self, *, source: str = "", **limits: Any) -> Pool:
        return Pool(
            Identity("relay.example", source),
            Limits(**limits),
            tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            opener=self.open,
            clock=lambda: self.now,
        )


def to(name: str, *addresses: str) -> Route:
    return Route(
        name, (MailHost(f"mx.{name}", tuple(ipaddress.ip_address(one) for one in addresses or ["192.0.2.1"])),)
    )


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def refuse(peer: Peer, tls: bool) -> None:
    raise SessionFailed(Failure("451 4.4.1 no connection", "connection"))


async def test_a_session_that_is_given_back_is_used_again() -> None:
    network = Network()
    pool = network.pool()
    first = await pool.acquire(to("a.example"))
    pool.release(first)
    assert (pool.connections, pool.idle) == (1, 1)
    assert await pool.acquire(to("a.example")) is first
    assert len(network.opened) == 1


async def test_a_session_is_closed_after_its_share_of_messages_when_idle_and_when_broken() -> None:
    network = Network()
    pool = network.pool(messages_per_session=2, idle_seconds=0.01)
    session = cast(Any, await pool.acquire(to("a.example")))
    session.transactions = 2
    pool.release(session)
    await settled()
    assert session.closed
    idle = cast(Any, await pool.acquire(to("a.example")))
    pool.release(idle)
    await asyncio.sleep(0.05)
    assert idle.closed
    broken = cast(Any, await pool.acquire(to("a.example")))
    broken.usable = False
    pool.release(broken)
    assert broken.closed
    assert pool.connections == 0


async def test_no_destination_has_more_than_its_limit_and_waiting_is_in_order() -> None:
    network = Network()
    pool = network.pool(per_destination=2)
    held = [await pool.acquire(to("a.example")) for _ in range(2)]
    order: list[int] = []

    async def work(number: int) -> None:
        session = await pool.acquire(to("a.example"))
        order.append(number)
        await asyncio.sleep(0)
        pool.release(session)

    tasks = [asyncio.create_task(work(number)) for number in range(5)]
    await settled()
    assert order == []
    for session in held:
        pool.release(session)
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]
    assert len(network.opened) == 2


async def test_all_together_stay_within_the_whole_limit_and_idle_ones_give_way() -> None:
    network = Network()
    pool = network.pool(connections=2, per_destination=2, reserve=0.0)
    a = cast(Any, await pool.acquire(to("a.example")))
    b = await pool.acquire(to("b.example"))
    waiting = asyncio.create_task(pool.acquire(to("c.example")))
    await settled()
    assert not waiting.done()
    pool.release(a)
    c = await asyncio.wait_for(waiting, 1)
    await settled()
    assert a.closed
    assert pool.connections == 2
    pool.release(b)
    pool.release(c)


async def test_a_busy_destination_leaves_room_for_one_that_has_nothing() -> None:
    pool = Network().pool(connections=10, per_destination=10, reserve=0.2)
    busy = [asyncio.create_task(pool.acquire(to("slow.example"))) for _ in range(20)]
    await settled()
    assert sum(task.done() for task in busy) == 8
    await asyncio.wait_for(pool.acquire(to("fast.example")), 1)
    for task in busy:
        task.cancel()
    await settled()


async def test_when_all_is_taken_one_with_several_gives_one_up_for_one_with_none() -> None:
    pool = Network().pool(connections=3, per_destination=3, reserve=0.0)
    held = [await pool.acquire(to("slow.example")) for _ in range(3)]
    more = asyncio.create_task(pool.acquire(to("slow.example")))
    other = asyncio.create_task(pool.acquire(to("fast.example")))
    await settled()
    pool.release(held[0])
    await asyncio.wait_for(other, 1)
    assert not more.done()
    more.cancel()


async def test_giving_up_in_line_costs_no_room() -> None:
    network = Network()
    pool = network.pool(connections=1)
    held = await pool.acquire(to("a.example"))
    waiting = [asyncio.create_task(pool.acquire(to(name))) for name in ("b.example", "c.example", "d.example")]
    await settled()
    waiting[1].cancel()
    pool.release(held)
    waiting[0].cancel()  # in the very moment in which it is let in
    session = await asyncio.wait_for(waiting[2], 1)
    pool.release(session)
    assert pool.connections == 1


async def test_a_destination_that_cannot_be_reached_fails_all_who_wait_and_is_left_alone_for_a_while() -> None:
    network = Network()
    network.trouble = refuse
    pool = network.pool(per_destination=1)
    outcomes = await asyncio.gather(*(pool.acquire(to("a.example")) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(one, SessionFailed) for one in outcomes)
    assert len(network.tried) == 1
    with pytest.raises(SessionFailed):
        await pool.acquire(to("a.example"))
    assert len(network.tried) == 1
    down = pool.down(to("a.example"))
    assert down is not None
    assert down[1] == DOWN_SECONDS
    network.now = DOWN_SECONDS + 1
    network.trouble = lambda peer, tls: None
    await pool.acquire(to("a.example"))
    assert pool.down(to("a.example")) is None


async def test_a_host_that_wants_no_more_connections_keeps_those_it_has() -> None:
    network = Network()
    pool = network.pool(per_destination=5)
    first = await pool.acquire(to("a.example"))
    network.trouble = refuse
    second = asyncio.create_task(pool.acquire(to("a.example")))
    third = asyncio.create_task(pool.acquire(to("a.example")))
    await settled()
    assert not second.done()
    pool.release(first)
    assert await asyncio.wait_for(second, 1) is first
    assert pool.connections == 1
    network.trouble = lambda peer, tls: None
    network.now = CEILING_SECONDS + 1
    pool.release(await second)
    await asyncio.wait_for(third, 1)


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
            raise SessionFailed(Failure("451 4.7.5 handshake", "tls"), tls=True)

    network.trouble = no_tls
    pool = network.pool()
    sessions = [await pool.acquire(to("a.example")) for _ in range(2)]
    assert [session.tls for session in sessions] == ["", ""]
    assert tries == [True, False, False]
    network.now = PLAIN_SECONDS + 1
    await pool.acquire(to("a.example"))
    assert tries[3:] == [True, False]


async def test_a_source_address_reaches_its_own_family_only() -> None:
    network = Network()
    pool = network.pool(source="192.0.2.9")
    session = await pool.acquire(to("a.example", "2001:db8::1", "192.0.2.1"))
    assert str(session.peer.address) == "192.0.2.1"
    with pytest.raises(SessionFailed, match="could reach"):
        await pool.acquire(to("b.example", "2001:db8::1"))


async def test_a_new_source_address_closes_what_the_old_one_opened() -> None:
    network = Network()
    pool = network.pool(source="192.0.2.9")
    idle = cast(Any, await pool.acquire(to("a.example")))
    used = cast(Any, await pool.acquire(to("a.example")))
    pool.release(idle)
    pool.configure(Identity("relay.example", "192.0.2.10"), Limits())
    await settled()
    assert idle.closed
    assert not used.closed
    pool.release(used)
    await settled()
    assert used.closed
    assert pool.connections == 0


async def test_closing_says_goodbye_to_all() -> None:
    network = Network()
    pool = network.pool()
    idle, used = [cast(Any, await pool.acquire(to("a.example"))) for _ in range(2)]
    pool.release(idle)
    await pool.close()
    assert idle.closed
    pool.release(used)
    await settled()
    assert used.closed


def two_hosts() -> Route:
    """mx1 with two addresses, mx2 with one."""
    first, second, third = (ipaddress.ip_address(f"192.0.2.{number}") for number in (1, 2, 3))
    return Route("a.example", (MailHost("mx1.a.example", (first, second)), MailHost("mx2.a.example", (third,))))


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
        assert await asyncio.wait_for(waiting, 1) is other


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
