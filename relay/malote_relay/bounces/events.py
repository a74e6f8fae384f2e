"""The message that a report is about, found among the events, and the event that is added to them.

An event added here has the status `bounced` or `complained` and is otherwise a copy of the delivery's.
"""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from malote_relay.returnpath import mark_of
from malote_relay.store.model import NO_DSN, DsnRequest, Queued, Result
from malote_relay.store.requests import unpacked
from malote_relay.store.schema import EIGHT_BIT, SMTPUTF8

_EVENT = "account, reverse_path, header_from, recipient, domain, tls, attempt, received_at, size, flags, dsn"
_QUEUED = (
    "m.account, m.reverse_path, m.header_from, r.address, r.domain, '', r.attempts + 1, m.received_at, m.size,"
    " m.flags, r.dsn"
)

_Row = Sequence[Any]


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
    """Whom a report is about: `queued` as it was when it was delivered.

    `known` when the same was told before; `told` when its sender has heard that it failed.
    """

    queued: Queued
    known: bool
    told: bool

    @property
    def account(self) -> str:
        """Whose message it was."""
        return self.queued.account

    @property
    def recipient(self) -> str:
        """Whose copy it is about."""
        return self.queued.address


def looking(report: Report) -> Callable[[sqlite3.Connection], Matched | None]:
    """What finds whom the report is about; None when that is not known, or no longer."""
    return lambda connection: _find(connection, report)[0]


def recording(report: Report) -> Callable[[sqlite3.Connection], Matched | None]:
    """What writes the report down, once, and gives whom it is about; None when that is not known, or no longer."""
    return lambda connection: _record(connection, report)


def _record(connection: sqlite3.Connection, report: Report) -> Matched | None:
    matched, row = _find(connection, report)
    if matched is not None and not matched.known:
        connection.execute(
            f"INSERT INTO events (at, message, status, bounce_class, reply, host, {_EVENT})"  # noqa: S608
            f" VALUES ({', '.join('?' * (6 + len(row)))})",
            (report.at, report.message, report.status.value, report.bounce_class, report.words, report.host, *row),
        )
    return matched


def _find(connection: sqlite3.Connection, report: Report) -> tuple[Matched | None, _Row]:
    """Whom the report is about, and what the events have of it."""
    rows = connection.execute(
        f"SELECT status, {_EVENT} FROM events WHERE message = ?1"  # noqa: S608  # our own columns
        # A report may be quicker than the writing down of the delivery that it is about.
        f" UNION ALL SELECT '', {_QUEUED} FROM messages AS m JOIN recipients AS r"
        " ON r.id BETWEEN m.seq << 16 AND (m.seq << 16) + 65535 WHERE m.id = ?1",
        (report.message,),
    ).fetchall()
    by_recipient = {row[3]: row for _, *row in rows}
    row = _about(report, by_recipient)
    if row is None:
        return None, ()
    statuses = {status for status, *other in rows if other[3] == row[3]}
    told = not statuses.isdisjoint((Result.FAILED.value, Status.BOUNCED.value))
    return Matched(_queued(report.message, row), report.status.value in statuses, told), row


def _about(report: Report, by_recipient: Mapping[str, _Row]) -> _Row | None:
    """The row of the recipient: by mark, by address, or because there is only one."""
    for recipient, row in by_recipient.items():
        if report.mark == mark_of(recipient) or report.address.lower() == recipient.lower():
            return row
    if len(by_recipient) == 1 and not report.mark:
        return next(iter(by_recipient.values()))
    return None


def _queued(message: str, row: _Row) -> Queued:
    account, reverse_path, _, recipient, _, _, attempt, received_at, size, flags, dsn = row
    return Queued(
        id=0,  # it is gone
        message_id=message,
        address=recipient,
        reverse_path=reverse_path,
        account=account,
        size=size,
        eight_bit=bool(flags & EIGHT_BIT),
        smtputf8=bool(flags & SMTPUTF8),
        received_at=received_at,
        released_at=received_at,
        attempts=attempt,
        next_attempt_at=0.0,
        dsn=_request(dsn),
    )


def _request(text: str) -> DsnRequest:
    try:
        return unpacked(text)
    except ValueError:  # damaged: what was asked for is lost, the bounce is not
        return NO_DSN
