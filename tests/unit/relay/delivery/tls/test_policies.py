"""Policies fetched, kept and renewed, by a clock that the test moves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from malote_relay.delivery.tls.mtasts import Mode, StsPolicy
from malote_relay.delivery.tls.policies import PAUSE_SECONDS, FetchFailed, Policies
from malote_relay.delivery.tls.results import ResultType, Trouble
from malote_relay.resolver import NoRecords, TemporaryFailure


class World:
    """A domain's record and policy, both of which may fail."""

    def __init__(self) -> None:
        self.now = 1_000_000_000.0
        self.record: bytes | None = b"v=STSv1; id=1"
        self.unknown = False
        self.mode = "enforce"
        self.trouble: Trouble | None = None
        self.fetched = 0
        self.looked_up = 0
        self.go = asyncio.Event()
        self.go.set()

    async def txt(self, name: str) -> tuple[bytes, ...]:
        assert name == "_mta-sts.d.example"
        self.looked_up += 1
        if self.unknown:
            raise TemporaryFailure("SERVFAIL")
        if self.record is None:
            raise NoRecords("none")
        return (self.record,)

    async def fetch(self, domain: str) -> bytes:
        self.fetched += 1
        await self.go.wait()
        if self.trouble is not None:
            raise FetchFailed(self.trouble)
        return f"version: STSv1\nmode: {self.mode}\nmx: mx.d.example\nmax_age: 10000\n".encode()

    def policies(self) -> Policies:
        return Policies(self, self.fetch, None, lambda: self.now)


async def mode(policies: Policies) -> Any:
    found = await policies.policy("d.example")
    return found.mode if isinstance(found, StsPolicy) else found


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_domain_without_a_record_is_not_asked() -> None:
    world = World()
    world.record = None
    assert await mode(world.policies()) is None
    world.unknown = True
    assert await mode(world.policies()) is None
    assert world.fetched == 0


async def test_name_servers_that_do_not_answer_are_left_alone_for_a_while() -> None:
    world = World()
    world.unknown = True
    policies = world.policies()
    for _ in range(5):
        assert await mode(policies) is None
    assert world.looked_up == 1
    world.now += 61
    world.unknown = False
    assert await mode(policies) is Mode.ENFORCE


async def test_a_clock_that_is_set_back_makes_no_pause_of_years() -> None:
    world = World()
    world.unknown = True
    policies = world.policies()
    assert await mode(policies) is None
    world.now -= 1_000_000
    world.unknown, world.trouble = False, Trouble(ResultType.STS_FETCH_ERROR, "gone")
    assert await mode(policies) == world.trouble
    world.now -= 1_000_000
    world.trouble = None
    assert await mode(policies) is Mode.ENFORCE


async def test_all_who_ask_at_once_wait_for_one_answer() -> None:
    world = World()
    world.go.clear()
    policies = world.policies()
    asking = [asyncio.create_task(mode(policies)) for _ in range(5)]
    await settled()
    asking[0].cancel()
    world.go.set()
    assert await asyncio.gather(*asking[1:]) == [Mode.ENFORCE] * 4
    assert world.fetched == 1


async def test_what_was_fetched_holds_through_every_failure_until_its_age_is_over() -> None:
    world = World()
    policies = world.policies()
    await mode(policies)
    world.trouble = Trouble(ResultType.STS_FETCH_ERROR, "gone")
    world.record = b"v=STSv1; id=2"
    assert await mode(policies) is Mode.ENFORCE
    await settled()
    assert world.fetched == 2
    for record, unknown in ((None, False), (b"v=STSv1; id=3", True), (b"nonsense", False)):
        world.record, world.unknown = record, unknown
        assert await mode(policies) is Mode.ENFORCE
    world.now += 10_001
    world.record, world.unknown = None, False
    assert await mode(policies) is None


async def test_a_failure_is_remembered_for_minutes() -> None:
    world = World()
    world.trouble = Trouble(ResultType.STS_WEBPKI_INVALID, "bad certificate")
    policies = world.policies()
    assert await mode(policies) == world.trouble
    assert await mode(policies) == world.trouble
    assert world.fetched == 1
    world.now += PAUSE_SECONDS + 1
    world.trouble = None
    assert await mode(policies) is Mode.ENFORCE


async def test_another_id_is_fetched_without_waiting_for_it() -> None:
    world = World()
    policies = world.policies()
    await mode(policies)
    world.record, world.mode = b"v=STSv1; id=2", "testing"
    world.go.clear()
    assert await mode(policies) is Mode.ENFORCE
    world.go.set()
    await settled()
    assert await mode(policies) is Mode.TESTING
    assert world.fetched == 2


@pytest.mark.parametrize(("age", "renewed"), [(4999, False), (5000, True)])
async def test_from_half_of_its_life_a_policy_is_renewed(age: float, renewed: bool) -> None:
    world = World()
    policies = world.policies()
    await mode(policies)
    world.now += age
    await mode(policies)
    await settled()
    assert world.fetched == (2 if renewed else 1)


async def test_policies_in_use_are_renewed_without_mail_and_others_end() -> None:
    world = World()
    policies = world.policies()
    await mode(policies)
    world.now += 5001
    await policies.renew_aging()
    assert world.fetched == 1  # nothing was sent since it came
    world.now -= 5000
    await mode(policies)
    world.now += 5000
    await policies.renew_aging()
    assert world.fetched == 2
    world.now += 10_001
    await policies.renew_aging()
    world.record = None
    assert await mode(policies) is None
