"""Senders that were found to exist, kept in the store's database: a restart must not ask for all of them again.

Only what is good for days is kept; who was absent or unknown is asked for again within minutes anyway. Losing the
table costs call-outs and nothing else, so nobody waits for it to be written, and a failure to write is only told.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from functools import partial
from typing import Final

import structlog

from malote_relay.clock import Clock
from malote_relay.store.model import StoreError, Tables
from malote_relay.submission.address import AddressError, Mailbox, mailbox

MAX_KEPT: Final = 50_000

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS present_senders (
    address TEXT PRIMARY KEY,
    until REAL NOT NULL             -- epoch seconds
) WITHOUT ROWID
"""

_log = structlog.get_logger("malote.senders")


class SenderMemory:
    """What is remembered over restarts. `note` gathers, and one task at a time writes what was gathered."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._tables = tables
        self._clock = clock
        self._noted: dict[Mailbox, float] = {}
        self._writing: asyncio.Task[None] | None = None

    async def load(self) -> Mapping[Mailbox, float]:
        """The senders known to exist, each with the seconds for which that is good still.

        Only reads, since a write would wait for room on a full disk, and the relay with it. Never raises for what
        the database says.
        """
        now = self._clock.now()
        try:
            kept = await self._tables.read(partial(_load, now=now))
        except (StoreError, sqlite3.Error) as error:
            _log.warning("senders known to exist are forgotten", error=str(error))
            return {}
        return {sender: until - now for address, until in kept if (sender := _mailbox(address)) is not None}

    def note(self, sender: Mailbox, seconds: float) -> None:
        """Remember that the sender exists, for so many seconds; 0 to forget it."""
        self._noted[sender] = self._clock.now() + seconds if seconds > 0 else 0.0
        if len(self._noted) > MAX_KEPT:  # the disk has been full for long
            del self._noted[next(iter(self._noted))]
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while self._noted:
            noted, self._noted = self._noted, {}
            try:
                await self._tables.write(
                    partial(_store, noted={str(one): until for one, until in noted.items()}, now=self._clock.now())
                )
            except StoreError as error:
                _log.warning("senders found to exist are not remembered", error=str(error))


def _load(connection: sqlite3.Connection, *, now: float) -> list[tuple[str, float]]:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'present_senders'").fetchone():
        return []
    query = "SELECT address, until FROM present_senders WHERE until > ? ORDER BY until DESC LIMIT ?"
    return list(connection.execute(query, (now, MAX_KEPT)))


def _store(connection: sqlite3.Connection, *, noted: Mapping[str, float], now: float) -> None:
    connection.execute(_TABLE)
    connection.execute("DELETE FROM present_senders WHERE until <= ?", (now,))
    connection.executemany(
        "DELETE FROM present_senders WHERE address = ?", [(address,) for address, until in noted.items() if not until]
    )
    connection.executemany(
        "INSERT OR REPLACE INTO present_senders VALUES (?, ?)", [row for row in noted.items() if row[1]]
    )


def _mailbox(address: str) -> Mailbox | None:
    try:
        return mailbox(address)
    except AddressError:
        return None
