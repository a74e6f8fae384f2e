"""A recipient's mail host that can be told how to behave, and that keeps what it receives.

Built on aiosmtpd, whose handler hooks decide each reply. A recipient's own behaviour comes before the host's.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, AnyStr, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from malote_dev.mailworld.behaviour import ACCEPT, Action, Behaviour, Stage, TlsMode
from malote_dev.mailworld.certificates import CertificateAuthority, context_of

_MAX_MESSAGE = 64 * 1024 * 1024
_TAKEN = "250 2.0.0 Taken"


@dataclass(frozen=True, slots=True)
class Message:
    """A message as received: `content` is what came between DATA and the final dot, dots unstuffed.

    `tls` is the protocol version, such as "TLSv1.3", or "" for plain text; `peer` the client's address.
    """

    mail_from: str
    recipients: tuple[str, ...]
    content: bytes
    peer: str
    helo: str
    tls: str
    at: float
    connection: int
    mail_options: tuple[str, ...] = ()
    rcpt_options: tuple[tuple[str, ...], ...] = ()
    """Those of DSN, as written, for each recipient in their order."""


@dataclass(frozen=True, slots=True)
class Command:
    """One step of a session and the reply it got ("" where there was none).

    `verb` is a stage's name in capitals or STARTTLS; `sender` the reverse-path of the transaction under way.
    """

    connection: int
    verb: str
    argument: str
    reply: str
    sender: str
    peer: str
    helo: str
    at: float


class SinkMx:
    """A mail host on one address and port. Set `behaviour`, `recipients` and `tls` at any time.

    A change holds from the next command on; `tls` from the next connection on. With a `login` (user name, password)
    mail is taken only from who signs in, over TLS, by one of `mechanisms`; `implicit_tls` begins with TLS, as on port
    465; `lacking` are extensions that are not offered. `recipients` maps a recipient's
    address (lower case) to its behaviour: at stage RCPT for its own command, at MESSAGE for any message to it.
    """

    def __init__(
        self,
        address: str = "127.0.0.1",
        port: int = 0,
        *,
        hostname: str = "mx.example",
        authority: CertificateAuthority | None = None,
        tls: TlsMode = TlsMode.GOOD,
        behaviour: Behaviour = ACCEPT,
        dsn: bool = False,
        login: tuple[str, str] | None = None,
        mechanisms: Sequence[str] = ("PLAIN", "LOGIN"),
        implicit_tls: bool = False,
        lacking: Collection[str] = (),
    ) -> None:
        self.address = address
        self.login = login
        self.mechanisms = mechanisms
        self.implicit_tls = implicit_tls
        self.lacking = lacking
        self.port = port
        self.hostname = hostname
        self.authority = authority or CertificateAuthority()
        self.tls = tls
        self.behaviour = behaviour
        self.dsn = dsn
        """Whether DSN (RFC 3461) is offered; its parameters are kept with each message."""
        self.recipients: dict[str, Behaviour] = {}
        self.messages: list[Message] = []
        self.commands: list[Command] = []
        self.connections = 0
        """How many connections were made in all."""
        self.sessions: dict[int, Conversation] = {}
        """The connections that are open, by their number."""
        self._greylisted: set[tuple[str, str, str]] = set()
        self._uses: dict[Behaviour, int] = {}
        self.certificate: tuple[bytes, bytes] | None = None
        """A chain and its key (PEM) in place of what `tls` would have."""
        self._contexts: dict[Any, Any] = {}
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Condition()

    async def start(self) -> SinkMx:
        """Listen; with port 0 the system chooses one, which `port` then tells. Returns itself."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Conversation(self),
            self.address,
            self.port,
            backlog=512,
            ssl=self.tls_context() if self.implicit_tls else None,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Stop listening and reset every connection: from outside, the host is gone. `start` brings it back."""
        if self._server is not None:
            self._server.close()
            for session in list(self.sessions.values()):
                session.reset()
            await self._server.wait_closed()
            self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def listening(self) -> bool:
        """Whether connections are taken."""
        return self._server is not None

    def clear(self) -> None:
        """Forget messages, commands, counts and what was greylisted; the behaviour stays."""
        self.messages.clear()
        self.commands.clear()
        self.connections = 0
        self._greylisted.clear()
        self._uses.clear()

    async def wait_for(self, count: int, timeout: float = 10.0) -> list[Message]:
        """The messages, once there are at least `count`. Raises TimeoutError saying how many came."""
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: len(self.messages) >= count)
        except TimeoutError:
            raise TimeoutError(
                f"{self.hostname}: {len(self.messages)} of {count} messages after {timeout:g} s; "
                f"last commands: {[(c.verb, c.argument, c.reply) for c in self.commands[-5:]]}"
            ) from None
        return list(self.messages)

    async def keep(self, message: Message) -> None:
        """Add a received message and wake those who wait for it."""
        async with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def decide(self, stage: Stage, sender: str = "", recipients: tuple[str, ...] = (), peer: str = "") -> Behaviour:
        """What to do now; behaviours that are used up, and greylisting of what was seen before, give ACCEPT."""
        candidates = [self.recipients.get(address.lower(), ACCEPT) for address in recipients] + [self.behaviour]
        for behaviour in candidates:
            if behaviour.action is Action.ACCEPT or behaviour.action is Action.SLOW or behaviour.stage is not stage:
                continue
            if behaviour.action is Action.GREYLIST:
                seen = {(peer, sender.lower(), recipient.lower()) for recipient in recipients}
                if seen <= self._greylisted:
                    continue
                self._greylisted |= seen
            if behaviour.times:
                if self._uses.get(behaviour, 0) >= behaviour.times:
                    continue
                self._uses[behaviour] = self._uses.get(behaviour, 0) + 1
            return behaviour
        return ACCEPT

    def rcpt_reply(self, sender: str, recipient: str) -> str:
        """The ordinary reply to a RCPT, for hosts that know their mailboxes; `sender` is "" in a call-out."""
        return "250 2.1.5 Recipient ok"

    def tls_context(self) -> Any:
        """The TLS context for a new connection; None: STARTTLS is not offered."""
        if self.tls is TlsMode.NONE:
            return None
        if self.certificate is not None:
            if self.certificate not in self._contexts:
                self._contexts[self.certificate] = context_of(*self.certificate)
            return self._contexts[self.certificate]
        if self.tls not in self._contexts:
            names = ["elsewhere.invalid"] if self.tls is TlsMode.WRONG_NAME else [self.hostname, self.address]
            self._contexts[self.tls] = self.authority.server_context(
                names, expired=self.tls is TlsMode.EXPIRED, self_signed=self.tls is TlsMode.SELF_SIGNED
            )
        return self._contexts[self.tls]


class Conversation(SMTP):
    """One connection: aiosmtpd's protocol with the host's behaviour at every stage."""

    def __init__(self, host: SinkMx) -> None:
        self._host = host
        self._tls_mode = host.tls
        self._greeted = False
        self.number = 0
        self.dsn_parameters: tuple[str, ...] = ()
        """Those of the command at hand."""
        self.rcpt_parameters: list[tuple[str, ...]] = []
        """Those of each recipient of the transaction."""
        if host.login and host.implicit_tls:
            # aiosmtpd cannot know that there is TLS from the first octet.
            warnings.filterwarnings("ignore", "Requiring AUTH while not requiring TLS", UserWarning)
        super().__init__(
            _Hooks(host),
            hostname=host.hostname,
            ident="ESMTP",
            data_size_limit=_MAX_MESSAGE,
            enable_SMTPUTF8=True,
            tls_context=None if host.implicit_tls else host.tls_context(),
            auth_exclude_mechanism={"LOGIN", "PLAIN"} - set(host.mechanisms if host.login else ()),
            auth_required=host.login is not None,
            auth_require_tls=host.login is None or not host.implicit_tls,
            authenticator=self._judge_login,
            loop=asyncio.get_running_loop(),
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection; called once more by aiosmtpd when TLS has started."""
        if not self.number:
            self._host.connections += 1
            self.number = self._host.connections
            self._host.sessions[self.number] = self
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is no longer open."""
        self._host.sessions.pop(self.number, None)
        super().connection_lost(error)

    def _judge_login(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword
    ) -> AuthResult:
        given = (data.login.decode(), data.password.decode())
        right = given == self._host.login
        self.note("AUTH", f"{mechanism} {given[0]}", "235" if right else "535")
        return AuthResult(success=right, handled=False)

    @property
    def peer(self) -> str:
        """The client's address."""
        return str(self.session.peer[0]) if self.session and self.session.peer else ""

    @property
    def tls_version(self) -> str:
        """The TLS version in use, "" without TLS."""
        ssl_object = (self.session.ssl or {}).get("ssl_object") if self.session else None
        if ssl_object is None and self.transport is not None:
            ssl_object = self.transport.get_extra_info("ssl_object")  # from the first octet
        return (ssl_object.version() or "") if ssl_object else ""

    def reset(self) -> None:
        """Break the connection off without a word, and so that the client sees it (RST, not an orderly end)."""
        transport = self._original_transport or self.transport
        if isinstance(transport, asyncio.Transport) and not transport.is_closing():
            at_once = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            transport.abort()

    async def push(self, status: AnyStr) -> None:
        """Send a reply. The first one is the greeting, which is the host's first chance to misbehave."""
        text = status if isinstance(status, str) else status.decode()
        if not self._greeted:
            self._greeted = True
            text = await self.act(self._host.decide(Stage.CONNECT, peer=self.peer), "CONNECT", self.peer) or text
        if self._host.behaviour.action is Action.SLOW and text[3:4] != "-":
            await asyncio.sleep(self._host.behaviour.delay)
        await super().push(text)

    async def act(self, behaviour: Behaviour, verb: str, argument: str, sender: str = "") -> str:
        """Carry a behaviour out: the reply to give, "" for the ordinary one. Does not return where none is due."""
        if behaviour.delay:
            await asyncio.sleep(behaviour.delay)
        if behaviour.action is Action.ACCEPT:
            return ""
        reply = behaviour.words
        self.note(verb, argument, reply, sender)
        if behaviour.action is Action.SILENT:
            await asyncio.Event().wait()  # until the client gives up: aiosmtpd cancels this with the connection
        if behaviour.action is Action.DROP:
            self._hang_up()
        if behaviour.action is Action.EMPTY:
            await super().push("")
            await asyncio.Event().wait()
        if reply.startswith("421"):
            await super().push(reply)
            self._hang_up(gently=True)
        return reply

    def _hang_up(self, *, gently: bool = False) -> None:
        if gently and self.transport is not None:
            self.transport.close()
        else:
            self.reset()
        raise asyncio.CancelledError

    def note(self, verb: str, argument: str, reply: str, sender: str = "") -> None:
        """Keep a step for those who look at the host's commands."""
        step = Command(
            connection=self.number,
            verb=verb,
            argument=argument,
            reply=reply,
            sender=sender,
            peer=self.peer,
            helo=(self.session.host_name or "") if self.session else "",
            at=time.time(),
        )
        self._host.commands.append(step)

    async def smtp_MAIL(self, arg: str | None) -> None:
        """Begin a transaction; aiosmtpd knows nothing of DSN's parameters."""
        self.rcpt_parameters = []
        await super().smtp_MAIL(self._without_dsn(arg, ("RET=", "ENVID=")))

    async def smtp_RCPT(self, arg: str | None) -> None:
        """Take a recipient, as above."""
        await super().smtp_RCPT(self._without_dsn(arg, ("NOTIFY=", "ORCPT=")))

    def _without_dsn(self, arg: str | None, names: tuple[str, ...]) -> str | None:
        words = (arg or "").split(" ") if self._host.dsn else []
        self.dsn_parameters = tuple(word for word in words if word.upper().startswith(names))
        return " ".join(word for word in words if word not in self.dsn_parameters) if words else arg

    async def smtp_DATA(self, arg: str) -> None:
        """Ask for the content, unless a behaviour comes before it."""
        if self.envelope is not None and self.envelope.rcpt_tos:
            sender, recipients = _reverse_path(self.envelope.mail_from or ""), tuple(self.envelope.rcpt_tos)
            behaviour = self._host.decide(Stage.DATA, sender, recipients, self.peer)
            if reply := await self.act(behaviour, "DATA", " ".join(recipients), sender):
                await self.push(reply)
                return
        await super().smtp_DATA(arg)

    async def smtp_STARTTLS(self, arg: str) -> None:
        """Start TLS, unless this connection's mode is to fail at it."""
        self.note("STARTTLS", arg or "", self._tls_mode.value)
        if self._tls_mode is TlsMode.UNAVAILABLE:
            await self.push("454 4.7.0 TLS not available due to temporary reason")
        elif self._tls_mode is TlsMode.BROKEN:
            await self.push("220 2.0.0 Ready to start TLS")
            self._hang_up()
        else:
            await super().smtp_STARTTLS(arg)


