"""Writing the ends of attempts down, in batches, and telling the senders of what they want to know.

A notification is kept before the end it tells of is written down: killed in between, the relay would tell
twice rather than never. Nothing is dropped when the store refuses: it is tried until it succeeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from malote_relay.delivery.notices.due import due, is_notice
from malote_relay.delivery.notices.notifier import Notifier
from malote_relay.store.model import Outcome, Store

_RETRY_SECONDS = 2.0

_log = structlog.get_logger("malote.delivery")


class Recorder:
    """Batches outcomes into the store. `settled` is called with those written; `observer` with each of them.

    The observer counts what became of accepted mail: it does not hear of the relay's own notifications.
    """

    def __init__(
        self,
        store: Store,
        settled: Callable[[Sequence[Outcome]], None],
        observer: Callable[[Outcome], None] | None,
        notifier: Notifier,
    ):
        self._store = store
        self._settled = settled
        self._observer = observer
        self._notifier = notifier
        self._waiting: list[Outcome] = []
        self._writing = False
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
        batch, wanted = due(batch, self._notifier.delay_after)
        notices = self._notifier.allowed(wanted)
        while True:
            try:
                await self._notifier.tell(notices)
                await self._store.record(batch)
                break
            except Exception:  # an end that got lost would be a second delivery
                _log.exception("ends of attempts could not be written; trying again", count=len(batch))
                await asyncio.sleep(_RETRY_SECONDS)
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
