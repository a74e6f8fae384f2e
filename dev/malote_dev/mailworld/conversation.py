"""One connection to a mail host: aiosmtpd's protocol, with the host's behaviour at every stage.

Here is what concerns the connection: the greeting, TLS, DSN's parameters, silence and hanging up. The ordinary
replies to commands are in `hooks`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
import warnings
from typing import TYPE_CHECKING, AnyStr

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from malote_dev.mailworld.behaviour import Action, Behaviour, Stage, TlsMode
from malote_dev.mailworld.hooks import Hooks, reverse_path
from malote_dev.mailworld.received import Command

if TYPE_CHECKING:
    from malote_dev.mailworld.mx import SinkMx

_MAX_MESSAGE = 64 * 1024 * 1024


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
            Hooks(host),
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
            sender, recipients = reverse_path(self.envelope.mail_from or ""), tuple(self.envelope.rcpt_tos)
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