# Without slots: aiosmtpd looks at every attribute of it, which fails on a slotted dataclass before Python 3.11.3.
@dataclass(frozen=True)
class _Hooks:
    """aiosmtpd's handler: each hook returns the reply line."""

    host: SinkMx
    extensions: tuple[str, ...] = field(default=("250-PIPELINING", "250-ENHANCEDSTATUSCODES"))

    async def _reply(
        self,
        server: Conversation,
        stage: Stage,
        argument: str,
        ordinary: Callable[[], str],
        *,
        sender: str = "",
        recipients: tuple[str, ...] = (),
    ) -> str:
        behaviour = self.host.decide(stage, sender, recipients, server.peer)
        reply = await server.act(behaviour, stage.value.upper(), argument, sender)
        if not reply:
            reply = ordinary()
            server.note(stage.value.upper(), argument, reply, sender)
        return reply

    async def handle_HELO(self, server: Conversation, session: Session, envelope: Envelope, name: str) -> str:
        reply = await self._reply(server, Stage.EHLO, name, lambda: f"250 {self.host.hostname}")
        if reply.startswith("250"):
            session.host_name = name
        return reply

    async def handle_EHLO(
        self, server: Conversation, session: Session, envelope: Envelope, name: str, responses: list[str]
    ) -> list[str]:
        reply = await self._reply(server, Stage.EHLO, name, lambda: f"250 {self.host.hostname}")
        if not reply.startswith("250"):
            return [reply]
        session.host_name = name
        dsn = ("250-DSN",) if self.host.dsn else ()
        offered = [responses[0], *self.extensions, *dsn, *responses[1:]]
        lacking = set(self.host.lacking) | (set() if self.host.login else {"AUTH"})
        return [line for line in offered if line[4:].partition(" ")[0].upper() not in lacking]

    async def handle_MAIL(
        self, server: Conversation, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        sender = _reverse_path(address)
        reply = await self._reply(server, Stage.MAIL, sender, lambda: "250 2.1.0 Sender ok", sender=sender)
        if reply.startswith("250"):
            envelope.mail_from = address
            envelope.mail_options.extend((*options, *server.dsn_parameters))
        return reply

    async def handle_RCPT(
        self, server: Conversation, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        sender = _reverse_path(envelope.mail_from or "")
        reply = await self._reply(
            server,
            Stage.RCPT,
            address,
            lambda: self.host.rcpt_reply(sender, address),
            sender=sender,
            recipients=(address,),
        )
        if reply.startswith("250"):
            envelope.rcpt_tos.append(address)
            server.rcpt_parameters.append(server.dsn_parameters)
        return reply

    async def handle_DATA(self, server: Conversation, session: Session, envelope: Envelope) -> str:
        sender, recipients = _reverse_path(envelope.mail_from or ""), tuple(envelope.rcpt_tos)
        reply = await self._reply(
            server, Stage.MESSAGE, " ".join(recipients), lambda: _TAKEN, sender=sender, recipients=recipients
        )
        if reply.startswith("250"):
            await self.host.keep(
                Message(
                    mail_from=sender,
                    recipients=recipients,
                    content=envelope.original_content or b"",
                    peer=server.peer,
                    helo=session.host_name or "",
                    tls=server.tls_version,
                    at=time.time(),
                    connection=server.number,
                    mail_options=tuple(envelope.mail_options),
                    rcpt_options=tuple(server.rcpt_parameters),
                )
            )
        return reply


def _reverse_path(address: str) -> str:
    """The null reverse-path as "", which aiosmtpd gives as "<>"."""
    return "" if address == "<>" else address
