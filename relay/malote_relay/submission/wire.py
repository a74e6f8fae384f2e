"""One client's connection: aiosmtpd's protocol, reading and writing by this relay's rules.

aiosmtpd (`SMTP`, an asyncio stream protocol) brings the life of the connection, the session's and the envelope's
state, and the hand-over to TLS, which forgets all of it. Changed here:

- what comes in waits in a buffer of the connection's own, and not in a stream reader: a line that is there already is
  had without a turn of the event loop;
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
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any, ClassVar, Final, cast

from aiosmtpd.smtp import SMTP

from malote_relay.submission import replies
from malote_relay.submission.commands import CommandError, announces_content
from malote_relay.submission.replies import Reply

_BUFFER: Final = 128 * 1024
"""No line is longer; with twice as many octets not yet looked at, the client is made to wait."""

BLOCK: Final = 4 * _BUFFER
"""Octets given out at once, at most."""

_CLOSE_SECONDS: Final = 5.0
_NOT_OFFERED: Final = frozenset(("smtp_EXPN",))


class Gone(Exception):
    """The client has closed the connection, or it broke, or it was closed from here."""


class Wire(SMTP):
    """The transport side of a session. TLS may be on already when the connection is made."""

    _methods: ClassVar[list[str]] = []
    _paused: bool  # asyncio's: the client does not read, and writing is to wait

    def __init__(self, handler: object, **options: Any) -> None:
        super().__init__(handler, loop=asyncio.get_running_loop(), **options)
        self._replies: list[bytes] = []
        self._incoming = bytearray()
        self._reading_paused = False
        self._no_more = False  # the client has said so; what is here is still to be looked at
        self._broken = False  # the connection is gone, or closed from here: nothing is looked at any more
        self._arrival: asyncio.Future[None] | None = None
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None

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
        begins = self.task is None
        super().connection_made(transport)
        if begins and self.task is not None:
            self.task.add_done_callback(lambda _: self._forget_if_over())

    def data_received(self, data: bytes) -> None:
        """Keep it for the dialogue."""
        self._incoming += data
        self._wake()
        if len(self._incoming) > 2 * _BUFFER and not self._reading_paused:
            self._reading_paused = True
            cast(asyncio.Transport, self.transport).pause_reading()

    def eof_received(self) -> bool:
        """The client sends no more; what it sent is still carried out, and replied to where TLS allows it."""
        self._no_more = True
        self._wake()
        return not self.tls

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing more can be said. The dialogue learns of it when it next wants to hear or say something."""
        self._end_timer()
        self.transport = None
        self._no_more = True
        self._broken = self._broken or error is not None
        self._wake()
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self._forget_if_over()

    def _forget_if_over(self) -> None:
        """Let go of everything once connection and dialogue have both ended.

        A session refers to itself in many ways, and with it to the TLS state and its buffers, some 300 KB: the
        collector of cycles comes by too seldom to wait for it.
        """
        if self.transport is None and self.task is not None and self.task.done():
            self._end_timer()
            asyncio.StreamReaderProtocol.__del__(self)  # else asyncio reports an error that nobody has asked for
            self.loop.call_soon(vars(self).clear)

    def _reset_timeout(self, duration: float | None = None) -> None:
        self._wait_until(self.loop.time() + (duration or self._timeout_duration))

    # What the dialogue calls.

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self._tls_protocol is not None

    @property
    def client(self) -> str:
        """The client's address."""
        return self.session.peer[0] if self.session is not None and self.session.peer else ""

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The dialogue."""
        return self._handler_coroutine

    @property
    def waiting(self) -> bool:
        """Whether the client is waited for."""
        return self._deadline is not None

    async def serve(
        self, place: AbstractContextManager[Reply | None], talk: Callable[[], Awaitable[None]], log: Any
    ) -> None:
        """Have the dialogue in its place, or say why there is none; close the connection, whatever happened."""
        with place as refusal:
            try:
                if refusal is None:
                    await talk()
                else:
                    self.leave(refusal)
            except Gone:
                pass
            except Exception:
                log.exception("a session failed", client=self.client)
            finally:
                self.leave()

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
        deadline: float | None = None
        dropped = last = False
        looked = 0
        while (end := -1 if self._broken else self._incoming.find(b"\n", looked)) < 0:
            looked = len(self._incoming)
            if looked > _BUFFER and not self._broken:
                last = last or (not dropped and announces_content(bytes(self._incoming[:4])))
                self._take(looked)
                dropped, looked = True, 0
            deadline = deadline or self.loop.time() + seconds
            await self._hear(deadline)
        line = self._take(end + 1)
        last = last or (not dropped and announces_content(line))
        if dropped or len(line) > limit:
            raise CommandError(too_long, last=last)
        if not line.endswith(b"\r\n") or b"\r" in line[:-2] or b"\0" in line:
            raise CommandError(replies.BAD_LINE_END, last=last)
        return line[:-2]

    async def block(self, deadline: float, most: int = BLOCK) -> bytes:
        """What has come, at least one octet and `most` at most, by the loop's time `deadline`. Raises Gone."""
        while self._broken or not self._incoming:
            await self._hear(deadline)
        return self._take(min(most, BLOCK))

    def unread(self, octets: bytes) -> None:
        """Put back the end of a block: it is the next thing read."""
        self._incoming[:0] = octets

    async def secure(self, context: ssl.SSLContext, seconds: float) -> None:
        """Turn to TLS. Raises Gone when the handshake fails.

        Whatever came in clear after STARTTLS is dropped: it may have been put there by somebody in between
        (RFC 3207 section 5; CVE-2011-0411).
        """
        self._wait_until(self.loop.time() + seconds)
        try:
            await self._flush()
        finally:
            self._deadline = None
        plain = cast(asyncio.Transport, self.transport)
        self._incoming.clear()
        self._reading_paused = False  # the hand-over pauses and resumes by itself
        try:
            transport = await self.loop.start_tls(
                plain, self, context, server_side=True, ssl_handshake_timeout=seconds
            )
        except OSError as error:
            raise Gone from error
        if transport is None or self.transport is None:  # the connection went away meanwhile
            raise Gone
        self._original_transport = plain
        self.connection_made(transport)

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
        self._broken = True
        self._wake()
        self._end_timer()
        self._timer = self.loop.call_later(_CLOSE_SECONDS, self._writer.transport.abort)

    # Reading and writing.

    async def _hear(self, deadline: float) -> None:
        """Send the replies, and wait until something has come, at the latest until `deadline`. Raises Gone."""
        if self._broken:
            raise Gone
        self._wait_until(deadline)
        try:
            await self._flush()
            if self._no_more or self._broken:
                raise Gone
            self._arrival = self.loop.create_future()
            await self._arrival
        finally:
            self._arrival = None
            self._deadline = None
        if self._broken:
            raise Gone

    async def _flush(self) -> None:
        """Send what is queued, and wait while the client does not read. Raises Gone."""
        transport = cast(asyncio.Transport | None, self.transport)
        if self._broken or transport is None:
            raise Gone
        if self._replies:
            octets = self._replies[0] if len(self._replies) == 1 else b"".join(self._replies)
            self._replies.clear()
            transport.write(octets)
        if self._paused:
            try:
                await self._writer.drain()
            except OSError as error:
                raise Gone from error

    def _take(self, count: int) -> bytes:
        """The first so many octets of what has come; the client may go on when little is left."""
        octets = bytes(self._incoming[:count])
        del self._incoming[:count]
        if self._reading_paused and len(self._incoming) <= _BUFFER and self.transport is not None:
            self._reading_paused = False
            cast(asyncio.Transport, self.transport).resume_reading()
        return octets

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    # Time: one timer, which is seldom moved. It looks at the deadline when it goes off.

    def _wait_until(self, deadline: float) -> None:
        if self._timer is None or deadline < self._timer.when():
            self._end_timer()
            self._timer = self.loop.call_at(deadline, self._time_out)
        self._deadline = deadline

    def _end_timer(self) -> None:
        self._deadline = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self.loop.time() < self._deadline:
            self._timer = self.loop.call_at(self._deadline, self._time_out)
        else:
            self.leave(replies.IDLE_TOO_LONG)
