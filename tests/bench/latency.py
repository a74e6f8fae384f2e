"""How long a client waits for its 250 at a moderate load: messages arrive at a rate, whatever the server does."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import statistics
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.bench.contenders import Entry, Malote
from tests.bench.throughput import World, send

RATE = 100.0
SESSIONS = 20
SIZE = 5120


async def latency(entries: Sequence[Entry], runs: int, seconds: float, world: World) -> dict[str, dict[str, float]]:
    """Median p50 and p99 in milliseconds of each contender over the runs, by name.

    In its last run this relay's events are scanned all the time, as a large export would.
    """
    found: dict[str, list[Mapping[str, float]]] = {entry.name: [] for entry in entries}
    messages = int(RATE * seconds)
    for number in range(runs):
        for entry in entries:
            await world.sink.ask({"take": messages})
            scanned = isinstance(entry.contender, Malote) and number == runs - 1
            database = entry.contender.spool / "relay.db" if isinstance(entry.contender, Malote) else None
            with _scanning(database) if scanned and database else contextlib.nullcontext():
                said = await send(entry, world, SIZE, SESSIONS, messages, rate=RATE)
            await world.sink.ask({"wait": 60})
            await asyncio.sleep(0.5)
            found[entry.name].append(said["millis"])
            times = f"p50 {said['millis']['p50']:.1f} ms, p99 {said['millis']['p99']:.1f} ms"
            note = " (while its events are scanned)" if scanned else ""
            print(f"  run {number + 1} of {runs}: {entry.name} {times}{note}", file=sys.stderr, flush=True)
    return {
        name: {share: statistics.median(run[share] for run in of) for share in ("p50", "p99")}
        for name, of in found.items()
    }


@contextlib.contextmanager
def _scanning(database: Path) -> Iterator[None]:
    """Read all events in another connection, sorted by what no index has, again and again, meanwhile."""
    over = threading.Event()

    def scan() -> None:
        connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        with contextlib.closing(connection):
            while not over.is_set():
                for _ in connection.execute("SELECT * FROM events ORDER BY reply, recipient, at"):
                    if over.is_set():
                        break

    thread = threading.Thread(target=scan)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
