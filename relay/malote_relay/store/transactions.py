"""The store's SQL: what a transaction writes, and the queries.

Every function takes an open connection (inside a transaction, when it writes) and knows neither threads nor files.
Rows of many messages go into one statement: a step of SQLite releases the interpreter's lock and has to wait
for it afterwards, so that few large statements cost much less than many small ones beside a busy event loop.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from malote_relay.store.contents import checksum
from malote_relay.store.model import (
    ClockBack,
    Hour,
    HourCharge,
    NewMessage,
    Outcome,
    Queued,
    Respread,
    Result,
)
from malote_relay.store.names import domain_of
from malote_relay.store.requests import packed, unpacked
from malote_relay.store.schema import (
    EIGHT_BIT,
    RECIPIENT_BITS,
    SENDER_UNKNOWN,
    SMTPUTF8,
)

_CHUNK: Final = 32
"""Rows in one statement: enough to amortise a step, few enough texts for the cache of prepared statements."""
_SECONDS_PER_HOUR: Final = 3600.0

_Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """A message with its place in the order of arrival. `charged` is false for the relay's own."""

    seq: int
    message: NewMessage
    charged: bool
    in_file: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """What recording outcomes changed.

    Recipients gone and how many of them had been deferred; newly deferred ones; messages now complete, and those of
    them whose content is a file; of those gone who had not been deferred, how many each hour was charged.
    """

    recipients: int
    were_deferred: int
    newly_deferred: int
    messages: tuple[str, ...]
    files: tuple[str, ...]
    by_hour: Mapping[Hour, int] = field(default_factory=dict)


def _chunks(rows: Sequence[_Row]) -> Iterator[Sequence[_Row]]:
    for start in range(0, len(rows), _CHUNK):
        yield rows[start : start + _CHUNK]


def _values(rows: Sequence[_Row]) -> str:
    one = "(" + ",".join("?" * len(rows[0])) + ")"
    return ",".join([one] * len(rows))


def _flat(rows: Sequence[_Row]) -> list[Any]:
    return [value for row in rows for value in row]


def insert(connection: sqlite3.Connection, batch: Sequence[Kept]) -> list[list[Queued]]:
    """Write messages, recipients and the hours' charges; the recipients as queued, message by message."""
    messages: list[_Row] = []
    recipients: list[_Row] = []
    hours: Counter[Hour] = Counter()
    held: Counter[Hour] = Counter()
    answer = []
    for kept in batch:
        message = kept.message
        messages.append(
            (
                kept.seq,
                message.id,
                message.account,
                message.reverse_path,
                message.header_from,
                message.message_id,
                message.size,
                message.eight_bit * EIGHT_BIT | message.smtputf8 * SMTPUTF8 | message.sender_unknown * SENDER_UNKNOWN,
                message.received_at,
                None if kept.in_file else message.content,
                checksum(message.content)
                if message.checksum is None and isinstance(message.content, bytes)
                else message.checksum,
            )
        )
        queued = []
        base = kept.seq << RECIPIENT_BITS
        for place, recipient in enumerate(message.recipients):
            released_at = max(message.received_at, recipient.not_before)
            hour = recipient.hour if kept.charged else None
            address = recipient.address
            dsn = packed(recipient.dsn)
            recipients.append((base + place, address, domain_of(address), hour, released_at, released_at, dsn))
            if kept.charged:
                hours[recipient.hour] += 1
                if recipient.not_before > 0:
                    held[recipient.hour] += 1
            queued.append(
                Queued(
                    base + place,
                    message.id,
                    recipient.address,
                    message.reverse_path,
                    message.account,
                    message.size,
                    message.eight_bit,
                    message.smtputf8,
                    message.received_at,
                    released_at,
                    0,
                    released_at,
                    recipient.dsn,
                )
            )
        answer.append(queued)
    for chunk in _chunks(messages):
        connection.execute(f"INSERT INTO messages VALUES {_values(chunk)}", _flat(chunk))  # noqa: S608 - only "?"
    for chunk in _chunks(recipients):
        connection.execute(
            "INSERT INTO recipients (id, address, domain, hour, released_at, next_attempt_at, dsn)"  # noqa: S608
            f" VALUES {_values(chunk)}",
            _flat(chunk),
        )
    _charge(connection, [(hour, count, held[hour]) for hour, count in hours.items()])
    return answer


