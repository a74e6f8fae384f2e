"""A recipient's mail host that can be told how to behave, and that keeps what it receives.

Here is the host: how it is to behave, what it has received, and what it decides. Each connection to it is a
`Conversation`. A recipient's own behaviour comes before the host's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any, Self

from malote_dev.mailworld.behaviour import ACCEPT, Action, Behaviour, Stage, TlsMode
from malote_dev.mailworld.certificates import CertificateAuthority, context_of
from malote_dev.mailworld.conversation import Conversation
from malote_dev.mailworld.received import Command, Message


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

    async def wait_for(self, count: int, timeout: float = 30.0) -> list[Message]:
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
