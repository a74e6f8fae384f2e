"""Leadership: one at a time, over at once when released, given up in time when the API server is away."""

from __future__ import annotations

import asyncio
import functools
import itertools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from malote_operator.kube.errors import AlreadyExists, Conflict, Transient
from malote_operator.kube.kinds import Kind
from malote_operator.kube.lease import Leadership, Timing

FAST = Timing(duration=0.6, renew_every=0.05, give_up_after=0.3, call_timeout=0.1, retry_every=0.05)


class AtOnce(selectors.DefaultSelector):
    """Waits for nothing; `passed` is how long it would have waited in all."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.passed += timeout or 0.0
        return super().select(timeout and 0.0)


class Timeless(asyncio.SelectorEventLoop):
    """A loop whose time passes by waiting alone: what is done takes none, however slow the machine is."""

    def __init__(self) -> None:
        self._waits = AtOnce()
        super().__init__(self._waits)

    def time(self) -> float:
        return self._waits.passed


def timeless(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run the test on such a loop: nobody here waits for anything but time and one another."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=Timeless) as runner:
            runner.run(test(**fixtures))

    return run


class Leases:
    """An API server that knows one Lease; `away` makes every call fail, `hanging` makes none return."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.away = False
        self.hanging = False
        self._versions = itertools.count(1)

    @property
    def holder(self) -> str:
        return str(self.lease["spec"]["holderIdentity"]) if self.lease else ""

    async def find(self, kind: Kind, name: str, namespace: str = "") -> dict[str, Any] | None:
        await self._answer()
        return self.lease

    async def create(self, kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
        await self._answer()
        if self.lease is not None:
            raise AlreadyExists("there is one")
        return self._store(body)

    async def replace(self, kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
        await self._answer()
        if self.lease is None or body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Conflict("another version")
        return self._store(body)

    def _store(self, body: dict[str, Any]) -> dict[str, Any]:
        self.lease = body | {"metadata": body["metadata"] | {"resourceVersion": str(next(self._versions))}}
        return self.lease

    async def _answer(self) -> None:
        if self.away:
            raise Transient("away")
        if self.hanging:
            await asyncio.Event().wait()
        await asyncio.sleep(0)


class Worker:
    """What runs while the Lease is held; counts how many run at once."""

    running = 0

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.times = 0

    async def __call__(self) -> None:
        Worker.running += 1
        assert Worker.running == 1, "two lead at once"
        self.times += 1
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            Worker.running -= 1
            self.begun.clear()
            self.ended.set()


class Candidate:
    def __init__(self, leases: Leases, identity: str, timing: Timing = FAST) -> None:
        self.leadership = Leadership(leases, namespace="ns", name="l", identity=identity, timing=timing)
        self.worker = Worker()
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(self.leadership.run(self.worker, self.stop))

    async def leads(self, within: float = 2.0) -> None:
        await asyncio.wait_for(self.worker.begun.wait(), within)

    async def end(self) -> None:
        self.stop.set()
        await asyncio.wait_for(self.task, 30)


@pytest.fixture
def leases() -> Leases:
    Worker.running = 0
    return Leases()


@timeless
async def test_of_two_one_leads_and_the_other_takes_over_at_once_when_it_is_released(leases: Leases) -> None:
    first = Candidate(leases, "a")
    await first.leads()
    second = Candidate(leases, "b")
    await asyncio.sleep(FAST.duration * 1.5)
    assert not second.worker.begun.is_set(), "a renewed Lease is not taken"
    began = asyncio.get_running_loop().time()
    await first.end()
    assert leases.holder == "", "released"
    await second.leads()
    assert asyncio.get_running_loop().time() - began < FAST.duration / 2
    assert leases.lease is not None
    assert leases.lease["spec"]["leaseTransitions"] == 1
    await second.end()


@timeless
async def test_the_lease_of_one_that_died_is_taken_after_its_time_by_the_takers_own_clock(leases: Leases) -> None:
    first = Candidate(leases, "a")
    await first.leads()
    first.task.cancel()
    leases.hanging = True  # it dies without a word: not even the release gets through
    await asyncio.wait([first.task])
    leases.hanging = False
    assert leases.holder == "a"
    second = Candidate(leases, "b")
    began = asyncio.get_running_loop().time()
    await second.leads()
    assert asyncio.get_running_loop().time() - began >= FAST.duration
    await second.end()


@pytest.mark.parametrize("how", ["away", "hanging"])
@timeless
async def test_without_the_api_server_work_stops_before_anyone_could_take_over_and_resumes_after(
    leases: Leases, how: str
) -> None:
    only = Candidate(leases, "a")
    await only.leads()
    setattr(leases, how, True)
    began = asyncio.get_running_loop().time()
    await asyncio.wait_for(only.worker.ended.wait(), 30)
    assert asyncio.get_running_loop().time() - began < FAST.duration
    assert not only.leadership.leading
    setattr(leases, how, False)
    await only.leads()
    assert only.worker.times == 2
    await only.end()


@timeless
async def test_calls_that_hang_long_do_not_keep_the_holder_at_work_beyond_its_time(leases: Leases) -> None:
    patient = Timing(duration=0.6, renew_every=0.05, give_up_after=0.3, call_timeout=0.2, retry_every=0.1)
    only = Candidate(leases, "a", patient)
    await only.leads()
    leases.hanging = True
    began = asyncio.get_running_loop().time()
    await asyncio.wait_for(only.worker.ended.wait(), 30)
    assert asyncio.get_running_loop().time() - began < patient.give_up_after + 0.1
    leases.hanging = False
    await only.end()


@timeless
async def test_a_short_failure_does_not_end_leadership(leases: Leases) -> None:
    only = Candidate(leases, "a")
    await only.leads()
    leases.away = True
    await asyncio.sleep(FAST.give_up_after / 3)
    leases.away = False
    await asyncio.sleep(FAST.give_up_after)
    assert only.worker.times == 1
    assert only.leadership.leading
    await only.end()


@timeless
async def test_a_lease_that_another_took_ends_the_work_at_once(leases: Leases) -> None:
    only = Candidate(leases, "a")
    await only.leads()
    assert leases.lease is not None
    leases._store(leases.lease | {"spec": leases.lease["spec"] | {"holderIdentity": "b"}})
    await asyncio.sleep(FAST.renew_every * 4)
    assert not only.worker.begun.is_set()
    await only.end()
    assert leases.holder == "b", "what is another's is not released"


@timeless
async def test_work_that_fails_is_not_hidden(leases: Leases) -> None:
    async def broken() -> None:
        raise ValueError("a defect")

    leadership = Leadership(leases, namespace="ns", name="l", identity="a", timing=FAST)
    with pytest.raises(ValueError, match="a defect"):
        await leadership.run(broken, asyncio.Event())
    assert leases.holder == ""