def _charge(connection: sqlite3.Connection, rows: Sequence[_Row]) -> None:
    connection.executemany(
        "INSERT INTO hours VALUES (?, ?, ?) ON CONFLICT (hour) DO UPDATE "
        "SET charged = charged + excluded.charged, held = held + excluded.held",
        rows,
    )


def record(connection: sqlite3.Connection, outcomes: Sequence[Outcome]) -> Ended:
    """Write events, remove what ended, set the next attempt of what did not.

    Outcomes of recipients that are gone are ignored.
    """
    events: list[_Row] = []
    ended: list[int] = []
    deferred: list[_Row] = []
    for outcome in outcomes:
        recipient = outcome.recipient
        events.append(
            (
                recipient.id,
                outcome.at,
                outcome.result.value,
                outcome.bounce_class,
                outcome.reply,
                outcome.host,
                outcome.tls,
            )
        )
        if outcome.result is Result.DEFERRED:
            deferred.append(
                (
                    recipient.id,
                    outcome.next_attempt_at,
                    outcome.told_of_delay,
                    outcome.reply,
                    outcome.bounce_class,
                    "" if outcome.own else outcome.host,
                )
            )
        else:
            ended.append(recipient.id)
    for chunk in _chunks(events):
        connection.execute(
            "INSERT INTO events (at, message, account, reverse_path, header_from, recipient, domain, status,"  # noqa: S608
            " bounce_class, reply, host, tls, attempt, received_at, size, flags, dsn)"
            " SELECT v.column2, m.id, m.account, m.reverse_path, m.header_from, r.address, r.domain, v.column3,"
            " v.column4, v.column5, v.column6, v.column7, r.attempts + 1, m.received_at, m.size, m.flags,"
            " r.dsn"
            f" FROM (VALUES {_values(chunk)}) AS v CROSS JOIN recipients AS r ON r.id = v.column1"
            " CROSS JOIN messages AS m ON m.seq = r.id >> 16",
            _flat(chunk),
        )
    newly_deferred = 0
    for chunk in _chunks(deferred):
        rows = connection.execute(
            "UPDATE recipients SET attempts = attempts + 1, next_attempt_at = v.column2,"  # noqa: S608
            " told_of_delay = max(told_of_delay, v.column3), last_reply = v.column4,"
            " last_class = v.column5, last_host = v.column6"
            f" FROM (VALUES {_values(chunk)}) AS v WHERE recipients.id = v.column1 RETURNING attempts",
            _flat(chunk),
        ).fetchall()
        newly_deferred += sum(attempts == 1 for (attempts,) in rows)
    gone, were_deferred = 0, 0
    by_hour: Counter[Hour] = Counter()
    for chunk in _chunks([(recipient,) for recipient in ended]):
        rows = connection.execute(
            f"DELETE FROM recipients WHERE id IN ({','.join('?' * len(chunk))}) RETURNING attempts, hour",  # noqa: S608
            _flat(chunk),
        ).fetchall()
        gone += len(rows)
        were_deferred += sum(attempts > 0 for attempts, _ in rows)
        by_hour.update(hour for attempts, hour in rows if not attempts and hour is not None)
    complete: list[tuple[str, bool]] = []
    for chunk in _chunks([(seq,) for seq in sorted({recipient >> RECIPIENT_BITS for recipient in ended})]):
        complete += connection.execute(
            f"DELETE FROM messages WHERE seq IN ({','.join('?' * len(chunk))})"  # noqa: S608
            " AND NOT EXISTS (SELECT 1 FROM recipients"
            " WHERE recipients.id BETWEEN seq << 16 AND (seq << 16) + 65535)"
            " RETURNING id, content IS NULL",
            _flat(chunk),
        ).fetchall()
    return Ended(
        gone,
        were_deferred,
        newly_deferred,
        tuple(message for message, _ in complete),
        tuple(message for message, in_file in complete if in_file),
        by_hour,
    )


