"""The pool's limits and fairness, with sessions that exist only on paper."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from tests.unit.relay.delivery.destinations.paper import Network, settled, to

from malote_relay.delivery.destinations.room import Limits
from malote_relay.delivery.peer import Identity, Login
from malote_relay.delivery.reply import Failure


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
    async with asyncio.timeout(60):
        while not idle.closed:  # noqa: ASYNC110  # it has no event
            await asyncio.sleep(0.005)
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
    c = await asyncio.wait_for(waiting, 30)
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
    await asyncio.wait_for(pool.acquire(to("fast.example")), 30)
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
    await asyncio.wait_for(other, 30)
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
    session = await asyncio.wait_for(waiting[2], 30)
    pool.release(session)
    assert pool.connections == 1


async def test_a_new_identity_tries_what_could_not_be_reached_with_the_old_one() -> None:
    network = Network()
    pool = network.pool()
    destination = pool._destinations.of(to("a.example"), pool._destinations.shaped(to("a.example")))
    destination.down, destination.downs, destination.down_until = Failure("451 4.7.8 no password", "auth"), 3, 1e9
    assert pool.held(to("a.example")) is not None
    pool.configure(Identity("relay.example", login=Login("relay", "a password")), Limits())
    assert pool.held(to("a.example")) is None


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
