"""What is looked after beside deliveries: that nothing waits for longer than it may, and that something moves.

The age limit holds in every state. Attempts end at it by themselves (`answers.retry.next_attempt` puts the last one
there); what no attempt ever reaches is found here: mail of a frozen tenant, for a destination that is down or slowed,
in a line or an overflow that does not move. It fails with the words of its last answer, or of what it waited for, and
its sender is told like of any failure. While a tenant is frozen, the notification waits with the rest.

What is due for a destination that is left alone has no attempt by whose end its sender would hear that it takes
longer: once it is that late, and nobody was told yet, it gets an entry without one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from malote_relay.delivery.answers.classify import classify
from malote_relay.delivery.answers.outcome import EXPIRED, span
from malote_relay.delivery.notices.due import to_be_told_of_delay
from malote_relay.delivery.queue.scheduler import Scheduler, Unattempted
from malote_relay.delivery.queue.watchdog import Facts, Verdict, Watchdog
from malote_relay.delivery.reply import parse
from malote_relay.store import queue
from malote_relay.store.model import Queued, Store, StoreError, Tables
from malote_relay.store.names import domain_of
from malote_relay.store.queue import Filter, Waiter

SWEEP_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 10.0
ENTER_SECONDS: Final = 600.0

GRACE: Final = 0.1
LONGEST_GRACE_SECONDS: Final = 300.0
"""Past its age limit, as a share of it, and at most: for the last attempt, which is made at the limit."""

_ROWS: Final = 200
_WRITTEN_SECONDS: Final = 30.0

_log = structlog.get_logger("malote.delivery")


class Upkeep:
    """The sweep and the watchdog of one relay. `clock` gives epoch seconds, `stalled` hears of every look."""

    def __init__(
        self,
        store: Store,
        tables: Tables,
        scheduler: Scheduler,
        clock: Callable[[], float],
        stalled: Callable[[float], None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._tables = tables
        self._scheduler = scheduler
        self._clock = clock
        self._stalled = stalled
        self._monotonic = monotonic
        self._watchdog = Watchdog()

    async def run(self) -> None:
        """Look after it until cancelled."""
        swept = self._monotonic() - SWEEP_SECONDS
        entered = self._monotonic()
        while True:
            try:
                await self.look()
                if self._monotonic() - swept >= SWEEP_SECONDS:
                    swept = self._monotonic()
                    await self.sweep()
                if self._monotonic() - entered >= ENTER_SECONDS:
                    entered = self._monotonic()
                    await self.enter_untried()
            except StoreError:
                _log.exception("the queue could not be looked after; trying again")
            except Exception:  # whoever watches must not be the one who falls asleep
                _log.exception("looking after the queue failed; trying again")
            await asyncio.sleep(LOOK_SECONDS)

    async def sweep(self) -> int:
        """Fail what is older than it may be; how many recipients.

        Costs little when there is nothing: the queue is walked in the order of arrival, only as far as it is old.
        """
        limit = self._scheduler.max_age
        age = limit + min(LONGEST_GRACE_SECONDS, GRACE * limit)

        def old(one: Queued, now: float) -> bool:
            return one.released_at + age <= now

        count = await self._walk(age, old, lambda one, why, now: _expired(one, why, limit))
        if count:
            _log.warning("given up for their age", recipients=count, limit=span(limit))
        return count

    async def enter_untried(self) -> int:
        """Enter a deferral for those who wait in vain for longer than their senders should not hear of it.

        Not only for who was never tried: an attempt made early told nobody anything.
        """
        delay = self._scheduler.delay_after
        alone = frozenset(self._scheduler.left_alone())
        if not delay or not alone:
            return 0

        def unheard(one: Queued, now: float) -> bool:
            if one.released_at + delay > now or one.next_attempt_at > now or domain_of(one.address) not in alone:
                return False
            return not one.attempts or to_be_told_of_delay(one)

        return await self._walk(delay, unheard, _delayed)

    async def _walk(
        self,
        age: float,
        wanted: Callable[[Queued, float], bool],
        end: Callable[[Waiter, str, float], Unattempted],
    ) -> int:
        """Conclude those wanted among the recipients that came in longer than `age` seconds ago; how many."""
        place: int | None = 0
        count = 0
        while place is not None:
            now = self._clock()
            with self._scheduler.reading():
                found, place = await self._tables.read(
                    partial(queue.step, after=place, wanted=Filter(), now=now, rows=_ROWS)
                )
                some = [one for one in found if wanted(one.queued, now)]
                stages = self._scheduler.stages() if some else {}
                taken = self._scheduler.conclude(
                    [end(one, self._scheduler.why(one.queued, stages).words, now) for one in some]
                )
            count += len(taken)
            # One part after the other: the recorder and the window have other work too.
            await self._scheduler.written(taken, _WRITTEN_SECONDS)
            if found and found[-1].queued.received_at + age > now:
                break
        return count

    async def look(self) -> Verdict:
        """See whether something moves; when nothing does though it could, say so and push."""
        scheduler = self._scheduler
        frozen, busy = scheduler.frozen, scheduler.busy
        due = False
        if not frozen and not busy:
            due = bool(await self._store.due(self._clock(), 1, excluding_domains=scheduler.left_alone()))
        verdict = self._watchdog.look(
            Facts(
                self._monotonic(),
                moved_at=scheduler.moved_at,
                due=due,
                busy=busy,
                frozen=frozen,
                turning=scheduler.running,
            )
        )
        self._stalled(verdict.stalled)
        if verdict.alarm:
            _log.error(
                "mail is due and nothing moves",
                seconds=round(verdict.stalled),
                loops_turn=scheduler.running,
                in_hand=scheduler.in_hand,
                connections=scheduler.connections,
            )
        if verdict.push:
            scheduler.push()
        return verdict


def _delayed(one: Waiter, why: str, now: float) -> Unattempted:
    again = now + SWEEP_SECONDS
    if not one.last_reply:
        return Unattempted(one.queued, f"451 4.4.1 not tried yet: {why}", "connection", again)
    return Unattempted(one.queued, one.last_reply, one.last_class or _class(one.last_reply), again, one.last_host)


def _expired(one: Waiter, why: str, limit: float) -> Unattempted:
    words = f"554 5.4.7 not delivered within {span(limit)}"
    if not one.last_reply:
        return Unattempted(one.queued, f"{words}; it was never tried: {why}", "other")
    words = f"{words}{EXPIRED}{one.last_reply}"
    return Unattempted(one.queued, words, one.last_class or _class(one.last_reply), host=one.last_host)


def _class(reply: str) -> str:
    """A bounce class for words that an older release wrote down without one; "other" where they are no reply."""
    try:
        return classify(parse(reply)).bounce_class
    except ValueError:
        return "other"
