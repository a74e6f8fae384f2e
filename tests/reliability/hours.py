"""What the hour window promises, looked up in a relay's database while it runs and after.

Charged to an hour never more than the plan's limit; held for an hour never more than the tolerance; what waits for an
hour is charged to it, in the order of arrival.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tests.harness.processes import RunError


def count(spool: Path, question: str) -> int:
    """One number from the database. Raises RunError when there is none to ask."""
    (number,) = rows(spool, question)[0]
    return int(number)


def rows(spool: Path, question: str) -> list[tuple[int, ...]]:
    """Ask the database, read-only. Raises RunError."""
    try:
        connection = sqlite3.connect(f"file:{spool / 'relay.db'}?mode=ro", uri=True, timeout=10)
        try:
            return connection.execute(question).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise RunError(f"the database cannot be asked: {error}") from error


def held(spool: Path) -> int:
    """Recipients that wait for their hour."""
    return count(
        spool,
        "SELECT count(*) FROM recipients WHERE attempts = 0 AND hour IS NOT NULL AND next_attempt_at = hour * 3600",
    )


class Watch:
    """Looks at the hours again and again. `complaints` are in words; the rest are figures."""

    def __init__(self, limit: int, tolerance: int) -> None:
        self.complaints: list[str] = []
        self.hours = 0
        self.full = 0
        self.most_held = 0
        self._limit, self._tolerance = limit, tolerance

    def look(self, spool: Path) -> None:
        charges = rows(spool, "SELECT hour, charged, held FROM hours ORDER BY hour")
        self.hours = len(charges)
        self.full = sum(charged >= self._limit for _, charged, _ in charges)
        for hour, charged, kept in charges:
            self.most_held = max(self.most_held, kept)
            if charged > self._limit:
                self.complaints.append(f"hour {hour}: {charged} charged of {self._limit}")
            if kept > self._tolerance:
                self.complaints.append(f"hour {hour}: {kept} held, the tolerance is {self._tolerance}")
        waiting = rows(spool, "SELECT hour FROM recipients WHERE hour IS NOT NULL AND attempts = 0 ORDER BY id")
        in_order = [hour for (hour,) in waiting]
        if in_order != sorted(in_order):
            self.complaints.append("held recipients are not in the order of arrival")
