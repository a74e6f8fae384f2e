"""Making notices: the message brought back, the notice signed, and offered for delivery; within the allowance.

The relay's own messages are signed for its own host name, under which it also says EHLO: with the null reverse-path
SPF looks at that name (RFC 7208 section 2.4), so that both agree with header From.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from malote_relay.config import RelayConfig
from malote_relay.delivery.content import Content
from malote_relay.delivery.notices.allowance import Allowance
from malote_relay.delivery.notices.dsn import Reporter, Returned, notice, summary
from malote_relay.delivery.notices.due import Due, Kind
from malote_relay.store.contents import Damaged
from malote_relay.store.model import NewMessage, Queued, Return, Store, StoreError
from malote_relay.store.names import new_message_id

_SUMMARY_SECONDS = 30.0

_log = structlog.get_logger("malote.delivery")

Sign = Callable[[str, bytes], Awaitable[bytes]]
"""Given a domain and a message, the header fields to put in front of it: none where there is no key."""


async def unsigned(domain: str, content: bytes | Path) -> bytes:
    """No signature."""
    return b""


class Notifier:
    """Tells senders. `offer` takes the notices for delivery, `counted` hears of each: its kind, and whether it went.

    `clock` gives epoch seconds.
    """

    def __init__(
        self,
        store: Store,
        config: RelayConfig,
        clock: Callable[[], float],
        offer: Callable[[Sequence[Queued], bytes | Path], None],
        sign: Sign,
        counted: Callable[[Kind, bool], None],
    ):
        self._store = store
        self._clock = clock
        self._offer = offer
        self._sign = sign
        self._counted = counted
        self._config = config
        self._allowance = Allowance(config.notices.per_sender_per_hour, config.notices.per_hour)
        self._wake = asyncio.Event()

    @property
    def delay_after(self) -> float:
        """The age in seconds from which a delay is told of; 0 for never."""
        return self._config.notices.delay_after_seconds

    def reconfigure(self, config: RelayConfig) -> None:
        """Tell as this configuration says from now on."""
        self._config = config
        self._allowance.configure(config.notices.per_sender_per_hour, config.notices.per_hour)

    def allowed(self, notices: Sequence[Due]) -> list[Due]:
        """Those of the notices that may go; the others are counted, and told of together later."""
        now = self._clock()
        some = []
        for one in notices:
            allowed = self._allowance.take(one.sender, now)
            self._counted(one.kind, allowed)
            if allowed:
                some.append(one)
            else:
                message = one.outcomes[0].recipient.message_id
                _log.warning("a notice is left out: its sender has had too many", kind=one.kind, message=message)
        return some

    async def tell(self, notices: Sequence[Due]) -> None:
        """Keep notices of what no end of an attempt tells, and take them for delivery. Raises StoreError."""
        for told in await self.made(notices):
            self.kept([told], [await self._store.enqueue(told)])

    async def made(self, notices: Sequence[Due]) -> Sequence[NewMessage]:
        """The notices, signed, to be kept with the ends that they tell of; without those that cannot be written."""
        if not notices:
            return ()
        made = await asyncio.gather(*(self._made(one) for one in notices), return_exceptions=True)
        for one, told in zip(notices, made, strict=True):
            if isinstance(told, asyncio.CancelledError):
                raise told
            if isinstance(told, BaseException):  # the ends of others wait behind this notice
                message = one.outcomes[0].recipient.message_id
                _log.error("a notice could not be written and is left out", message=message, exc_info=told)
        return [told for told in made if isinstance(told, NewMessage)]

    def kept(self, notices: Sequence[NewMessage], queued: Sequence[Sequence[Queued]]) -> None:
        """They are on disk: take them for delivery."""
        for message, some in zip(notices, queued, strict=True):
            self._offer(some, message.content)

    async def run(self) -> None:
        """Tell those who got no notices of how many there were, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_SUMMARY_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self._summarise()

    def clock_changed(self) -> None:
        """The clock was moved: look at what is due by it now."""
        self._wake.set()

    async def _summarise(self) -> None:
        now = self._clock()
        for one in self._allowance.summaries(now):
            try:
                told = await self._signed(summary(one, self._reporter(), now=now, id=new_message_id(now)))
                self.kept([told], [await self._store.enqueue(told)])
            except StoreError as error:
                _log.warning("a summary of notices could not be kept", count=one.count, error=str(error))
            else:
                self._counted(Kind.SUMMARY, True)

    async def _made(self, due: Due) -> NewMessage:
        now = self._clock()
        returned = await self._returned(due)
        retry_until = due.outcomes[0].recipient.released_at + self._config.delivery.max_age_seconds
        id = new_message_id(now)
        return await self._signed(notice(due, returned, self._reporter(), retry_until=retry_until, now=now, id=id))

    async def _signed(self, message: NewMessage) -> NewMessage:
        content = message.content
        assert isinstance(content, bytes)  # noqa: S101  # made here
        try:
            content = await self._sign(self._config.delivery.helo_name, content) + content
        except Exception:  # the ends of others wait behind this notice: unsigned is better than never
            _log.exception("a notification could not be signed", message=message.id)
        return dataclasses.replace(message, content=content, size=len(content))

    async def _returned(self, due: Due) -> Returned | None:
        """RFC 3461 section 4.3: the whole message only when that was asked for, and only with a failure."""
        first = due.outcomes[0].recipient
        most = self._config.notices.max_returned_bytes
        full = due.kind is Kind.FAILED and first.dsn.ret is Return.FULL and first.size <= most
        try:
            source = await self._store.content(first.message_id)
            if not full:
                return Returned(await asyncio.to_thread(Content(source).headers))
            octets = source if isinstance(source, bytes) else await asyncio.to_thread(source.read)
            return Returned(octets, whole=True)
        except (KeyError, OSError, Damaged):
            if due.reported is None:
                _log.warning("the message for a notification is gone", message=first.message_id)
        except Exception:  # a database that cannot read it will not tomorrow, and others' ends wait behind this one
            _log.exception("the message for a notification cannot be read", message=first.message_id)
        # What was delivered is no longer kept; the report that came back may have its headers.
        return Returned(due.reported.header) if due.reported is not None and due.reported.header else None

    def _reporter(self) -> Reporter:
        return Reporter(self._config.delivery.helo_name, self._config.notices.language)
