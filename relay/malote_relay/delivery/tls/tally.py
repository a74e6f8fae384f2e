"""How sessions came to their TLS, counted by day and domain in the store: what reports are made of (RFC 8460).

Counts are kept in memory and written every minute, only for domains that ask for reports. Both are bounded: of a
domain with ever new troubles only the first are told in detail, the rest by kind.
"""

from __future__ import annotations

import asyncio
import ipaddress
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from malote_relay.delivery.tls.results import Applied, Trouble
from malote_relay.store.model import Tables

DAY: Final = 86_400
MAX_IN_MEMORY: Final = 5_000
MAX_DETAILED: Final = 200
"""Rows of one domain and day that name hosts and addresses."""

MAX_ROWS: Final = 50_000
_MAX_DETAIL: Final = 200
_LOOK_UPS: Final = 20


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of session. `policy` is `Applied` as JSON; everything after it is "" for success."""

    day: int
    domain: str
    policy: str
    result: str = ""
    mx: str = ""
    mx_address: str = ""
    local_address: str = ""
    detail: str = ""


Asks = Callable[[str], Awaitable[bool]]
"""Whether a domain asks for reports."""


class Tally:
    """The counts. `clock` gives epoch seconds."""

    def __init__(self, tables: Tables, clock: Callable[[], float]):
        self._tables = tables
        self._clock = clock
        self._counts: Counter[Row] = Counter()

    def add(
        self,
        domain: str,
        applied: Applied,
        trouble: Trouble | None,
        *,
        mx: str = "",
        mx_address: str = "",
        local_address: str = "",
    ) -> None:
        """Count a session for recipients at `domain`; without `trouble` it went well.

        A `local_address` of a private network is not kept: behind it the receiver has met another one.
        """
        policy = msgspec.json.encode(applied).decode()
        row = Row(int(self._clock() // DAY), domain, policy)
        if trouble is not None:
            words = trouble.words[:_MAX_DETAIL]
            row = replace(
                row,
                result=trouble.result.value,
                mx=mx,
                mx_address=mx_address,
                local_address=_as_seen(local_address),
                detail=words,
            )
        if len(self._counts) >= MAX_IN_MEMORY and row not in self._counts:
            row = _by_kind(row)
            if len(self._counts) >= 2 * MAX_IN_MEMORY and row not in self._counts:
                return
        self._counts[row] += 1

    async def flush(self, asks: Asks) -> None:
        """Write what was counted for domains that ask. Raises StoreError; the counts are kept then."""
        if not self._counts:
            return
        counts, self._counts = self._counts, Counter()
        try:
            wanted = await _who(asks, {row.domain for row in counts})
            counts = Counter({row: count for row, count in counts.items() if row.domain in wanted})
            if counts:
                await self._tables.write(lambda connection: _write(connection, counts))
        except BaseException:
            self._counts.update(counts)
            raise

    async def waiting(self, before: int) -> list[tuple[int, str]]:
        """Days before `before`, and the domains that have counts in them."""
        return await self._tables.read(
            lambda connection: connection.execute(
                "SELECT DISTINCT day, domain FROM tls_results WHERE day < ? ORDER BY day", (before,)
            ).fetchall()
        )

    async def rows(self, day: int, domain: str) -> list[tuple[Row, int]]:
        """What was counted of a domain in a day."""
        found = await self._tables.read(
            lambda connection: connection.execute(
                "SELECT day, domain, policy, result, mx, mx_address, local_address, detail, sessions "
                "FROM tls_results WHERE day = ? AND domain = ? ORDER BY rowid",
                (day, domain),
            ).fetchall()
        )
        return [(Row(*columns), sessions) for *columns, sessions in found]

    async def drop(self, day: int, domain: str) -> None:
        """These are told, or will never be."""
        await self._tables.write(
            lambda connection: (
                connection.execute("DELETE FROM tls_results WHERE day = ? AND domain = ?", (day, domain)).rowcount
            )
        )


async def _who(asks: Asks, domains: Collection[str]) -> set[str]:
    """Those that ask; some looked up at a time."""
    room = asyncio.Semaphore(_LOOK_UPS)

    async def one(domain: str) -> bool:
        async with room:
            return await asks(domain)

    answers = await asyncio.gather(*(one(domain) for domain in domains))
    return {domain for domain, wanted in zip(domains, answers, strict=True) if wanted}


def _as_seen(address: str) -> str:
    """The address if the receiver can have met it, else "": a report is no place for a pod's own."""
    return address if address and ipaddress.ip_address(address).is_global else ""


def _by_kind(row: Row) -> Row:
    return replace(row, mx="", mx_address="", local_address="", detail="")


def _write(connection: sqlite3.Connection, counts: Mapping[Row, int]) -> None:
    (rows,) = connection.execute("SELECT count(*) FROM tls_results").fetchone()
    held: dict[tuple[int, str], int] = {}
    for row, sessions in counts.items():
        place = row.day, row.domain
        if place not in held:
            (held[place],) = connection.execute(
                "SELECT count(*) FROM tls_results WHERE day = ? AND domain = ?", place
            ).fetchone()
        one = row if held[place] < MAX_DETAILED else _by_kind(row)
        if rows >= MAX_ROWS and not held[place]:
            continue
        connection.execute(
            "INSERT INTO tls_results (day, domain, policy, result, mx, mx_address, local_address, detail, sessions) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (day, domain, policy, result, mx, mx_address, local_address, detail) "
            "DO UPDATE SET sessions = sessions + excluded.sessions",
            (
                one.day, one.domain, one.policy, one.result, one.mx, one.mx_address, one.local_address, one.detail,
                sessions,
            ),
        )  # fmt: skip
        held[place] += 1
        rows += 1
