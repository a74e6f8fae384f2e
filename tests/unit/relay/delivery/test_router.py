from __future__ import annotations

import asyncio
import ipaddress
import random

import pytest

from malote_relay.config import SmartHost
from malote_relay.delivery.queue.attempt import ROUTE_SECONDS, UNROUTABLE_SECONDS, Router
from malote_relay.delivery.route import Policy, Unroutable
from malote_relay.resolver import IPAddress, Mx, TemporaryFailure


class Names:
    """Answers when told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer = asyncio.Event()
        self.broken = False
        self.now = 0.0

    async def mx(self, domain: str) -> tuple[Mx, ...]:
        self.asked += 1
        await self.answer.wait()
        if self.broken:
            raise TemporaryFailure("SERVFAIL")
        return (Mx(10, "mx.d.example"),)

    async def addresses(self, host: str) -> tuple[IPAddress, ...]:
        return (ipaddress.ip_address("93.184.216.34"),)

    def router(self) -> Router:
        return Router(self, Policy(), random.Random(0), lambda: self.now)


async def test_who_asks_later_never_overtakes_and_all_are_answered_by_one_question() -> None:
    names = Names()
    router, order = names.router(), list[int]()

    async def ask(number: int) -> None:
        await router.route("d.example")
        order.append(number)

    tasks = [asyncio.create_task(ask(number)) for number in range(5)]
    await asyncio.sleep(0)
    names.answer.set()
    for number in range(5, 30):
        tasks.append(asyncio.create_task(ask(number)))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert order == list(range(30))
    assert names.asked == 1
    names.now = ROUTE_SECONDS + 1
    await router.route("d.example")
    assert names.asked == 2


async def test_that_there_is_no_route_holds_for_those_who_asked_at_the_same_time() -> None:
    names = Names()
    names.broken = True
    names.answer.set()
    router = names.router()
    outcomes = await asyncio.gather(*(router.route("d.example") for _ in range(50)), return_exceptions=True)
    assert all(isinstance(one, Unroutable) and not one.permanent for one in outcomes)
    assert names.asked == 1
    names.broken = False
    with pytest.raises(Unroutable):
        await router.route("d.example")
    names.now = UNROUTABLE_SECONDS + 0.1
    await router.route("d.example")


async def test_a_caller_that_gives_up_holds_up_no_other() -> None:
    names = Names()
    router = names.router()
    first, second = (asyncio.create_task(router.route("d.example")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    names.answer.set()
    assert (await asyncio.wait_for(second, 30)).domain == "d.example"


async def test_a_new_policy_holds_at_once() -> None:
    names = Names()
    names.answer.set()
    router = names.router()
    await router.route("d.example")
    router.configure(Policy(own_names=frozenset({"mx.d.example"})))
    with pytest.raises(Unroutable, match="loop"):
        await router.route("d.example")


async def test_a_route_is_wholly_by_one_policy_also_when_that_changes_meanwhile() -> None:
    """Else mail could go past a smart host to hosts whose TLS nobody has looked at."""
    names = Names()
    router = names.router()
    asking = asyncio.create_task(router.route("d.example"))
    await asyncio.sleep(0)
    router.configure(Policy(smart_host=SmartHost(host="smart.example", port=587)))
    names.answer.set()
    (host,) = (await asking).hosts
    assert host.name == "smart.example"
