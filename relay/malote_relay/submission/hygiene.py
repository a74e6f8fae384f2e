"""What a submission server sets right in a message (RFC 6409 section 8), before it is signed.

Date and Message-ID are added when missing, and replaced when they are written as no reader could understand them;
Bcc and Return-Path go, and a Received field records the hand-over. It names neither the client's address, unless the
configuration wants it, nor its account, nor the host it submits to: where a tenant's application runs is nobody's
business, a user name is half of what signing in takes, and to the world the relay has one name, that of its egress.

Octets beyond ASCII in the header are left as they are when the client did not ask for SMTPUTF8: so many programs
send them, and so many hosts take them, that refusing or rewriting would do more harm (Postfix does the same). Only
where an address is read must they be UTF-8.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from malote_relay.submission.headers import Field

MAX_RECEIVED = 50
"""RFC 5321 section 6.3: at least 100 is the old advice; a submission that has passed 50 servers goes in circles."""

_REMOVED = frozenset((b"bcc", b"resent-bcc", b"return-path"))
"""Return-Path is written by the server that delivers, from the envelope (RFC 5321 section 4.4)."""

_DATE: Final = re.compile(
    r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\s*,)?\s*[0-9]{1,2}\s+"
    r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\s+[0-9]{2,4}\s+"
    r"[0-9]{1,2}\s*:\s*[0-9]{2}(?:\s*:\s*[0-9]{2})?\s+(?:[+-][0-9]{4}|[A-Z]{1,5})\s*(?:\(.*\))?",
    re.IGNORECASE,
)
"""RFC 5322 section 3.3, with the obsolete forms that are still seen."""

_MESSAGE_ID: Final = re.compile("<[!-;=?A-~\u0080-\U0010ffff]+@[!-;=?A-~\u0080-\U0010ffff]+>")
"""RFC 5322 section 3.6.4, read generously: what programs use to thread and to trace must stay what it was."""

_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,253}[A-Za-z0-9])?|\[(?:IPv6:)?[0-9A-Fa-f:.]{2,45}\]")

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def date(at: float) -> str:
    """A date-time as RFC 5322 section 3.3 writes it, in UTC."""
    return _date(int(at))


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    moment = time.gmtime(second)
    return (
        f"{_DAYS[moment.tm_wday]}, {moment.tm_mday:02d} {_MONTHS[moment.tm_mon - 1]} {moment.tm_year} "
        f"{moment.tm_hour:02d}:{moment.tm_min:02d}:{moment.tm_sec:02d} +0000"
    )


def is_looping(fields: Sequence[Field]) -> bool:
    """Whether the message has passed through too many servers."""
    return len(fields) > MAX_RECEIVED and sum(field.name == b"received" for field in fields) > MAX_RECEIVED


@dataclass(frozen=True, slots=True)
class Client:
    """Who hands a message over: what it called itself, and its address."""

    name: str
    address: str

    @property
    def clause(self) -> str:
        """The from-clause of Received (RFC 5321 section 4.4); a name that is none is not repeated."""
        literal = f"[IPv6:{self.address}]" if ":" in self.address else f"[{self.address}]"
        return f"from {self.name if _HOST.fullmatch(self.name) else literal} ({literal})"


def prepared(
    fields: Sequence[Field],
    *,
    by: str,
    protocol: str,
    queue_id: str,
    from_domain: str,
    at: float,
    client: Client | None = None,
) -> tuple[bytes, str]:
    """The header section to send (without the empty line), and the Message-ID in it.

    `by` is the name under which the relay meets the world; `client` is named only when given.
    """
    now = date(at)
    origin = f"{client.clause}\r\n\t" if client is not None else ""
    parts = [f"Received: {origin}by {by} with {protocol} id {queue_id};\r\n\t{now}\r\n".encode()]
    message_id = ""
    has_date = False
    for field in fields:
        if field.name in _REMOVED:
            continue
        if field.name == b"message-id":
            text = _unfolded(field)
            if not _MESSAGE_ID.fullmatch(text):
                continue
            message_id = text
        elif field.name == b"date":
            if not _DATE.fullmatch(_unfolded(field)):
                continue
            has_date = True
        parts.append(field.raw)
    if not message_id:
        message_id = f"<{queue_id}@{from_domain}>"
        parts.append(f"Message-ID: {message_id}\r\n".encode())
    if not has_date:
        parts.append(f"Date: {now}\r\n".encode())
    return b"".join(parts), message_id


def _unfolded(field: Field) -> str:
    return field.raw.partition(b":")[2].replace(b"\r\n", b"").decode("utf-8", "replace").strip(" \t")
