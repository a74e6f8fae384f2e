"""The suppression list's table: functions on a connection, for `Tables.write` and `Tables.read`.

A row is an address that mail bounced from or complained about, or that somebody put there; one that has bounced too
seldom to be suppressed has a row as well, with `until` 0.
"""

from __future__ import annotations

import enum
import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from dataclasses import astuple, dataclass
from typing import Any, Final

TABLE: Final = """
CREATE TABLE suppressions (
    address TEXT PRIMARY KEY,       -- lower case
    reason TEXT NOT NULL,           -- bounce, complaint, manual
    since REAL NOT NULL,            -- when it entered; before that, its last bounce
    until REAL,                     -- NULL: for ever; 0: only counted so far
    bounce_class TEXT NOT NULL,
    detail TEXT NOT NULL,           -- the reply, or a person's note
    message TEXT NOT NULL,          -- that bounced or was complained about
    bounces INTEGER NOT NULL,       -- since it entered last, or since a delivery that meant something
    times INTEGER NOT NULL          -- that it entered by bounces
);
"""

AFTER_DELIVERY: Final = """
-- Whether its host has taken mail and bounced it later: that it takes more says nothing about the address.
ALTER TABLE suppressions ADD COLUMN after_delivery INTEGER NOT NULL DEFAULT 0;
"""

_COLUMNS: Final = "address, reason, since, until, bounce_class, detail, message, bounces, times, after_delivery"


class Reason(enum.StrEnum):
    """Why an address is on the list."""

    BOUNCE = "bounce"
    COMPLAINT = "complaint"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Entry:
    """One address; see the table. `until` is None for ever, 0.0 for an address that is only counted."""

    address: str
    reason: Reason
    since: float
    until: float | None
    bounce_class: str = ""
    detail: str = ""
    message: str = ""
    bounces: int = 0
    times: int = 0
    after_delivery: bool = False

    def suppressed(self, now: float) -> bool:
        """Whether it is refused at that time."""
        return self.until is None or self.until > now


def find(connection: sqlite3.Connection, addresses: Collection[str]) -> dict[str, Entry]:
    """The entries there are for these addresses (lower case)."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM suppressions WHERE address IN (SELECT value FROM json_each(?))",  # noqa: S608
        (json.dumps(list(addresses)),),
    )
    return {row[0]: _entry(row) for row in rows}


def put(connection: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    """Write entries, in place of what there is for their addresses."""
    connection.executemany(
        "INSERT OR REPLACE INTO suppressions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", map(astuple, entries)
    )


def remove(connection: sqlite3.Connection, addresses: Iterable[str]) -> None:
    """Drop what there is for these addresses."""
    connection.executemany("DELETE FROM suppressions WHERE address = ?", ((address,) for address in addresses))


def page(
    connection: sqlite3.Connection, now: float, *, after: str, limit: int, text: str = "", reason: str = ""
) -> list[Entry]:
    """The next suppressed addresses after `after`, in order; only with `text` in them or for `reason`, if given."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM suppressions WHERE address > ?1 AND (until IS NULL OR until > ?2)"  # noqa: S608
        " AND (?3 = '' OR instr(address, ?3)) AND (?4 = '' OR reason = ?4) ORDER BY address LIMIT ?5",
        (after, now, text, reason, limit),
    )
    return [_entry(row) for row in rows]


def addresses(connection: sqlite3.Connection, *, after: str, limit: int) -> list[str]:
    """The next addresses that have a row, in order."""
    rows = connection.execute(
        "SELECT address FROM suppressions WHERE address > ? ORDER BY address LIMIT ?", (after, limit)
    )
    return [address for (address,) in rows]


def count(connection: sqlite3.Connection) -> int:
    """How many rows there are."""
    (rows,) = connection.execute("SELECT count(*) FROM suppressions").fetchone()
    return int(rows)


def forget(connection: sqlite3.Connection, before: float) -> int:
    """Drop rows of addresses that have neither been suppressed nor bounced since `before`; how many."""
    return connection.execute(
        "DELETE FROM suppressions WHERE until IS NOT NULL AND max(until, since) < ?", (before,)
    ).rowcount


def _entry(row: Any) -> Entry:
    address, reason, *rest = row
    rest[-1] = bool(rest[-1])
    return Entry(address, Reason(reason), *rest)


Changes = Mapping[str, tuple[Entry | None, Entry | None]]
"""By address: what there was, and what there is."""
