"""DNS checks beside the workers: a slow name server must not keep a worker from other tenants.

A check runs once per domain at a time; when it ends, its observation is kept for this process's life and the
SendingDomain is looked at again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container

import structlog

from malote_operator import metrics
from malote_operator.dns.model import Observation, Outcome, Question

log = structlog.get_logger(__name__)


Observe = Callable[[Question], Awaitable[Observation]]
"""Asks DNS, as `Lookup.observe`; raises nothing for trouble with it."""


class Checks:
    """Runs look-ups, at most `concurrency` at once."""

    def __init__(self, observe: Observe, *, concurrency: int = 64) -> None:
        self._observe = observe
        self._slots = asyncio.Semaphore(concurrency)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._seen: dict[str, tuple[str | None, Observation]] = {}

    def observation(self, uid: str, selector: str) -> Observation | None:
        """The last observation of the SendingDomain with this uid, if it was made with this selector."""
        seen = self._seen.get(uid)
        return seen[1] if seen is not None and seen[0] == selector else None

    def start(self, uid: str, question: Question, ended: Callable[[], None]) -> None:
        """Check the domain now, unless that is going on already; `ended` is called afterwards."""
        if uid not in self._running:
            self._running[uid] = asyncio.create_task(self._check(uid, question, ended))

    def running(self, uid: str) -> bool:
        """Whether a check of this SendingDomain is going on."""
        return uid in self._running

    def forget(self, uid: str) -> None:
        """The SendingDomain is gone."""
        self._seen.pop(uid, None)
        if (task := self._running.pop(uid, None)) is not None:
            task.cancel()

    def keep(self, uids: Container[str]) -> None:
        """Forget whatever has another uid."""
        for uid in [uid for uid in (*self._seen, *self._running) if uid not in uids]:
            self.forget(uid)

    async def stop(self) -> None:
        """End what is going on (leadership was lost, or the process ends)."""
        tasks = list(self._running.values())
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _check(self, uid: str, question: Question, ended: Callable[[], None]) -> None:
        try:
            async with self._slots:
                observation = await self._observe(question)
            metrics.DNS_CHECKS.labels(_result(observation)).inc()
            self._seen[uid] = (question.selector, observation)
        except Exception:
            # `observe` answers for trouble with DNS; this is a fault of ours, and the domain stays as it was.
            metrics.DNS_CHECKS.labels("error").inc()
            log.exception("a DNS check failed", domain=question.domain)
        finally:
            if self._running.get(uid) is asyncio.current_task():
                del self._running[uid]
        ended()


def _result(observation: Observation) -> str:
    outcomes = [answer.outcome for answer in observation.answers]
    return next((one.value for one in (Outcome.FAILED, Outcome.ABSENT) if one in outcomes), Outcome.ANSWERED.value)
