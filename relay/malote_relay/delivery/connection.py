"""The outgoing SMTP dialogue: one session with one remote server, and transactions on it.

Commands are sent in groups where the server offers PIPELINING (RFC 2920). TLS is opportunistic (RFC 3207, RFC 7435):
used when offered, its certificate not verified, since a sender that would fall back to clear text gains nothing
from refusing a name. Time limits follow RFC 5321 section 4.5.3.2, except for connecting.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from malote_relay.delivery.content import Content
from malote_relay.delivery.parameters import mail_parameters, rcpt_parameters
from malote_relay.delivery.reply import Answer, BadReply, Failure, Reply, ReplyParser
from malote_relay.resolver import IPAddress
from malote_relay.store.model import DsnRequest

_MAX_UNREAD = 2000
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to wait for each step (RFC 5321 section 4.5.3.2)."""

    connect: float = 30.0
    greeting: float = 120.0
    command: float = 300.0
    tls: float = 60.0
    data: float = 120.0
    block: float = 180.0
    final: float = 600.0
    quit: float = 2.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are to the remote: the EHLO name, and the source address ("" lets the system choose)."""

    helo_name: str
    source_address: str = ""


@dataclass(frozen=True, slots=True)
class Peer:
    """Where to connect. `name` is the MX host's ("" for an address literal)."""

    name: str
    address: IPAddress
    port: int = 25

    def __str__(self) -> str:
        return f"{self.name}[{self.address}]" if self.name else f"[{self.address}]"


@dataclass(frozen=True, slots=True)
class Envelope:
    """One transaction. `size` is the content's octets as stored (RFC 1870).

    `dsn` is what the client asked for, for each of the recipients in their order; empty for nothing to pass on.
    """

    reverse_path: str
    recipients: Sequence[str]
    content: Content
    size: int
    eight_bit: bool = False
    smtputf8: bool = False
    dsn: Sequence[DsnRequest] = ()


class SessionFailed(Exception):
    """No session, or no longer one. `failure` is what to tell; `tls` when another try without TLS is worth it."""

    def __init__(self, failure: Failure, *, tls: bool = False):
        super().__init__(failure.words)
        self.failure = failure
        self.tls = tls


