"""Writing the ends of attempts down, in batches, and telling the senders of what failed.

A notification is kept before the failure it tells of is written down: killed in between, the relay would tell
twice rather than never. Nothing is dropped when the store refuses: it is tried until it succeeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from malote_relay.delivery.content import Content
from malote_relay.delivery.dsn import failure_notice, is_notice
from malote_relay.store.model import Outcome, Queued, Result, Store
from malote_relay.store.names import new_message_id

_RETRY_SECONDS = 2.0
_NOTICES_AT_ONCE = 20

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
        clock: Callable[[], float],
    ):
        self.egress_name = ""
        """Who we are to the world: whom notifications come from. Never the host that clients submit to."""
        self.offer: Callable[[Sequence[Queued], bytes | Path], None] = lambda queued, content: None
        """Takes the notifications for delivery."""
        self._store = store
        self._settled = settled
        self._observer = observer
        self._clock = clock
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
        notices = _notices(batch)
        while True:
            try:
                while notices:
                    some, notices = notices[:_NOTICES_AT_ONCE], notices[_NOTICES_AT_ONCE:]
                    told = await asyncio.gather(*(self._notify(one) for one in some), return_exceptions=True)
                    troubles = [
                        (one, trouble) for one, trouble in zip(some, told, strict=True) if trouble is not None
                    ]
                    notices += [one for one, _ in troubles]
                    if troubles:
                        raise troubles[0][1]
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

    async def _notify(self, failed: Sequence[Outcome]) -> None:
        now = self._clock()
        message_id = failed[0].recipient.message_id
        headers: bytes | None = None
        try:
            content = Content(await self._store.content(message_id))
            headers = await asyncio.to_thread(content.headers)
        except (KeyError, OSError):
            _log.warning("headers for a notification are gone", message=message_id)
        notice = failure_notice(failed, headers, egress_name=self.egress_name, now=now, id=new_message_id(now))
        queued = await self._store.enqueue(notice)
        self.offer(queued, notice.content)


def _notices(batch: Sequence[Outcome]) -> list[Sequence[Outcome]]:
    """The failed by message, without those whose sender must not be told (RFC 5321 section 4.5.5)."""
    failed: dict[str, list[Outcome]] = {}
    for one in batch:
        if one.result is Result.FAILED and one.recipient.reverse_path:
            failed.setdefault(one.recipient.message_id, []).append(one)
    return list(failed.values())
