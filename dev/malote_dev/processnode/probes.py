"""When a container is probed, and what its answers add up to: started, ready, to be restarted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from malote_dev.processnode.actions import Outcome

Object = dict[str, Any]


@dataclass(frozen=True)
class Schedule:
    """A probe's numbers, with the API's defaults; times in seconds."""

    initial_delay: float = 0
    period: float = 10
    timeout: float = 1
    successes: int = 1
    failures: int = 3

    @classmethod
    def of(cls, probe: Object) -> Schedule:
        """Read them from a probe's spec."""
        return cls(
            initial_delay=probe.get("initialDelaySeconds", 0),
            period=probe.get("periodSeconds") or 10,
            timeout=probe.get("timeoutSeconds") or 1,
            successes=probe.get("successThreshold") or 1,
            failures=probe.get("failureThreshold") or 3,
        )


class Tally:
    """Counts answers in a row: True after enough successes, False after enough failures, None while undecided."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._last: bool | None = None
        self._run = 0

    def add(self, ok: bool) -> bool | None:
        """Count one answer and give the verdict."""
        self._run = self._run + 1 if ok == self._last else 1
        self._last = ok
        needed = self._schedule.successes if ok else self._schedule.failures
        return ok if self._run >= needed else None


@dataclass
class Reactions:
    """What a prober does with what it finds."""

    perform: Callable[[Object, float], Awaitable[Outcome]]
    unhealthy: Callable[[str, Outcome], None]
    started: Callable[[], None]
    ready: Callable[[bool], None]
    restart: Callable[[str, Object], None]


async def probe_container(container: Object, reactions: Reactions) -> None:
    """Probe one running container until cancelled, or until it is to be restarted."""
    if startup := container.get("startupProbe"):
        async for verdict in _verdicts("Startup", startup, reactions):
            if verdict is True:
                break
            if verdict is False:
                reactions.restart("startup", startup)
                return
    reactions.started()
    async with asyncio.TaskGroup() as both:
        both.create_task(_watch_readiness(container.get("readinessProbe"), reactions))
        if liveness := container.get("livenessProbe"):
            both.create_task(_watch_liveness(liveness, reactions))


async def _watch_readiness(probe: Object | None, reactions: Reactions) -> None:
    if probe is None:
        reactions.ready(True)
        return
    async for verdict in _verdicts("Readiness", probe, reactions):
        if verdict is not None:
            reactions.ready(verdict)


async def _watch_liveness(probe: Object, reactions: Reactions) -> None:
    async for verdict in _verdicts("Liveness", probe, reactions):
        if verdict is False:
            reactions.restart("liveness", probe)
            return


async def _verdicts(name: str, probe: Object, reactions: Reactions) -> AsyncIterator[bool | None]:
    schedule = Schedule.of(probe)
    tally = Tally(schedule)
    loop = asyncio.get_running_loop()
    due = loop.time() + schedule.initial_delay
    while True:
        await asyncio.sleep(due - loop.time())
        outcome = await reactions.perform(probe, schedule.timeout)
        if not outcome.ok:
            reactions.unhealthy(name, outcome)
        yield tally.add(outcome.ok)
        # A probe that took longer than the period is followed at once by the next, never by two at a time.
        due = max(due + schedule.period, loop.time())
