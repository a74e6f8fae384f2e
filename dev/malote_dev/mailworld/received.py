"""What a mail host keeps of its sessions, for whoever looks at it afterwards: messages, and the steps to them."""

from __future__ import annotations

from dataclasses import dataclass


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