def move_held(connection: sqlite3.Connection, plan: Respread) -> dict[Hour, int] | None:
    """Give held recipients their new hours; how many each later hour holds then.

    None when a later hour has begun meanwhile: the plan had to wait for room for too long. What it would have put off
    is on its way, and what was accepted since is not its own.

    The database decides what is held: should it have more than the plan says, the rest goes to the plan's last hour.
    """
    if connection.execute("SELECT 1 FROM clock WHERE latest_hour > ?", (plan.current,)).fetchone():
        return None
    held = connection.execute(
        "SELECT id FROM recipients WHERE next_attempt_at >= ? AND attempts = 0 AND hour > ? ORDER BY hour, id",
        ((plan.current + 1) * _SECONDS_PER_HOUR, plan.current),
    ).fetchall()
    slots = [hour for hour, count in plan.hours for _ in range(count)] or [plan.current + 1]
    slots += slots[-1:] * (len(held) - len(slots))
    connection.executemany(
        "UPDATE recipients SET hour = ?1, (released_at, next_attempt_at) ="
        " (SELECT max(received_at, ?2), max(received_at, ?2) FROM messages WHERE seq = ?3 >> 16)"
        " WHERE id = ?3",
        [(hour, hour * _SECONDS_PER_HOUR, recipient) for hour, (recipient,) in zip(slots, held, strict=False)],
    )
    moved = Counter(slots[: len(held)])
    connection.execute("DELETE FROM hours WHERE hour > ?", (plan.current,))
    _charge(connection, [(hour, count, count if hour > plan.current else 0) for hour, count in moved.items()])
    return {hour: count for hour, count in moved.items() if hour > plan.current}


def bring_forward(connection: sqlite3.Connection, clock: ClockBack) -> int:
    """Let nothing wait longer than it would by a clock that never ran ahead; how many recipients were moved."""
    released = connection.execute(
        "UPDATE recipients SET next_attempt_at = ?1, released_at = min(released_at, ?1)"
        " WHERE next_attempt_at > ?1 AND attempts = 0 AND (hour IS NULL OR hour <= ?2)",
        (clock.now, clock.current),
    ).rowcount
    deferred = connection.execute(
        "UPDATE recipients SET next_attempt_at = ?1 WHERE next_attempt_at > ?1 AND attempts > 0", (clock.latest,)
    ).rowcount
    return released + deferred


def prune(connection: sqlite3.Connection, before: float, limit: int) -> int:
    """Drop at most `limit` events older than `before`, oldest first, and the hours that ended before it."""
    # Indexes of events are not compared at the start: one that has lost an entry must not keep its row for ever, and
    # with it all later ones. (In this mode SQLite does not mind; it changes nothing else here.)
    connection.execute("PRAGMA writable_schema = ON")
    try:
        events = connection.execute(
            "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE at < ? ORDER BY at LIMIT ?)", (before, limit)
        ).rowcount
    finally:
        connection.execute("PRAGMA writable_schema = OFF")
    hours = connection.execute("DELETE FROM hours WHERE (hour + 1) * 3600.0 <= ?", (before,)).rowcount
    return events + hours


def give_back(connection: sqlite3.Connection, pages: int) -> int:
    """Cut at most so many unused pages off the database's file (at the next checkpoint); how many.

    None of a file that an older release has made.
    """

    def size() -> int:
        (count,) = connection.execute("PRAGMA page_count").fetchone()
        return int(count)

    before = size()
    for _ in range(pages):  # a call with a greater number would do one page, too: nobody asks it for the next
        connection.execute("PRAGMA incremental_vacuum(1)")
    return before - size()


