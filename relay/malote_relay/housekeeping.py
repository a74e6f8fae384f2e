"""What a relay sees to now and then.

What is old is dropped, room that is no longer used given back, and a clock that was moved keeps no mail waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import structlog

from malote_relay.clock import Clock, StepWatch
from malote_relay.config import RelayConfig
from malote_relay.delivery.answers.retry import JITTER
from malote_relay.delivery.queue.scheduler import Scheduler
from malote_relay.metrics import Metrics
from malote_relay.quota import HourWindow
from malote_relay.store.model import ClockBack, Respread, Store, StoreError
from malote_relay.suppression.suppressions import Suppressions

_HOUSEKEEPING_SECONDS: Final = 60.0
_PRUNE_EVERY: Final = 60
_SECONDS_PER_DAY: Final = 86_400

_log = structlog.get_logger("malote.relay")


class Housekeeping:
    """Drops what is old once an hour, and looks at room and clock once a minute. `config` gives the one in force."""

    def __init__(
        self,
        store: Store,
        scheduler: Scheduler,
        window: HourWindow,
        suppressions: Suppressions,
        clock: Clock,
        steps: StepWatch,
        metrics: Metrics,
        config: Callable[[], RelayConfig],
    ) -> None:
        self._store = store
        self._scheduler = scheduler
        self._window = window
        self._suppressions = suppressions
        self._clock = clock
        self._steps = steps
        self._metrics = metrics
        self._config = config

    async def run(self) -> None:
        """See to it until cancelled."""
        turn = 0
        while True:
            if turn % _PRUNE_EVERY == 0:
                days = self._config().plan.report_retention_days
                try:
                    await self._store.prune(self._clock.now() - days * _SECONDS_PER_DAY)
                    await self._suppressions.forget()
                except StoreError:
                    _log.exception("what is old could not be dropped")
            await self._make_room()
            turn += 1
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)
            if step := self._steps.step():
                self._metrics.clock_steps.inc()
                _log.error("the clock was moved: hours do not reopen, held mail follows the new time", seconds=step)
                if step < 0:
                    try:
                        await self.clock_went_back()
                    except StoreError:
                        _log.exception("what was deferred waits for the clock")
                self._scheduler.clock_changed()

    async def _make_room(self) -> None:
        try:
            given = await self._store.make_room(self._config().limits.min_free_bytes)
        except (OSError, StoreError):
            _log.exception("what the database no longer uses could not be given back")
            return
        if given:
            _log.info("little room: what the database no longer uses was given back", octets=given)

    async def respread(self, plan: Respread | None) -> None:
        """Give held mail its new times, if there are any. Raises StoreError."""
        if plan is not None:
            await self._store.respread(plan)
            self._scheduler.wake()

    async def clock_went_back(self) -> None:
        """Let nothing wait for times of a clock that ran ahead, whether it was set right now or between two runs.

        Raises StoreError.
        """
        now = self._clock.now()
        longest = self._config().delivery.max_retry_seconds * (1 + JITTER)
        brought = await self._store.clock_went_back(ClockBack(now, self._window.usage(now).hour, now + longest))
        if brought:
            _log.warning("waited for times of a clock that ran ahead: brought forward", recipients=brought)
            self._scheduler.wake()


def compare_clock(now: float, latest_hour: float) -> None:
    """Say it when mail was charged to hours that have not come: until they do there is little room, or none."""
    behind = latest_hour - now
    if behind > 0:
        until = datetime.fromtimestamp(latest_hour, UTC).isoformat()
        _log.error(
            "the clock is behind the hours that mail was charged to, and they do not reopen",
            seconds=behind,
            until=until,
        )
