"""The database's tables and how an older file becomes a current one.

What waits is small and changes all the time; what ended only grows. So `messages` and `recipients` have a row only
while something waits, and `events` keeps what the reports need, one row per recipient and outcome, in full.

A recipient's number is its message's number shifted left by 16 plus its place in the envelope (the queries write
the 16 out): the recipients of a message are a range of the primary key, and numbers grow in the order of arrival.
That leaves one index on the queue, by time of the next attempt.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path
from typing import Final

from malote_relay.store import pauses, suppressions
from malote_relay.store.model import StoreError

RECIPIENT_BITS: Final = 16
MAX_RECIPIENTS: Final = 1 << RECIPIENT_BITS

PAGE: Final = 8192
"""Octets of a page: a message of ordinary size in few of them."""

EIGHT_BIT: Final = 1
SMTPUTF8: Final = 2
SENDER_UNKNOWN: Final = 4

_TABLES = """
CREATE TABLE messages (
    seq INTEGER PRIMARY KEY,        -- order of arrival
    id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    reverse_path TEXT NOT NULL,
    header_from TEXT NOT NULL,
    header_message_id TEXT NOT NULL,
    size INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    received_at REAL NOT NULL,
    content BLOB                    -- NULL: the file spool/ID. So late that reading those before never touches it
);
CREATE TABLE recipients (
    id INTEGER PRIMARY KEY,         -- messages.seq << 16 | place in the envelope
    address TEXT NOT NULL,
    domain TEXT NOT NULL,           -- of the address, lower case
    hour INTEGER,                   -- charged to; NULL: a message of the relay's own
    released_at REAL NOT NULL,
    next_attempt_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0
);
-- Ends with the domain, so that a full destination's recipients are skipped without being read.
CREATE INDEX recipients_by_time ON recipients (next_attempt_at, id, domain);
CREATE TABLE hours (
    hour INTEGER PRIMARY KEY,
    charged INTEGER NOT NULL,
    held INTEGER NOT NULL           -- how much of it was accepted in an earlier hour
);
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    message TEXT NOT NULL,
    account TEXT NOT NULL,
    reverse_path TEXT NOT NULL,
    header_from TEXT NOT NULL,
    recipient TEXT NOT NULL,
    domain TEXT NOT NULL,
    status TEXT NOT NULL,           -- delivered, deferred, failed; told of later: bounced, complained
    bounce_class TEXT NOT NULL,
    reply TEXT NOT NULL,
    host TEXT NOT NULL,
    tls TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    received_at REAL NOT NULL,
    size INTEGER NOT NULL,
    flags INTEGER NOT NULL
);
CREATE INDEX events_by_time ON events (at);
"""

_DSN = """
ALTER TABLE recipients ADD COLUMN dsn TEXT NOT NULL DEFAULT '';  -- what the client asked for (see `requests`)
ALTER TABLE recipients ADD COLUMN told_of_delay INTEGER NOT NULL DEFAULT 0;
"""

_ASKING = """
ALTER TABLE recipients ADD COLUMN last_reply TEXT NOT NULL DEFAULT '';  -- to the last attempt; '' before the first
-- What became of a message: 35 octets an event and 2.4 microseconds, without which a question reads days of events.
CREATE INDEX events_by_message ON events (message);
"""

_TLS = """
CREATE TABLE mta_sts (
    domain TEXT PRIMARY KEY,
    policy_id TEXT NOT NULL,
    body BLOB NOT NULL,             -- the policy as fetched
    fetched_at REAL NOT NULL
);
CREATE TABLE tls_results (
    day INTEGER NOT NULL,           -- UTC, days since the epoch
    domain TEXT NOT NULL,           -- the recipients'
    policy TEXT NOT NULL,           -- JSON: what the session was measured by
    result TEXT NOT NULL,           -- '' for success, else RFC 8460's name for what went wrong
    mx TEXT NOT NULL,
    mx_address TEXT NOT NULL,
    local_address TEXT NOT NULL,
    detail TEXT NOT NULL,
    sessions INTEGER NOT NULL,
    UNIQUE (day, domain, policy, result, mx, mx_address, local_address, detail)
);
"""

_CLOCK = """
CREATE TABLE clock (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    latest_hour INTEGER NOT NULL    -- that mail was accepted in, or times were set by: it does not reopen
);
"""

_TOLD_LATER = """
ALTER TABLE events ADD COLUMN dsn TEXT NOT NULL DEFAULT '';  -- as the recipient's: a bounce may be told of much later
"""

_ANSWER = """
ALTER TABLE recipients ADD COLUMN last_class TEXT NOT NULL DEFAULT '';  -- of last_reply; '': by an older release
ALTER TABLE recipients ADD COLUMN last_host TEXT NOT NULL DEFAULT '';   -- whose words it is; '': the relay's own
"""

_CHECKSUM = """
ALTER TABLE messages ADD COLUMN checksum INTEGER;   -- CRC-32 of the content; NULL: kept by an older release
"""

MIGRATIONS: Final[tuple[str, ...]] = (
    _TABLES,
    _DSN,
    _ASKING,
    suppressions.TABLE + pauses.TABLE,
    _TLS,
    _CLOCK,
    _TOLD_LATER,
    _ANSWER,
    _CHECKSUM,
    suppressions.AFTER_DELIVERY,
)
"""Script number n turns version n into n + 1; `PRAGMA user_version` says where a file stands."""

_STATEMENTS: Final = 320
"""Statements kept prepared: some have a text for each number of rows in them (`transactions`)."""

_OLDEST_SQLITE: Final = (3, 35, 0)  # RETURNING


def connect(path: Path, *, read_only: bool = False, journal: str = "WAL") -> sqlite3.Connection:
    """A connection with explicit transactions, usable from the one thread that owns it at a time.

    Write-ahead log (unless another `journal` mode is wanted) with a sync at every commit: what is committed survives
    the loss of power.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old: 3.35 or newer is needed")
    if not read_only:
        path.touch(mode=0o600)  # the log and the index beside it get the same mode
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=30.0, cached_statements=_STATEMENTS
    )
    # A bit that flipped in a text goes unseen by SQLite, and must not keep whoever reads the queue from going on.
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")
    try:
        # What a statement may have to undo, and what it sorts, would go to files in /var/tmp or /tmp otherwise. Where
        # the root is read-only there are none: what changes more than some pages would fail.
        connection.execute("PRAGMA temp_store = MEMORY")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
            return connection
        if not path.stat().st_size:  # for others it would be too late, and the second would write all the same
            connection.execute(f"PRAGMA page_size = {PAGE}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # free pages can be given back
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = FAST")
        connection.execute("PRAGMA wal_autocheckpoint = 2000")
        connection.execute(f"PRAGMA journal_size_limit = {64 * 1024 * 1024}")
    except BaseException:
        connection.close()
        raise
    return connection


def known_version(connection: sqlite3.Connection) -> int:
    """The version of a database. Raises StoreError for one from a newer release."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StoreError(
            f"the spool was written by a newer release (its version is {version}, this one knows {len(MIGRATIONS)}): "
            "run that release, and keep the spool: what is queued is nowhere else"
        )
    return version


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a database to the current version. Raises StoreError for one from a newer release."""
    version = known_version(connection)
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")


def missing(connection: sqlite3.Connection) -> list[str]:
    """What a database of the current version must have and this one has not: tables, columns, indexes."""
    fresh = sqlite3.connect(":memory:", isolation_level=None)
    try:
        migrate(fresh)
        return sorted(_parts(fresh) - _parts(connection))
    finally:
        fresh.close()


def _parts(connection: sqlite3.Connection) -> set[str]:
    columns = connection.execute(
        "SELECT CAST('column ' || t.name || '.' || c.name AS BLOB)"
        " FROM sqlite_schema AS t, pragma_table_info(t.name) AS c WHERE t.type = 'table'"
    )
    indexes = connection.execute(
        "SELECT CAST('index ' || name AS BLOB) FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
    )
    return {name.decode(errors="replace") for (name,) in (*columns, *indexes)}  # a damaged name need be no text
