"""The window: the part of the store's queue that is in hand, and the loop that fills it with pages of what is due.

What is in hand leaves the window only once its end is written down. Whose destination is left alone for now stays in
the store, in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import structlog

from malote_relay.delivery.destinations.destination import Held
from malote_relay.delivery.queue.jobs import Job, grouped
from malote_relay.delivery.queue.lanes import Bounds, Lanes
from malote_relay.delivery.queue.leftalone import LeftAlone
from malote_relay.returnpath import Current
from malote_relay.store.model import Outcome, Queued, Store

TICK = 1.0
"""Seconds after which the clock is looked at again whatever it promised: it may have been moved."""

UNTOLD_SECONDS = 60.0
"""Seconds after which the store is asked for due mail even if nothing is known to be due."""

_TROUBLE_SECONDS = 5.0
_HOUR = 3600.0

_log = structlog.get_logger("malote.delivery")


class Window:
    """Fills itself from the store while it is not `frozen`. `clock` gives epoch seconds; `begin` gets the jobs."""

    def __init__(
        self,
        store: Store,
        bounds: Bounds,
        *,
        frozen: bool,
        clock: Callable[[], float],
        return_paths: Current,
        begin: Callable[[Job], None],
    ) -> None:
        self.frozen = frozen
        self.lanes = Lanes(bounds)
        self.left_alone = LeftAlone()
        self._store = store
        self._clock = clock
        self._return_paths = return_paths
        self._begin = begin
        self._wake = asyncio.Event()
        self._look = True
        self._next = 0.0
        """The earliest known time at which something stored falls due."""
        self._querying = False
        self._settled: set[int] = set()
        """Recipients that ended while a page was being read: it may still show them."""

    async def run(self) -> None:
        """Fill it until cancelled."""
        while True:
            self._wake.clear()
            wait = 0.0
            try:
                wait = await self._fill()
            except Exception:  # the loop must go on whatever the store says
                _log.exception("the queue could not be read; trying again", seconds=_TROUBLE_SECONDS)
                self._look = True
                await asyncio.sleep(_TROUBLE_SECONDS)
            if wait > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._wake.wait()

    async def _fill(self) -> float:
        """Take one page in hand; returns the seconds until it is worth looking again."""
        now = self._clock()
        if self.frozen:
            return TICK
        if not self._look and now < self._next:
            return min(TICK, self._next - now)
        limit = self.lanes.page()
        if not limit:
            self._look = True
            return TICK  # `settle` wakes us when there is room
        self._look = False
        # Held mail is released at the full hour; and what nobody told us of must not wait for long.
        self._next = min((now // _HOUR + 1) * _HOUR, now + UNTOLD_SECONDS)
        alone = self.left_alone.domains()
        if alone:
            self._next = min(self._next, now + self.left_alone.soonest())
        excluded = self.lanes.begin_query(alone)
        self._settled.clear()
        self._querying = True
        try:
            page = await self._store.due(now, limit, excluding=self.lanes.recipients(), excluding_domains=excluded)
        finally:
            self._querying = False
        if self.frozen:
            self._look = True
            return TICK
        more = len(page) >= limit
        whole = _whole_messages(page) if more else page
        taken = [one for one in whole if one.id not in self._settled and one.id not in self.lanes]
        for domain, recipients in grouped(taken, self._return_paths()):
            if domain in self.left_alone or not self.lanes.fits(domain):
                self.lanes.refuse(domain)
                continue
            self.take(Job(domain, recipients))
        self.lanes.end_query(excluded, more=more)
        if more:
            self._look = True
            return 0.0
        following = await self._store.next_time(now)
        if following is not None:
            self.expect(following)
        return 0.0

    def take(self, job: Job) -> None:
        """Take a job in hand, and begin it."""
        self.lanes.add(job.domain, job.recipients)
        self._begin(job)

    def put_back(self, job: Job, held: Held | None) -> None:
        """Those of a job who were not tried wait in the store again, as before; for a time, if the domain is held."""
        if held is not None:
            self.left_alone.add(job.domain, held)
            self.lanes.hold(job.domain)
            self.expect(self._clock() + held.seconds)
        if job.recipients:
            self.lanes.remove(job.recipients)
            job.recipients = []
            self._look = True

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """These are written down: they leave it."""
        recipients = [one.recipient for one in outcomes]
        if self._querying:
            self._settled.update(one.id for one in recipients)
        if self.lanes.remove(recipients):
            self.look_again()
        for one in outcomes:
            if one.next_attempt_at:
                self.expect(one.next_attempt_at)

    def expect(self, at: float) -> None:
        """Something stored falls due then."""
        if at < self._next:
            self._next = at
            self._wake.set()

    def look_later(self) -> None:
        """There is something due in the store; no need to hurry."""
        self._look = True

    def look_again(self) -> None:
        """Look into the store now."""
        self._look = True
        self._wake.set()


def _whole_messages(page: Sequence[Queued]) -> Sequence[Queued]:
    """A full page without its last message, which the page's end may have cut in two; that comes with the next."""
    last = len(page)
    while last and page[last - 1].message_id == page[-1].message_id:
        last -= 1
    return page[:last] or page
