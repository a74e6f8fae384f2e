"""Looks at EHLO names: regular, rare, and no reason for a visit unless an answer changed."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import msgspec
import pytest
from tests.unit.operator.policy import worlds

from malote_operator.api.tenant import Tenant
from malote_operator.dns.model import Answer, Observation, Outcome, Question
from malote_operator.policy.domain import jitter
from malote_operator.reconcile.checks import Checks
from malote_operator.reconcile.egress import EgressChecks
from malote_operator.reconcile.queue import Key
from malote_operator.settings import Dns, Settings

NAME = "acme.out.example.net"
ACME = worlds.tenant()


class World:
    """A context with what is used of one; its DNS answers `texts`."""

    def __init__(self, **dns: float) -> None:
        self.settings = Settings(dns=msgspec.structs.replace(Dns(), **{"pending_recheck": 0.001} | dns))
        self.checks = Checks(self.observe)
        self.leading = True
        self.texts: tuple[str, ...] = ()
        self.asked: list[str] = []
        self.wanted: tuple[bool, bool, bool] | None = None
        self.woken: list[Key] = []

    def now(self) -> dt.datetime:
        return worlds.NOW

    async def observe(self, question: Question) -> Observation:
        self.asked.append(f"{question.selector} {question.domain}")
        self.wanted = (question.spf, question.dmarc, question.host)
        answer = Answer(question.domain, Outcome.ANSWERED, self.texts)
        return Observation(at=dt.datetime.now(dt.UTC), spf=answer if question.spf else None, dkim=answer)

    def wake(self, wakes: Any) -> None:
        self.woken += [one.key for one in wakes]

    def due(self, egress: EgressChecks) -> None:
        """Have the first look begin."""
        watch = egress._watches[ACME.metadata.uid]
        assert watch.timer is not None
        watch.timer.cancel()
        egress._look(ACME, watch)

    async def looked(self, times: int) -> None:
        async with asyncio.timeout(60):
            while len(self.asked) < times or self.checks.running(ACME.metadata.uid):  # noqa: ASYNC110
                await asyncio.sleep(0.001)


def checks(world: World) -> EgressChecks:
    return EgressChecks(world)  # type: ignore[arg-type]  # only what is used


async def test_the_tenant_is_visited_when_an_answer_changed_and_not_for_looking_alone() -> None:
    world = World()
    egress = checks(world)
    assert egress.of(ACME, NAME, "m1", smart_host=False) is None
    await world.looked(1)
    assert world.woken == [Key("Tenant", "", "acme")]
    await world.looked(4)
    assert len(world.woken) == 1
    world.texts = ("v=spf1 a -all",)
    await world.looked(len(world.asked) + 2)
    assert len(world.woken) == 2
    seen = egress.of(ACME, NAME, "m1", smart_host=False)
    assert seen is not None
    assert seen.spf is not None
    assert seen.spf.texts == world.texts
    egress.clear()


async def test_visits_alone_ask_nothing_and_another_name_or_key_is_looked_at_at_once() -> None:
    world = World(pending_recheck=60.0)
    egress = checks(world)
    for _ in range(3):
        egress.of(ACME, NAME, "m1", smart_host=False)
    world.due(egress)
    await world.looked(1)
    egress.of(ACME, NAME, "m1", smart_host=False)
    assert world.asked == [f"m1 {NAME}"]
    assert egress.of(ACME, "other.example.net", "m1", smart_host=False) is None, (
        "what was seen is not about this name"
    )
    await world.looked(2)
    egress.of(ACME, "other.example.net", "m2", smart_host=False)
    await world.looked(3)
    assert world.asked[1:] == ["m1 other.example.net", "m2 other.example.net"]


async def test_behind_a_smart_host_only_the_key_is_looked_for_and_the_rest_at_once_when_it_goes() -> None:
    world = World(pending_recheck=60.0)
    egress = checks(world)
    egress.of(ACME, NAME, "m1", smart_host=True)
    world.due(egress)
    await world.looked(1)
    assert world.wanted == (False, False, False)
    egress.of(ACME, NAME, "m1", smart_host=False)
    await world.looked(2)
    assert world.wanted == (True, False, True)
    egress.clear()


@pytest.mark.parametrize("end", ["forget", "clear", "lead"])
async def test_it_ends_with_the_tenant_and_with_leadership(end: str) -> None:
    world = World()
    egress = checks(world)
    egress.of(ACME, NAME, "m1", smart_host=False)
    await world.looked(2)
    if end == "forget":
        egress.forget(ACME.metadata.uid)
    elif end == "clear":
        egress.clear()
    else:
        world.leading = False
        await world.checks.stop()
    asked = len(world.asked)
    await asyncio.sleep(0.1)
    assert len(world.asked) == asked


@pytest.mark.parametrize(("age", "interval"), [(0, 30.0), (3600, 72.0), (10_000_000, 900.0)])
def test_the_older_the_tenant_the_rarer_the_looks(age: float, interval: float) -> None:
    born = worlds.NOW - dt.timedelta(seconds=age)
    tenant = Tenant(metadata=msgspec.structs.replace(ACME.metadata, creation_timestamp=born), spec=ACME.spec)
    world = World(pending_recheck=3.0)
    assert checks(world)._interval(tenant) == interval * jitter(ACME.metadata.uid)


async def test_tenants_that_come_together_are_not_looked_at_together() -> None:
    world = World(pending_recheck=60.0)
    egress = checks(world)
    loop = asyncio.get_running_loop()
    began = loop.time()
    intervals, firsts = set(), []
    for number in range(50):
        metadata = msgspec.structs.replace(ACME.metadata, uid=f"uid-{number}")
        tenant = Tenant(metadata=metadata, spec=ACME.spec)
        egress.of(tenant, NAME, "m1", smart_host=False)
        timer = egress._watches[f"uid-{number}"].timer
        assert timer is not None
        firsts.append(timer.when() - began)
        intervals.add(egress._interval(tenant))
    egress.clear()
    assert len(intervals) == 50
    assert 540.0 <= min(intervals) <= max(intervals) <= 660.0
    assert min(firsts) < 100.0
    assert 500.0 < max(firsts) <= 661.0
