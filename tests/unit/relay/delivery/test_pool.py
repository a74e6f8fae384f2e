"""The pool's limits and fairness, with sessions that exist only on paper."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import random
from collections.abc import Callable
from typing import Any, cast

import pytest

from malote_relay.config import ProviderShaping, Shaping, ShapingLimits, TogetherLimits
from malote_relay.delivery.destinations.destination import LONGEST_LINE, Held
from malote_relay.delivery.destinations.dialling import PLAIN_SECONDS, others
from malote_relay.delivery.destinations.pool import DOWN_SECONDS, Pool
from malote_relay.delivery.destinations.room import Limits
from malote_relay.delivery.destinations.shapes import Shapes
from malote_relay.delivery.destinations.shaping import PAUSE_JITTER, PAUSE_SECONDS, RECOVERY_SECONDS
from malote_relay.delivery.dialogue.connection import Session
from malote_relay.delivery.dialogue.wire import SessionFailed
from malote_relay.delivery.peer import Identity, Peer, Timeouts
from malote_relay.delivery.reply import Failure, Reply
from malote_relay.delivery.route import MailHost, Route
from malote_relay.delivery.tls.handshake import Handshake, Handshakes
from malote_relay.delivery.tls.results import ResultType, Trouble
from malote_relay.delivery.tls.security import Level, Security


class Paper:
    """A session without a socket."""

    def __init__(self, peer: Peer, tls: object) -> None:
        self.peer = peer
        self.tls = "TLSv1.3" if tls else ""
        self.tls_trouble = None
        self.local_address = "192.0.2.99"
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

    async def open(self, peer: Peer, identity: Identity, timeouts: Timeouts, tls: Handshake | None) -> Session:
        self.tried.append(str(peer.address))
        await asyncio.sleep(0)
        self.trouble(peer, tls is not None)
        session = Paper(peer, tls)
        self.opened.append(session)
        return cast(Session, session)

    def pool(self, *, source: str = "", shaping: Shaping | None = None, **limits: Any) -> Pool:
        most = Limits(**limits)
        return Pool(
            Identity("relay.example", source),
            most,
            shapes=Shapes(shaping or Shaping(), most.per_destination),
            rng=random.Random(1),
            tls=Handshakes(),
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
    assert await asyncio.wait_for(second, 1) is first
    assert pool.connections == 1
    network.trouble = lambda peer, tls: None
    network.now = RECOVERY_SECONDS / 5 + 1
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
            raise SessionFailed(
                Failure("451 4.7.5 handshake", "tls"), tls=Trouble(ResultType.VALIDATION_FAILURE, "broken")
            )

    network.trouble = no_tls
    pool = network.pool()
    sessions = [await pool.acquire(to("a.example")) for _ in range(2)]
    assert [session.tls for session in sessions] == ["", ""]
    assert tries == [True, False, False]
    network.now = PLAIN_SECONDS + 1
    await pool.acquire(to("a.example"))
    assert tries[3:] == [True, False]


def requiring(route: Route) -> Route:
    """The same hosts, for a domain that requires verified TLS."""
    security = Security(Level.VERIFIED, "mta-sts")
    return dataclasses.replace(
        route,
        domain="strict.example",
        hosts=tuple(dataclasses.replace(host, security=security) for host in route.hosts),
    )


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
    second = cast(Any, await asyncio.wait_for(strict, 1))
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


# Shaping: how many and how fast, for each destination and for all of a provider's.

BUSY = [Reply(421, ("4.7.0 [TSS04] Messages temporarily deferred",))]


def google(domain: str) -> Route:
    return Route(domain, (MailHost(f"{domain}.google.com", (ipaddress.ip_address("192.0.2.1"),)),))


def shaped(**limits: int) -> Shaping:
    return Shaping(default=ShapingLimits(**limits))


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
        session = await asyncio.wait_for(task, 1)
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
        pool.release(await asyncio.wait_for(task, 1))
    assert pool.connections <= 5
    for session in held[2:]:
        pool.release(session)
    for task in more:
        pool.release(await asyncio.wait_for(task, 1))
    pool.release(elsewhere)


async def test_an_idle_connection_gives_way_to_another_destination_of_its_provider() -> None:
    shaping = Shaping(providers={"google": ProviderShaping(together=TogetherLimits(connections=1))})
    pool = Network().pool(shaping=shaping)
    first = cast(Any, await pool.acquire(google("a.example")))
    pool.release(first)
    second = await asyncio.wait_for(pool.acquire(google("b.example")), 1)
    assert second is not first
    assert pool.connections == 1


async def test_a_line_for_a_provider_is_not_longer_than_leaves_room_for_others() -> None:
    shaping = Shaping(providers={"google": ProviderShaping(together=TogetherLimits(connections=1))})
    pool = Network().pool(shaping=shaping)
    session = await pool.acquire(google("a.example"))
    waiting = [asyncio.create_task(pool.acquire(google(f"{n % 9}.example"))) for n in range(LONGEST_LINE)]
    await settled()
    with pytest.raises(Held, match="many wait for the same provider"):
        await asyncio.wait_for(pool.acquire(google("5.example")), 1)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    pool.release(session)
    pool.release(await asyncio.wait_for(pool.acquire(google("5.example")), 1))


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
