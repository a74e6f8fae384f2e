"""One connection's octets: replies in, commands and content out, with flow control and a limit to every wait."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from typing import cast

from malote_relay.delivery.peer import Peer
from malote_relay.delivery.reply import BadReply, Failure, Reply, ReplyParser
from malote_relay.delivery.tls.results import Trouble

_MAX_UNREAD = 2000


class SessionFailed(Exception):
    """No session, or no longer one. `failure` is what to tell; `tls` why, when only TLS was in the way.

    `host` is who said so, when it is a reply.
    """

    def __init__(self, failure: Failure, *, tls: Trouble | None = None, host: str = ""):
        super().__init__(failure.words)
        self.failure = failure
        self.tls = tls
        self.host = host


class Wire(asyncio.Protocol):
    """Replies in, octets out, with flow control. Every wait has a limit and ends when the connection does."""

    def __init__(self, peer: Peer):
        self.peer = peer
        self.parser = ReplyParser()
        self.replies: deque[Reply] = deque()
        self.lost: str = ""
        self.spoke_early = False
        """Whether, when it last spoke, some of what was written to it had not left yet."""
        self.broken: Exception | None = None
        """What ended the connection, when it was not we who did."""
        self._socket: asyncio.Transport | None = None
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def transport(self) -> asyncio.Transport:
        """What carries the octets: another one once TLS has begun."""
        assert self._transport is not None  # noqa: S101  # create_connection returns after connection_made
        return self._transport

    @transport.setter
    def transport(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._socket = self._transport = cast(asyncio.Transport, transport)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self.spoke_early = self._unsent()
        try:
            self.replies.extend(self.parser.feed(data))
            if len(self.replies) > _MAX_UNREAD:
                raise BadReply("a flood of replies")
        except BadReply as error:
            self.replies.extend(error.before)
            self.lost = f"it does not speak SMTP: {error}"
            self.transport.abort()
        self._wake()

    def _unsent(self) -> bool:
        """Whether octets still wait here, before or after they were encrypted."""
        carriers = (self._socket, self._transport)
        return any(one is not None and one.get_write_buffer_size() > 0 for one in carriers)

    def eof_received(self) -> bool:
        """See asyncio.Protocol."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        if not self.lost:
            self.broken = exc or ConnectionResetError("it closed the connection")
            self.lost = f"connection lost: {exc}" if exc else "it closed the connection"
        self._wake()

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._paused = True

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._paused = False
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self, seconds: float, stage: str) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(seconds, _give_up, self._waiter)  # half of what `asyncio.timeout` costs
        try:
            await self._waiter
        except TimeoutError as error:
            words = f"451 4.4.2 {self.peer} did not answer within {seconds:g} s ({stage})"
            raise SessionFailed(Failure(words, "timeout")) from error
        finally:
            timer.cancel()
            self._waiter = None

    def _gone(self, stage: str) -> SessionFailed:
        return SessionFailed(Failure(f"451 4.4.2 {self.peer}: {self.lost} ({stage})", "connection"))

    async def reply(self, seconds: float, stage: str) -> Reply:
        """The next reply; `stage` is what for, in words. Raises SessionFailed."""
        while not self.replies:
            if self.lost:
                raise self._gone(stage)
            await self._wait(seconds, stage)
        return self.replies.popleft()

    async def drained(self, seconds: float, stage: str) -> None:
        """Wait until more may be written, or something was said. Raises SessionFailed."""
        while self._paused and not self.lost and not self.replies:
            await self._wait(seconds, stage)
        if self.lost and not self.replies:
            raise self._gone(stage)

    def write(self, data: bytes, stage: str) -> None:
        """Send, sooner or later. Raises SessionFailed."""
        if self.lost:
            if self.replies:
                return  # What it said before it went is still to be read, and tells more than that it went.
            raise self._gone(stage)
        self.transport.write(data)


def _give_up(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())
