"""The mail host of a sender's own domain: it knows which mailboxes exist, and so answers call-outs.

A call-out asks it whether an address exists: MAIL FROM:<>, RCPT TO:<address>, and goes away without sending.
Mail for an existing mailbox (a welcome mail, say) is taken and kept like at any other host.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from malote_dev.mailworld.behaviour import ACCEPT, Action, Behaviour
from malote_dev.mailworld.certificates import CertificateAuthority
from malote_dev.mailworld.mx import SinkMx

_NO_SUCH_MAILBOX = "550 5.1.1 <{}>: no such mailbox here"


class Mode(enum.StrEnum):
    """How the provider answers."""

    NORMAL = "normal"
    """250 for a mailbox that exists, 550 5.1.1 for one that does not."""
    ACCEPT_ALL = "accept-all"
    """250 for everything: a domain that gives nothing away, or has a catch-all."""
    DEFER_ALL = "defer-all"
    """451 for everything."""
    BLOCK_PROBES = "block-probes"
    """550 5.7.1 for every recipient of the null sender, whether the mailbox exists or not."""
    UNREACHABLE = "unreachable"
    """Nothing listens."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A recipient that was asked for with the null sender, and the reply."""

    recipient: str
    reply: str
    peer: str
    helo: str
    at: float


class MailboxProvider(SinkMx):
    """A domain's own MX. `mailboxes` (addresses, compared without regard to case) may be changed at any time."""

    def __init__(
        self,
        mailboxes: Iterable[str] = (),
        address: str = "127.0.0.1",
        port: int = 0,
        *,
        hostname: str = "mx.acme.example",
        authority: CertificateAuthority | None = None,
    ) -> None:
        super().__init__(address, port, hostname=hostname, authority=authority)
        self.mailboxes = set(mailboxes)
        self.mode: Mode = Mode.NORMAL

    async def set_mode(self, mode: Mode | str) -> None:
        """Answer in another way from now on; UNREACHABLE stops listening, any other mode starts it again."""
        self.mode = Mode(mode)
        self.behaviour = Behaviour(action=Action.DEFER) if self.mode is Mode.DEFER_ALL else ACCEPT
        if self.mode is Mode.UNREACHABLE:
            await self.stop()
        elif not self.listening:
            await self.start()

    @property
    def probes(self) -> list[Probe]:
        """Every call-out so far."""
        return [
            Probe(recipient=step.argument, reply=step.reply, peer=step.peer, helo=step.helo, at=step.at)
            for step in self.commands
            if step.verb == "RCPT" and not step.sender
        ]

    def rcpt_reply(self, sender: str, recipient: str) -> str:
        """By the list of mailboxes and the mode."""
        if self.mode is Mode.BLOCK_PROBES and not sender:
            return "550 5.7.1 Address verification is not welcome here"
        known = {address.lower() for address in self.mailboxes}
        if self.mode is Mode.ACCEPT_ALL or recipient.lower() in known:
            return super().rcpt_reply(sender, recipient)
        return _NO_SUCH_MAILBOX.format(recipient)
