"""What a submission server sets right in a message (RFC 6409 section 8), before it is signed.

Date and Message-ID are added when missing, Bcc and Return-Path go, and a Received field records the hand-over. It
names neither the client's address nor the host it submits to: where a tenant's application runs is nobody's
business, and to the world the relay has one name, that of its egress.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache

from malote_relay.submission.headers import Field

MAX_RECEIVED = 50
"""RFC 5321 section 6.3: at least 100 is the old advice; a submission that has passed 50 servers goes in circles."""

_REMOVED = frozenset((b"bcc", b"resent-bcc", b"return-path"))
"""Return-Path is written by the server that delivers, from the envelope (RFC 5321 section 4.4)."""

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


def prepared(
    fields: Sequence[Field], *, by: str, protocol: str, queue_id: str, from_domain: str, at: float
) -> tuple[bytes, str]:
    """The header section to send (without the empty line), and the Message-ID in it.

    `by` is the name under which the relay meets the world.
    """
    now = date(at)
    parts = [f"Received: by {by} with {protocol} id {queue_id};\r\n\t{now}\r\n".encode()]
    message_id = ""
    has_date = False
    for field in fields:
        if field.name in _REMOVED:
            continue
        if field.name == b"message-id":
            message_id = field.raw.partition(b":")[2].decode("utf-8", "replace").strip()
        elif field.name == b"date":
            has_date = True
        parts.append(field.raw)
    if not message_id:
        message_id = f"<{queue_id}@{from_domain}>"
        parts = [part for part in parts if part[:11].lower() != b"message-id:"]
        parts.append(f"Message-ID: {message_id}\r\n".encode())
    if not has_date:
        parts.append(f"Date: {now}\r\n".encode())
    return b"".join(parts), message_id