def opportunistic_tls() -> ssl.SSLContext:
    """TLS 1.2 or newer with whoever answers; nothing is verified (RFC 7435)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class _Wire(asyncio.Protocol):
    """Replies in, octets out, with flow control. Every wait has a limit and ends when the connection does."""

    def __init__(self, peer: Peer):
        self.peer = peer
        self.parser = ReplyParser()
        self.replies: deque[Reply] = deque()
        self.lost: str = ""
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None  # noqa: S101  # create_connection returns after connection_made
        return self._transport

    @transport.setter
    def transport(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        try:
            self.replies.extend(self.parser.feed(data))
            if len(self.replies) > _MAX_UNREAD:
                raise BadReply("a flood of replies")
        except BadReply as error:
            self.lost = f"it does not speak SMTP: {error}"
            self.transport.abort()
        self._wake()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = self.lost or (f"connection lost: {exc}" if exc else "it closed the connection")
        self._wake()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self, seconds: float, stage: str) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                await self._waiter
        except TimeoutError as error:
            words = f"451 4.4.2 {self.peer} did not answer within {seconds:g} s ({stage})"
            raise SessionFailed(Failure(words, "timeout")) from error
        finally:
            self._waiter = None

    def _gone(self, stage: str) -> SessionFailed:
        return SessionFailed(Failure(f"451 4.4.2 {self.peer}: {self.lost} ({stage})", "connection"))

    async def reply(self, seconds: float, stage: str) -> Reply:
        while not self.replies:
            if self.lost:
                raise self._gone(stage)
            await self._wait(seconds, stage)
        return self.replies.popleft()

    async def drained(self, seconds: float, stage: str) -> None:
        while self._paused and not self.lost and not self.replies:
            await self._wait(seconds, stage)
        if self.lost and not self.replies:
            raise self._gone(stage)

    def write(self, data: bytes, stage: str) -> None:
        if self.lost:
            if self.replies:
                return  # What it said before it went is still to be read, and tells more than that it went.
            raise self._gone(stage)
        self.transport.write(data)


class Session:
    """A greeted session; `open_session` makes one. Transactions go one after another, by one caller at a time."""

    def __init__(self, wire: _Wire, timeouts: Timeouts):
        self._wire = wire
        self._timeouts = timeouts
        self._extensions: dict[str, str] = {}
        self._needs_reset = False
        self._ended = False
        self._farewell: Reply | None = None
        """The 421 with which it announced that it closes."""
        self.content_sent = False
        """Whether the last transaction got as far as its content: the remote may then have the message."""
        self.peer = wire.peer
        self.tls = ""
        self.transactions = 0

    @property
    def usable(self) -> bool:
        """Whether another transaction may be tried on it."""
        return not self._ended and not self._wire.lost and not self._wire.replies

    @property
    def notifies(self) -> bool:
        """Whether the remote takes over the notifying of senders (DSN, RFC 3461)."""
        return "DSN" in self._extensions

    async def greet(self, identity: Identity, tls: ssl.SSLContext | None) -> None:
        """Greeting, EHLO (or HELO), STARTTLS when offered. Raises SessionFailed."""
        reply = await self._wire.reply(self._timeouts.greeting, "greeting")
        if reply.code != 220:
            raise self._refused(reply, "greeting")
        await self._hello(identity.helo_name)
        if tls is None or "STARTTLS" not in self._extensions:
            return
        reply = await self._command("STARTTLS", "STARTTLS")
        if reply.code != 220:
            return  # RFC 3207 section 4: it goes on without.
        if not self._wire.parser.idle or self._wire.replies:
            # Clear text sent ahead of the handshake could pose as what comes after it (CVE-2011-0411).
            raise SessionFailed(Failure(f"451 4.7.5 {self.peer} spoke before the TLS handshake", "tls"), tls=True)
        try:
            transport = await asyncio.get_running_loop().start_tls(
                self._wire.transport,
                self._wire,
                tls,
                server_hostname=self.peer.name or None,
                ssl_handshake_timeout=self._timeouts.tls,
            )
        except (OSError, ssl.SSLError, TimeoutError) as error:
            words = f"451 4.7.5 TLS handshake with {self.peer} failed: {error or type(error).__name__}"
            raise SessionFailed(Failure(words, "tls"), tls=True) from error
        if transport is None:
            raise SessionFailed(Failure(f"451 4.7.5 {self.peer} left the TLS handshake", "tls"), tls=True)
        self._wire.transport = transport
        secured = transport.get_extra_info("ssl_object")
        self.tls = f"{secured.version()} {secured.cipher()[0]}"
        try:
            await self._hello(identity.helo_name)
        except SessionFailed as failed:
            # With TLS 1.3 a server's refusal may come only after our side of the handshake is done.
            raise SessionFailed(failed.failure, tls=True) from failed

    async def _hello(self, name: str) -> None:
        reply = await self._command(f"EHLO {name}", "EHLO")
        if reply.permanent:
            # RFC 5321 section 4.1.4: an older server, or one that wants to be asked simply.
            self._extensions = {}
            reply = await self._command(f"HELO {name}", "HELO")
        else:
            words = [line.partition(" ") for line in reply.lines[1:]]
            self._extensions = {keyword.upper(): parameters for keyword, _, parameters in words}
        if reply.code != 250:
            raise self._refused(reply, "EHLO")

    async def _command(self, line: str, stage: str) -> Reply:
        self._wire.write(f"{line}\r\n".encode(), stage)
        return await self._wire.reply(self._timeouts.command, stage)

    def _refused(self, reply: Reply, stage: str) -> SessionFailed:
        words = f"{reply} ({self.peer}, {stage})"
        return SessionFailed(Failure(words, "", permanent=reply.permanent))

    async def deliver(self, envelope: Envelope) -> list[Answer]:
        """Run one transaction: an answer for each recipient, in their order. Raises only what is not the remote's.

        A session lost between the final dot and its reply counts as a temporary failure: the message may then
        arrive twice, but is never lost (RFC 5321 section 4.2.5, RFC 1047).
        """
        if (refusal := self._unfit(envelope)) is not None:
            return [refusal] * len(envelope.recipients)
        answers: list[Answer | None] = [None] * len(envelope.recipients)
        self.content_sent = False
        heard = False
        rest: Answer | None = None
        try:
            if "PIPELINING" in self._extensions:
                self._send_commands(envelope)
            mail = await self._mail(envelope)
            heard = True
            if mail.code == 421 and self.transactions:
                raise SessionFailed(Failure(f"{mail}", "connection", stale=True))
            await self._rest(envelope, mail, answers)
        except SessionFailed as failed:
            stale = failed.failure.stale or (not heard and self.transactions > 0)
            rest = self._farewell or Failure(failed.failure.words, failed.failure.bounce_class, stale=stale)
            self.abort()
        except BaseException:
            self.abort()
            raise
        finally:
            self.transactions += 1
        unanswered = rest or Failure("451 4.3.0 the transaction ended without an answer", "other")
        return [unanswered if answer is None else answer for answer in answers]

    async def _mail(self, envelope: Envelope) -> Reply:
        seconds = self._timeouts.command
        if "PIPELINING" not in self._extensions:
            if self._needs_reset:
                await self._command("RSET", "RSET")
            self._needs_reset = False
            return await self._command(self._mail_command(envelope), "MAIL")
        if self._needs_reset:
            await self._wire.reply(seconds, "RSET")
            self._needs_reset = False
        return await self._wire.reply(seconds, "MAIL")

    async def _rest(self, envelope: Envelope, mail: Reply, answers: list[Answer | None]) -> None:
        pipelined = "PIPELINING" in self._extensions
        if not mail.accepted:
            # It answers for everyone, whatever becomes of the session while the replies to the rest are read.
            self._note(mail, answers)
            if not pipelined:
                return
        accepted = 0
        for place, recipient in enumerate(envelope.recipients):
            if pipelined:
                reply = await self._wire.reply(self._timeouts.command, "RCPT")
            else:
                reply = await self._command(self._rcpt_command(envelope, place, recipient), "RCPT")
            if mail.accepted and reply.accepted:
                accepted += 1
            elif mail.accepted:
                answers[place] = reply
            if reply.code == 421:
                self._ended, self._farewell = True, reply
        if pipelined or accepted:
            if not pipelined:
                self._wire.write(b"DATA\r\n", "DATA")
            data = await self._wire.reply(self._timeouts.data, "DATA")
        else:
            data = Reply(503)
        if data.code != 354:
            self._needs_reset = True
            self._note(data, answers)
        elif not accepted:
            # RFC 2920 section 3.1: DATA was let in though nobody is left; end it empty.
            self._wire.write(b".\r\n", "end of data")
            await self._wire.reply(self._timeouts.final, "end of data")
        else:
            self.content_sent = True
            await self._send_content(envelope.content)
            self._note(await self._wire.reply(self._timeouts.final, "end of data"), answers)

    def _note(self, reply: Reply, answers: list[Answer | None]) -> None:
        """`reply` is the answer for whoever has none yet."""
        self._ended = self._ended or reply.code == 421
        for place, answer in enumerate(answers):
            if answer is None:
                answers[place] = (
                    reply if reply.code // 100 in (2, 4, 5) else Failure(f"451 4.5.0 unexpected {reply}", "other")
                )

    def _send_commands(self, envelope: Envelope) -> None:
        lines = ["RSET"] if self._needs_reset else []
        lines.append(self._mail_command(envelope))
        lines += [self._rcpt_command(envelope, *one) for one in enumerate(envelope.recipients)]
        lines += ["DATA", ""]
        self._wire.write("\r\n".join(lines).encode(), "MAIL")

    async def _send_content(self, content: Content) -> None:
        stage = "content"
        if (whole := content.whole()) is not None:
            self._wire.write(whole, stage)
            return
        async for block in content.blocks():
            self._wire.write(block, stage)
            await self._wire.drained(self._timeouts.block, stage)
            if self._wire.replies:
                self._ended = True  # It has heard enough; what it says is the answer, the rest is not sent.
                return

    def _mail_command(self, envelope: Envelope) -> str:
        line = f"MAIL FROM:<{envelope.reverse_path}>"
        if "SIZE" in self._extensions:
            line += f" SIZE={envelope.size}"
        if envelope.eight_bit and "8BITMIME" in self._extensions:
            line += " BODY=8BITMIME"
        if envelope.smtputf8 and "SMTPUTF8" in self._extensions:
            line += " SMTPUTF8"
        if envelope.dsn and self.notifies:
            line += mail_parameters(envelope.dsn[0])
        return line

    def _rcpt_command(self, envelope: Envelope, place: int, recipient: str) -> str:
        line = f"RCPT TO:<{recipient}>"
        if envelope.dsn and self.notifies:
            line += rcpt_parameters(envelope.dsn[place], recipient)
        return line

    def _unfit(self, envelope: Envelope) -> Reply | None:
        """Why this server cannot take this message whatever it would say, as a reply."""
        addresses = (envelope.reverse_path, *envelope.recipients)
        if any(_FORBIDDEN.search(address) for address in addresses):
            return Reply(553, ("5.1.3 the address has a control character in it",))
        if envelope.smtputf8 and "SMTPUTF8" not in self._extensions:
            # RFC 6531 section 3.2. A client may have asked for SMTPUTF8 without needing it.
            if not all(address.isascii() for address in addresses):
                return Reply(553, (f"5.6.7 {self.peer} takes no internationalised addresses (SMTPUTF8)",))
            if not envelope.content.headers().isascii():
                return Reply(554, (f"5.6.7 {self.peer} takes no internationalised headers (SMTPUTF8)",))
        if envelope.eight_bit and "8BITMIME" not in self._extensions:
            # RFC 6152 section 3: converting would break the DKIM signature.
            return Reply(
                554, (f"5.6.3 {self.peer} takes no 8-bit content, and conversion would break its signature",)
            )
        limit = self._extensions.get("SIZE", "")
        if limit.isdigit() and 0 < int(limit) < envelope.size:
            return Reply(552, (f"5.3.4 {self.peer} takes {limit} octets at most, the message has {envelope.size}",))
        return None

    async def ask(self, recipient: str) -> tuple[Reply, Reply | None]:
        """Ask whether `recipient` would be taken, from the null sender, and go no further: a call-out.

        The replies to MAIL and to RCPT; the latter is None when MAIL was refused. Raises SessionFailed.
        """
        if _FORBIDDEN.search(recipient):
            return Reply(553, ("5.1.3 the address has a control character in it",)), None
        utf8 = " SMTPUTF8" if not recipient.isascii() and "SMTPUTF8" in self._extensions else ""
        mail = await self._command(f"MAIL FROM:<>{utf8}", "MAIL")
        if not mail.accepted:
            return mail, None
        return mail, await self._command(f"RCPT TO:<{recipient}>", "RCPT")

    async def quit(self) -> None:
        """Say QUIT, wait a moment for the answer, close."""
        if self.usable:
            with contextlib.suppress(SessionFailed):
                self._wire.write(b"QUIT\r\n", "QUIT")
                await self._wire.reply(self._timeouts.quit, "QUIT")
        self._ended = True
        self._wire.transport.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._ended = True
        self._wire.transport.abort()


async def open_session(
    peer: Peer, identity: Identity, timeouts: Timeouts, tls: ssl.SSLContext | None = None
) -> Session:
    """Connect and greet. Raises SessionFailed; its `tls` says that only TLS was in the way."""
    local = (identity.source_address, 0) if identity.source_address else None
    try:
        async with asyncio.timeout(timeouts.connect):
            _, wire = await asyncio.get_running_loop().create_connection(
                lambda: _Wire(peer), str(peer.address), peer.port, local_addr=local
            )
    except TimeoutError as error:
        words = f"451 4.4.1 no connection to {peer} within {timeouts.connect:g} s"
        raise SessionFailed(Failure(words, "timeout")) from error
    except OSError as error:
        words = f"451 4.4.1 no connection to {peer}: {error.strerror or error}"
        raise SessionFailed(Failure(words, "connection")) from error
    session = Session(wire, timeouts)
    try:
        await session.greet(identity, tls)
    except BaseException:
        session.abort()
        raise
    return session
