"""Writing the ends of attempts down, in batches, and telling the senders of what they want to know.

A notification, and what an end means for others, is in one transaction with the end itself: wherever the relay is
killed, neither is told of twice, or never. Nothing is dropped when the store refuses: it is tried until it succeeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

import structlog

from malote_relay.delivery.notices.due import Due, due, is_notice
from malote_relay.delivery.notices.notifier import Notifier
from malote_relay.store.model import Alongside, Outcome, Store

NOTICES_AT_ONCE = 20
"""In one transaction: each may bring a whole message back, and they are in memory together."""

_RETRY_SECONDS = 2.0

_log = structlog.get_logger("malote.delivery")


Consequence = Callable[[Sequence[Outcome]], Alongside | None]
"""What some ends mean for another part of the relay, if anything."""


def no_consequence(outcomes: Sequence[Outcome]) -> Alongside | None:
    """Nobody else is concerned."""
    return None


def parts(batch: Sequence[Outcome], notices: Sequence[Due]) -> Iterator[tuple[Sequence[Outcome], Sequence[Due]]]:
    """The ends in parts for one transaction each, with the notices that tell of them."""
    later = {one.recipient.id for due in notices[NOTICES_AT_ONCE:] for one in due.outcomes}
    yield [one for one in batch if one.recipient.id not in later] if later else batch, notices[:NOTICES_AT_ONCE]
    for start in range(NOTICES_AT_ONCE, len(notices), NOTICES_AT_ONCE):
        some = notices[start : start + NOTICES_AT_ONCE]
        yield [one for due in some for one in due.outcomes], some


class Recorder:
    """Batches outcomes into the store. `settled` is called with those written; `observer` with each of them.

    The observer counts what became of accepted mail, and `consequence` says what is to be written with it: neither
    hears of the relay's own notifications.
    """

    def __init__(
        self,
        store: Store,
        settled: Callable[[Sequence[Outcome]], None],
        observer: Callable[[Outcome], None] | None,
        notifier: Notifier,
        consequence: Consequence = no_consequence,
    ):
        self._store = store
        self._settled = settled
        self._observer = observer
        self._notifier = notifier
        self._consequence = consequence
        self._waiting: list[Outcome] = []
        self._changed = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Have these written with the next batch."""
        self._waiting += outcomes
        self._empty.clear()
        self._changed.set()

    async def drained(self) -> None:
        """Wait until everything handed in is written."""
        await self._empty.wait()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            batch, self._waiting = self._waiting, []
            if batch:
                await self._write(batch)
            if not self._waiting:
                self._empty.set()

    async def _write(self, batch: Sequence[Outcome]) -> None:
        marked, wanted = due(batch, self._notifier.delay_after)
        for part, notices in parts(marked, self._notifier.allowed(wanted)):
            await self._write_part(part, notices)

    async def _write_part(self, batch: Sequence[Outcome], notices: Sequence[Due]) -> None:
        try:
            alongside = self._consequence([one for one in batch if not is_notice(one.recipient)])
        except Exception:  # what follows from an end must not keep it from being written
            _log.exception("what follows from ends of attempts is not known", count=len(batch))
            alongside = None
        while True:
            try:
                told = await self._notifier.made(notices)
                queued = await self._store.record(batch, notices=told, alongside=alongside)
                break
            except Exception:  # an end that got lost would be a second delivery
                _log.exception("ends of attempts could not be written; trying again", count=len(batch))
                await asyncio.sleep(_RETRY_SECONDS)
        self._notifier.kept(told, queued)
        self._settled(batch)
        for one in batch:
            _log.info(
                one.result.value,
                message=one.recipient.message_id,
                recipient=one.recipient.address,
                reply=one.reply,
                host=one.host,
                tls=one.tls,
                bounce_class=one.bounce_class,
                attempt=one.recipient.attempts + 1,
            )
            if self._observer is not None and not is_notice(one.recipient):
                try:
                    self._observer(one)
                except Exception:  # what counts must not stop what delivers
                    _log.exception("an outcome could not be counted")
