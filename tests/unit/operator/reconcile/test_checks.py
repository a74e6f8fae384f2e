"""DNS checks beside the workers."""

from __future__ import annotations

import asyncio
import datetime as dt

from malote_operator.dns.model import Answer, Observation, Outcome, Question
from malote_operator.reconcile.checks import Checks


def observation(domain: str) -> Observation:
    answer = Answer(domain, Outcome.ABSENT)
    return Observation(at=dt.datetime(2026, 11, 23, tzinfo=dt.UTC), spf=answer, dmarc=answer, dkim=answer)


class Dns:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, str]] = []
        self.go = asyncio.Event()
        self.broken = False

    async def observe(self, question: Question) -> Observation:
        self.asked.append((question.domain, question.selector, question.return_path))
        await self.go.wait()
        if self.broken:
            raise ValueError("a defect")
        return observation(question.domain)


async def test_a_domain_is_asked_about_once_at_a_time_and_what_was_seen_is_kept_for_its_selector() -> None:
    dns, ended = Dns(), asyncio.Event()
    checks = Checks(dns.observe)
    checks.start("u", Question("a.example", "m1", "b.a.example"), ended.set)
    checks.start("u", Question("a.example", "m1"), ended.set)
    await asyncio.sleep(0)
    assert checks.running("u")
    dns.go.set()
    await ended.wait()
    assert dns.asked == [("a.example", "m1", "b.a.example")]
    assert not checks.running("u")
    assert checks.observation("u", "m1") == observation("a.example")
    assert checks.observation("u", "m2") is None, "it was another key that was looked for"


async def test_a_defect_in_looking_up_leaves_the_domain_as_it_was_and_ends() -> None:
    dns, ended = Dns(), asyncio.Event()
    dns.broken = True
    dns.go.set()
    checks = Checks(dns.observe)
    checks.start("u", Question("a.example", "m1"), ended.set)
    await asyncio.wait_for(ended.wait(), 30)
    assert checks.observation("u", "m1") is None


async def test_slow_servers_do_not_take_more_than_the_slots_and_stopping_ends_all() -> None:
    dns, ended = Dns(), asyncio.Event()
    checks = Checks(dns.observe, concurrency=2)
    for number in range(5):
        checks.start(str(number), Question(f"{number}.example", "m"), ended.set)
    await asyncio.sleep(0.01)
    assert len(dns.asked) == 2
    await checks.stop()
    assert not any(checks.running(str(number)) for number in range(5))
    assert not ended.is_set(), "who is stopped wakes nobody"


async def test_what_was_seen_of_what_is_gone_is_not_kept() -> None:
    dns = Dns()
    checks = Checks(dns.observe)
    for uid in ("stays", "seen", "asked"):
        if uid == "asked":
            dns.go.clear()
        else:
            dns.go.set()
        ended = asyncio.Event()
        checks.start(uid, Question("a.example", "m1"), ended.set)
        if uid != "asked":
            await ended.wait()
    checks.keep({"stays"})
    assert checks.observation("stays", "m1") is not None
    assert checks.observation("seen", "m1") is None
    assert not checks.running("asked")
    await checks.stop()
