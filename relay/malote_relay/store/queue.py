"""What people and sweeps ask of the queue: who waits, what became of a message, and changes to when it is tried.

For `model.Tables`: every function takes an open connection. Long lists are read in steps of a bounded number of rows
*looked at*, not found, so that no question keeps the store's other readers waiting, however few rows it fits.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from malote_relay.store.model import Queued
from malote_relay.store.requests import unpacked
from malote_relay.store.schema import EIGHT_BIT, SMTPUTF8

STEP: Final = 1000
"""Rows looked at in one step."""

_COLUMNS: Final = (
    "r.id, m.id, r.address, m.reverse_path, m.account, m.size, m.flags, m.received_at, r.released_at, r.attempts,"
    " r.next_attempt_at, r.dsn, r.told_of_delay, r.last_reply, r.last_class, r.last_host"
)


@dataclass(frozen=True, slots=True)
class Waiter:
    """A recipient that waits, and the answer to its last attempt ("": there was none).

    `last_class` is what it was taken to mean ("" if an older release wrote it down); `last_host` who gave it, "" when
    it is the relay's own finding.
    """

    queued: Queued
    last_reply: str
    last_class: str = ""
    last_host: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which recipients are wanted: all whose parts are equal to those given. `state` is ready, deferred or held."""

    domain: str = ""
    account: str | None = None
    state: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to a recipient of a message, as the reports have it."""

    at: float
    recipient: str
    status: str
    bounce_class: str
    reply: str
    host: str
    tls: str
    attempt: int
    account: str
    reverse_path: str
    received_at: float
    size: int


def step(
    connection: sqlite3.Connection, after: int, wanted: Filter, now: float, rows: int = STEP
) -> tuple[list[Waiter], int | None]:
    """Those wanted among the next `rows` recipients after number `after`, in the order of arrival.

    And the number to go on from, None at the end of the queue.
    """
    looked = "SELECT id FROM recipients WHERE id > ? ORDER BY id LIMIT ?"
    last, count = connection.execute(f"SELECT max(id), count(*) FROM ({looked})", (after, rows)).fetchone()  # noqa: S608
    if last is None:
        return [], None
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM recipients AS r CROSS JOIN messages AS m ON m.seq = r.id >> 16"  # noqa: S608
        " WHERE r.id > ?1 AND r.id <= ?2 AND (?3 = '' OR r.domain = ?3) AND (?5 = '' OR ?5 ="
        "  CASE WHEN r.attempts > 0 THEN 'deferred' WHEN r.next_attempt_at > ?6 THEN 'held' ELSE 'ready' END)"
        " AND (?4 IS NULL OR m.account = ?4) ORDER BY r.id",
        (after, last, wanted.domain.lower(), wanted.account, wanted.state, now),
    )
    return [_waiter(row) for row in found], last if count == rows else None


def waiters(connection: sqlite3.Connection, message: str, after: int = 0, rows: int = STEP) -> list[Waiter]:
    """Those of a message who wait and have numbers greater than `after`; at most `rows`."""
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM messages AS m CROSS JOIN recipients AS r"  # noqa: S608
        " ON r.id BETWEEN m.seq << 16 AND (m.seq << 16) + 65535"
        " WHERE m.id = ? AND r.id > ? ORDER BY r.id LIMIT ?",
        (message, after, rows),
    )
    return [_waiter(row) for row in found]


def endings(
    connection: sqlite3.Connection, message: str, after: int = 0, rows: int = STEP
) -> list[tuple[int, Event]]:
    """How it ended for those of a message for whom it has, with the events' numbers; as `waiters`."""
    found = connection.execute(
        "SELECT id, at, recipient, status, bounce_class, reply, host, tls, attempt, account, reverse_path,"
        " received_at, size FROM events WHERE message = ? AND id > ? AND status <> 'deferred' ORDER BY id LIMIT ?",
        (message, after, rows),
    )
    return [(number, Event(*rest)) for number, *rest in found]


def bring_due(connection: sqlite3.Connection, numbers: Sequence[int], now: float) -> int:
    """Let those of these recipients that were deferred be tried now; how many. What is held stays held."""
    changed = 0
    for number in numbers:
        changed += connection.execute(
            "UPDATE recipients SET next_attempt_at = ?1 WHERE id = ?2 AND attempts > 0 AND next_attempt_at > ?1",
            (now, number),
        ).rowcount
    return changed


def _waiter(row: Sequence[Any]) -> Waiter:
    *plain, dsn, told_of_delay, last_reply, last_class, last_host = row
    number, message, address, reverse_path, account, size, flags, received_at, released_at, attempts, next_at = plain
    queued = Queued(
        id=number,
        message_id=message,
        address=address,
        reverse_path=reverse_path,
        account=account,
        size=size,
        eight_bit=bool(flags & EIGHT_BIT),
        smtputf8=bool(flags & SMTPUTF8),
        received_at=received_at,
        released_at=released_at,
        attempts=attempts,
        next_attempt_at=next_at,
        dsn=unpacked(dsn),
        told_of_delay=bool(told_of_delay),
    )
    return Waiter(queued, last_reply, last_class, last_host)
