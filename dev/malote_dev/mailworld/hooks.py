"""A mail host's replies to commands, as aiosmtpd asks for them: the host's behaviour first, else the ordinary one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiosmtpd.smtp import Envelope, Session

from malote_dev.mailworld.behaviour import Stage
from malote_dev.mailworld.received import Message

if TYPE_CHECKING:
    from malote_dev.mailworld.conversation import Conversation
    from malote_dev.mailworld.mx import SinkMx

_TAKEN = "250 2.0.0 Taken"


# Without slots: aiosmtpd looks at every attribute of it, which fails on a slotted dataclass before Python 3.11.3.
@dataclass(frozen=True)
class Hooks:
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
        """The reply to HELO, which gives the session its name."""
        reply = await self._reply(server, Stage.EHLO, name, lambda: f"250 {self.host.hostname}")
        if reply.startswith("250"):
            session.host_name = name
        return reply

    async def handle_EHLO(
        self, server: Conversation, session: Session, envelope: Envelope, name: str, responses: list[str]
    ) -> list[str]:
        """The lines of the reply to EHLO: what the host offers, without what it lacks."""
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
        """The reply to MAIL; the reverse-path is kept when it is taken."""
        sender = reverse_path(address)
        reply = await self._reply(server, Stage.MAIL, sender, lambda: "250 2.1.0 Sender ok", sender=sender)
        if reply.startswith("250"):
            envelope.mail_from = address
            envelope.mail_options.extend((*options, *server.dsn_parameters))
        return reply

    async def handle_RCPT(
        self, server: Conversation, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """The reply to RCPT; a recipient is kept when it is taken, with its DSN parameters."""
        sender = reverse_path(envelope.mail_from or "")
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
        """The reply to the content, which the host keeps when it is taken."""
        sender, recipients = reverse_path(envelope.mail_from or ""), tuple(envelope.rcpt_tos)
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


def reverse_path(address: str) -> str:
    """The null reverse-path as "", which aiosmtpd gives as "<>"."""
    return "" if address == "<>" else address
