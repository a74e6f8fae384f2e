"""One client's connection: aiosmtpd's protocol, reading and writing by this relay's rules.

aiosmtpd (`SMTP`, an asyncio stream protocol) brings the life of the connection, its stream reader and writer, the
timer, the session's and the envelope's state, and the hand-over to TLS, which forgets all of it. Changed here:

- a line ends in CRLF and is bounded, and there is no wait for the client without an end;
- replies collect until the client's next line is waited for, so that a client that pipelines (RFC 2920) gets the
  replies to its commands in one packet;
- the handshake is the event loop's own, since uvloop's TLS is much faster than asyncio's that aiosmtpd names;
- a client that goes away does not cancel the dialogue: what is being committed is completed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar, Final, cast

from aiosmtpd.smtp import SMTP

from malote_relay.submission import replies
from malote_relay.submission.commands import CommandError
from malote_relay.submission.replies import Reply

_BUFFER: Final = 128 * 1024
"""The stream reader's limit: with twice as many octets not yet looked at, the client is made to wait."""

_CLOSE_SECONDS: Final = 5.0
_NOT_OFFERED: Final = frozenset(("smtp_EXPN",))


class Gone(Exception):
    """The client has closed the connection, or it broke, or it was closed from here."""


class Wire(SMTP):
    """The transport side of a session. TLS may be on already when the connection is made."""

    line_length_limit = _BUFFER
    _methods: ClassVar[list[str]] = []
    _timeout_handle: asyncio.TimerHandle  # there is one once the connection is made

    def __init__(self, handler: object, **options: Any) -> None:
        super().__init__(handler, loop=asyncio.get_running_loop(), **options)
        self._replies: list[bytes] = []

    def __init_subclass__(cls) -> None:
        cls._methods = [name for name in dir(cls) if name.startswith(("smtp_", "auth_")) and name not in _NOT_OFFERED]

    def __dir__(self) -> list[str]:
        # aiosmtpd goes through every attribute of every new connection for its commands: it is shown these alone.
        return self._methods

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the dialogue; or go on with it over TLS."""
        context = transport.get_extra_info("sslcontext")
        if context is not None:
            self._tls_protocol = SimpleNamespace(_extra={"sslcontext": context})  # type: ignore[assignment]  # all it reads
        super().connection_made(transport)

    def eof_received(self) -> bool:
        """The client sends no more; what it sent is still carried out, and replied to where TLS allows it."""
        asyncio.StreamReaderProtocol.eof_received(self)
        return not self.tls

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing more can be said. The dialogue learns of it when it next wants to hear or say something."""
        self._timeout_handle.cancel()
        self.transport = None
        asyncio.StreamReaderProtocol.connection_lost(self, error)

    def _timeout_cb(self) -> None:
        self.leave(replies.IDLE_TOO_LONG)

    # What the dialogue calls.

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self._tls_protocol is not None

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The dialogue."""
        return self._handler_coroutine

    @property
    def waiting(self) -> bool:
        """Whether the client is waited for: only then the timer runs."""
        return self._timeout_handle is not None and not self._timeout_handle.cancelled()

    async def push(self, status: Reply | str | bytes) -> None:
        """Queue a reply; it leaves before the next wait for the client."""
        if isinstance(status, Reply):
            self._replies.append(status.wire())
        else:
            self._replies.append((status.encode("ascii") if isinstance(status, str) else status) + b"\r\n")

    async def line(self, limit: int, seconds: float, too_long: Reply = replies.LINE_TOO_LONG) -> bytes:
        """The next line without its CRLF, within so many seconds.

        Raises Gone, and CommandError after a line that was dropped: it was longer than `limit` octets, did not end
        in CRLF, or had a CR or NUL inside.
        """
        deadline = self.loop.time() + seconds
        dropped = False
        while True:
            try:
                ready = b"\n" in self._reader._buffer  # type: ignore[attr-defined]  # there is no public way to ask
                line = await self._hear(self._reader.readuntil, None if ready else deadline)
            except asyncio.LimitOverrunError as error:
                await self._hear(partial(self._reader.read, error.consumed), None)
                dropped = True
                continue
            if dropped or len(line) > limit:
                raise CommandError(too_long)
            if not line.endswith(b"\r\n") or b"\r" in line[:-2] or b"\0" in line:
                raise CommandError(replies.BAD_LINE_END)
            return line[:-2]

    async def block(self, deadline: float, most: int | None = None) -> bytes:
        """What has come, at least one octet and `most` at most, by the loop's time `deadline`. Raises Gone."""
        count = 4 * _BUFFER if most is None else min(most, 4 * _BUFFER)
        octets = await self._hear(partial(self._reader.read, count), deadline)
        if not octets:
            raise Gone
        return octets

    def unread(self, octets: bytes) -> None:
        """Put back the end of a block: it is the next thing read."""
        self._reader._buffer[:0] = octets  # type: ignore[attr-defined]  # feed_data would put it last

    async def secure(self, context: ssl.SSLContext, seconds: float) -> None:
        """Turn to TLS. Raises Gone when the handshake fails.

        Whatever came in clear after STARTTLS is dropped: it may have been put there by somebody in between
        (RFC 3207 section 5; CVE-2011-0411).
        """
        await self._flush()
        self._timeout_handle.cancel()
        self._taken()
        plain = cast(asyncio.Transport, self.transport)
        try:
            transport = await self.loop.start_tls(
                plain, self, context, server_side=True, ssl_handshake_timeout=seconds
            )
        except OSError as error:
            raise Gone from error
        if transport is None or self.transport is None:  # the connection went away meanwhile
            raise Gone
        first = self._taken()  # what came together with the handshake's end
        self._original_transport = plain
        self.connection_made(transport)
        self.unread(first)

    def _taken(self) -> bytes:
        """All that has come."""
        octets = bytes(self._reader._buffer)  # type: ignore[attr-defined]  # aiosmtpd clears it in this way, too
        self._reader._buffer.clear()  # type: ignore[attr-defined]
        return octets

    def leave(self, reply: Reply | None = None) -> None:
        """Send what is queued, and a last reply, and close; cut off a client that does not take it."""
        if self._writer.is_closing():
            return
        if reply is not None:
            self._replies.append(reply.wire())
        if self._replies:
            self._writer.write(b"".join(self._replies))
            self._replies.clear()
        self._writer.close()
        self._reader.set_exception(ConnectionAbortedError("closed from here"))
        self._timeout_handle.cancel()
        self._timeout_handle = self.loop.call_later(_CLOSE_SECONDS, self._writer.transport.abort)

    async def _flush(self) -> None:
        """Send what is queued, and wait while the client does not read. Raises Gone."""
        if self._replies:
            octets = b"".join(self._replies)
            self._replies.clear()
            self._writer.write(octets)
        try:
            await self._writer.drain()
        except OSError as error:
            raise Gone from error

    async def _hear(self, read: Callable[[], Awaitable[bytes]], deadline: float | None) -> bytes:
        """Read; with a deadline, after sending the replies, and until then at most. Raises Gone."""
        try:
            if deadline is not None:
                self._reset_timeout(max(deadline - self.loop.time(), 0.001))
                await self._flush()
            return await read()
        except (EOFError, OSError) as error:
            raise Gone from error
        finally:
            if not self._writer.is_closing():  # else it is the one that cuts the client off
                self._timeout_handle.cancel()