def due(
    connection: sqlite3.Connection, now: float, limit: int, excluding: Iterable[int], domains: Iterable[str]
) -> list[Queued]:
    """Recipients whose time has come, by time and then arrival. Walks the index; contents are never read."""
    rows = connection.execute(
        "SELECT r.id, m.id, r.address, m.reverse_path, m.account, m.size, m.flags, m.received_at,"
        " r.released_at, r.attempts, r.next_attempt_at, r.dsn, r.told_of_delay"
        " FROM (SELECT * FROM recipients INDEXED BY recipients_by_time WHERE next_attempt_at <= ?1"
        " AND id NOT IN (SELECT value FROM json_each(?2)) AND domain NOT IN (SELECT value FROM json_each(?3))"
        " ORDER BY next_attempt_at, id LIMIT ?4) AS r"
        " CROSS JOIN messages AS m ON m.seq = r.id >> 16 ORDER BY r.next_attempt_at, r.id",
        (now, json.dumps(list(excluding)), json.dumps(list(domains)), limit),
    )
    return [
        Queued(
            number,
            message,
            address,
            reverse_path,
            account,
            size,
            bool(flags & EIGHT_BIT),
            bool(flags & SMTPUTF8),
            received_at,
            released_at,
            attempts,
            next_attempt_at,
            unpacked(dsn),
            bool(told_of_delay),
        )
        for (
            number,
            message,
            address,
            reverse_path,
            account,
            size,
            flags,
            received_at,
            released_at,
            attempts,
            next_attempt_at,
            dsn,
            told_of_delay,
        ) in rows
    ]


def next_time(connection: sqlite3.Connection, after: float) -> float | None:
    """The earliest attempt time later than `after`."""
    (earliest,) = connection.execute(
        "SELECT min(next_attempt_at) FROM recipients WHERE next_attempt_at > ?", (after,)
    ).fetchone()
    return None if earliest is None else float(earliest)


def content(connection: sqlite3.Connection, message: str) -> tuple[bytes | None, int, int | None]:
    """A message's content (None: it is a file), its size and its checksum. Raises KeyError when it is gone."""
    row: tuple[bytes | None, int, int | None] | None = connection.execute(
        "SELECT content, size, checksum FROM messages WHERE id = ?", (message,)
    ).fetchone()
    if row is None:
        raise KeyError(message)
    return row


def oldest(connection: sqlite3.Connection) -> float | None:
    """When the message that waits longest was accepted."""
    row = connection.execute("SELECT received_at FROM messages ORDER BY seq LIMIT 1").fetchone()
    return None if row is None else float(row[0])


def hours(connection: sqlite3.Connection) -> tuple[Hour, Mapping[Hour, HourCharge]]:
    """The latest hour that was in force, and the charges from it on."""
    (latest,) = connection.execute(
        "SELECT max(coalesce((SELECT latest_hour FROM clock), 0),"
        " coalesce((SELECT max(hour) FROM hours WHERE charged > held), 0))"
    ).fetchone()
    rows = connection.execute("SELECT hour, charged, held FROM hours WHERE hour >= ?", (latest,))
    return latest, {hour: HourCharge(charged, held) for hour, charged, held in rows}


def begun(connection: sqlite3.Connection, hour: Hour) -> None:
    """Keep that an hour has begun: it is in force after a restart, too, whatever the clock says then."""
    connection.execute(
        "INSERT INTO clock VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET latest_hour = max(latest_hour, ?1)", (hour,)
    )


def waiting(connection: sqlite3.Connection) -> tuple[int, int, dict[Hour, int]]:
    """Recipients that wait, how many of them were deferred, and how many each hour holds: counted row by row."""
    total, deferred = connection.execute("SELECT count(*), coalesce(sum(attempts > 0), 0) FROM recipients").fetchone()
    held = connection.execute(
        "SELECT hour, count(*) FROM recipients"
        " WHERE attempts = 0 AND hour IS NOT NULL AND next_attempt_at = hour * 3600.0 GROUP BY hour"
    )
    return total, deferred, dict(held.fetchall())


def last_seq(connection: sqlite3.Connection) -> int:
    """The number of the newest message that waits; later ones must have greater numbers."""
    (seq,) = connection.execute("SELECT coalesce(max(seq), 0) FROM messages").fetchone()
    return int(seq)
