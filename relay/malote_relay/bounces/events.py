"""The message that a report is about, found among the events, and the event that is added to them.

An event added here has the status `bounced` or `complained` and is otherwise a copy of the delivery's.
"""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from malote_relay.returnpath import mark_of

_EVENT = "account, reverse_path, header_from, recipient, domain, tls, attempt, received_at, size, flags"
_QUEUED = (
    "m.account, m.reverse_path, m.header_from, r.address, r.domain, '', r.attempts + 1, m.received_at, m.size,"
    " m.flags"
)


class Status(enum.StrEnum):
    """What is told of a message after its delivery."""

    BOUNCED = "bounced"
    COMPLAINED = "complained"


@dataclass(frozen=True, slots=True)
class Report:
    """What was told, and of which message; the recipient by a mark or by the address, or not at all."""

    status: Status
    at: float
    message: str
    bounce_class: str
    words: str
    host: str
    mark: bytes = b""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Matched:
    """Whom a report is about. `known` when the same was told before."""

    account: str
    recipient: str
    known: bool


def recording(report: Report) -> Callable[[sqlite3.Connection], Matched | None]:
    """What writes the report down, and gives whom it is about; None when that is not known, or no longer."""
    return lambda connection: _record(connection, report)


def _record(connection: sqlite3.Connection, report: Report) -> Matched | None:
    rows = connection.execute(
        f"SELECT {_EVENT} FROM events WHERE message = ?1"  # noqa: S608  # our own columns
        # A report may be quicker than the writing down of the delivery that it is about.
        f" UNION ALL SELECT {_QUEUED} FROM messages AS m JOIN recipients AS r"
        " ON r.id BETWEEN m.seq << 16 AND (m.seq << 16) + 65535 WHERE m.id = ?1",
        (report.message,),
    ).fetchall()
    by_recipient = {row[3]: row for row in rows}
    row = _about(report, by_recipient)
    if row is None:
        return None
    (known,) = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM events WHERE message = ? AND recipient = ? AND status = ?)",
        (report.message, row[3], report.status.value),
    ).fetchone()
    if not known:
        connection.execute(
            f"INSERT INTO events (at, message, status, bounce_class, reply, host, {_EVENT})"  # noqa: S608
            f" VALUES ({', '.join('?' * (6 + len(row)))})",
            (report.at, report.message, report.status.value, report.bounce_class, report.words, report.host, *row),
        )
    return Matched(row[0], row[3], bool(known))


def _about(report: Report, by_recipient: dict[str, tuple[object, ...]]) -> tuple[str, ...] | None:
    """The row of the recipient: by mark, by address, or because there is only one."""
    for recipient, row in by_recipient.items():
        if report.mark == mark_of(recipient) or report.address.lower() == recipient.lower():
            return row  # type: ignore[return-value]  # as it came from the database
    if len(by_recipient) == 1 and not report.mark:
        return next(iter(by_recipient.values()))  # type: ignore[return-value]
    return None
