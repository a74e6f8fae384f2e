"""The table of paused accounts, and counting from the events: functions on a connection, for `Tables`.

What became of mail is counted from the events, which are kept anyway: no counter has to be written.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from dataclasses import astuple, dataclass
from typing import Final

TABLE: Final = """
CREATE TABLE account_pauses (
    account TEXT PRIMARY KEY,
    since REAL NOT NULL,            -- of the last pause
    until REAL,                     -- NULL: until somebody resumes it
    reason TEXT NOT NULL,
    resumed_at REAL                 -- NULL: still paused
);
"""


@dataclass(frozen=True, slots=True)
class Pause:
    """The last pause of an account."""

    account: str
    since: float
    until: float | None
    reason: str
    resumed_at: float | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """What became of an account's mail within one span of time. `span` is its number."""

    account: str
    span: int
    delivered: int
    bounced: int
    complained: int


def put(connection: sqlite3.Connection, pause: Pause) -> None:
    """Write a pause, in place of what there is for its account."""
    connection.execute("INSERT OR REPLACE INTO account_pauses VALUES (?, ?, ?, ?, ?)", astuple(pause))


def all_of(connection: sqlite3.Connection) -> list[Pause]:
    """The last pause of every account that had one."""
    return [Pause(*row) for row in connection.execute("SELECT * FROM account_pauses")]


def counts(
    connection: sqlite3.Connection, begin: float, end: float, width: float, bounce_classes: Collection[str]
) -> list[Count]:
    """What became of mail in [begin, end), by account and span of `width` seconds.

    Only bounces of the classes given are counted. One that was told of after the delivery (status `bounced`) takes
    the delivery back.
    """
    rows = connection.execute(
        "SELECT account, CAST(at / ?3 AS INTEGER) AS span, sum(status = 'delivered') - sum(counted AND"
        " status = 'bounced'), sum(counted AND status IN ('failed', 'bounced')), sum(status = 'complained')"
        " FROM (SELECT account, at, status, bounce_class IN (SELECT value FROM json_each(?4)) AS counted"
        " FROM events WHERE at >= ?1 AND at < ?2 AND account <> '' AND status <> 'deferred') GROUP BY account, span",
        (begin, end, width, json.dumps(list(bounce_classes))),
    )
    return [Count(*row) for row in rows]
