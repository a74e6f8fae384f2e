"""Power lost: a run of the relay is recorded, and what its disk may have after a loss of power at any moment is made.

Recorded is what the relay does to its spool, with its log in between (`faults.c`). The log says "accepted" before the
client gets its 250, and "delivered" after that is committed. So for a loss of power at any place in the record: what
was said before it to be accepted must be in the store, whole, or have ended with an event; what was said to be
delivered must not be tried again; and every charge must have its recipient. `disk` says what a disk may do.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import os
import random
import re
import shutil
import sqlite3
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.harness import results
from tests.harness.processes import RunError
from tests.harness.results import Result
from tests.reliability import disk, oplog
from tests.reliability.disk import Disk, Loss
from tests.reliability.internet import Manner
from tests.reliability.load import Mix
from tests.reliability.shim import Faults
from tests.reliability.stage import Settings, stage

from malote_relay.store.model import Recovered, StoreError
from malote_relay.store.sqlite import SqliteStore

_DIGEST = re.compile(rb"^X-Digest: ([0-9a-f]{64})\r$", re.MULTILINE)
_MIX = Mix(
    sizes=((4_000, 60), (60_000, 25), (400_000, 15)),
    manners=((Manner.TAKE, 75), (Manner.SLOW, 5), (Manner.LATER, 10), (Manner.REFUSE, 10)),
    pause=0.005,
)


@dataclass(slots=True)
class Said:
    """What the relay's log had said by some place in the record: recipients accepted and delivered, by message."""

    accepted: dict[str, int] = field(default_factory=dict)
    delivered: dict[str, set[str]] = field(default_factory=dict)

    def hear(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "accepted":
            self.accepted[event["id"]] = event["recipients"]
        elif event["event"] == "delivered":
            self.delivered.setdefault(event["message"], set()).add(event["recipient"])


@dataclass(slots=True)
class PowerLoss:
    """What came out."""

    operations: int = 0
    syncs: int = 0
    failed: int = 0
    """How many of the syncs failed."""
    boundaries: int = 0
    between: int = 0
    states: dict[str, int] = field(default_factory=dict)
    accepted: int = 0
    starts: int = 0
    """Starts after a loss of power in which it was lost again, one of them with a damaged database to be salvaged."""
    seconds: float = 0.0
    complaints: list[str] = field(default_factory=list)

    def add(self, start: PowerLoss) -> None:
        """What came out of losing power again, while the relay starts after a loss."""
        self.starts += 1
        self.boundaries += start.boundaries
        self.between += start.between
        for name, count in start.states.items():
            self.states[name] = self.states.get(name, 0) + count
        self.complaints += [f"at a start after it: {words}" for words in start.complaints]

    def words(self) -> str:
        states = ", ".join(f"{count} {name}" for name, count in self.states.items())
        return (
            f"\npower loss: {self.accepted} messages accepted, {self.operations} operations with {self.syncs} syncs"
            f" ({self.failed} failed);"
            f" power lost at {self.boundaries} syncs and at {self.between} moments between,"
            f" in {self.starts} starts after it too;"
            f"\n{sum(self.states.values())} states of the disk ({states}): {len(self.complaints)} complaints,"
            f" {self.seconds:.0f} s"
        )

    def results(self) -> list[Result]:
        return [
            results.alone("power loss: syncs at which power was lost", self.boundaries, ""),
            results.alone("power loss: states of the disk", sum(self.states.values()), ""),
            results.at_most(
                "power loss: states with anything lost, damaged or sent again", len(self.complaints), "", 0
            ),
        ]


async def run(settings: Settings, boundaries: int, *, seconds: float = 4.0) -> PowerLoss:
    """Record a run with a kill and an orderly restart in it, then lose power at its syncs, at most `boundaries`.

    Between the two some syncs fail: what was not acknowledged then may be anywhere, the rest must be where it was.
    """
    began = time.monotonic()
    async with stage("power loss", settings) as on:
        on.furnish(spool=on.directory / "disk" / "spool", mix=_MIX)
        root = on.site.spool.parent
        root.mkdir()
        shim = Faults(on.directory, root, log=True)
        on.relay.environment = shim.environment
        await on.relay.start()
        on.load.start(settings.sessions)
        for ending, failing in ((partial(on.relay.killed_by, shim), 0.0), (on.relay.stop, 0.05), (None, 0.0)):
            await on.relay.listens()
            shim.failing(failing)
            wanted = len(on.load.sent) + 40
            await asyncio.sleep(seconds / 3)
            # On a machine that is slow or stalls: there must be something to lose.
            while len(on.load.sent) < wanted:  # noqa: ASYNC110  # the load has no event for it
                await asyncio.sleep(0.1)
            shim.failing(0.0)
            if ending is not None:
                await ending()
                await on.relay.start()
        await on.load.stop()
        await on.relay.killed_by(shim)
        if any(life.killed is None and life.ended is None for life in on.relay.lives):
            raise RunError("the recorded relay ended by itself")
        recipients = {message.queue_id: message.recipients for message in on.load.sent if message.acknowledged}
        if settings.verbose:
            print(f"  power loss: {len(recipients)} messages acknowledged in the record", file=sys.stderr, flush=True)

        async def check(spool: Path, said: Said) -> list[str]:
            return await _check(spool, said, recipients)

        samples = Samples(on.directory / "samples", max(2, min(10, boundaries // 40)))
        result = await replay(shim.log, Disk(root, on.random), check, boundaries, on.random, samples=samples)
        for number, (sample, said) in enumerate(samples.taken):
            result.add(await _again(sample, said, recipients, damaged=number == 0, dice=on.random))
    result.seconds = time.monotonic() - began
    return result


@dataclass(slots=True)
class Samples:
    """Some of the states, kept with what had been said by then."""

    directory: Path
    wanted: int
    taken: list[tuple[Path, Said]] = field(default_factory=list)

    def take(self, state: Path, said: Said) -> None:
        kept = shutil.copytree(state, self.directory / str(len(self.taken)) / "disk")
        self.taken.append((kept, copy.deepcopy(said)))


Check = Callable[[Path, Said], Any]
"""Looks at what is on the disk, given what had been said; a coroutine function that answers complaints."""


async def replay(
    log: Path,
    model: Disk,
    check: Check,
    boundaries: int,
    dice: random.Random,
    *,
    before: Said | None = None,
    samples: Samples | None = None,
) -> PowerLoss:
    """Lose power before syncs of the record, and between; at most `boundaries` of them, spread over all of it.

    `before` is what had been said before the record begins.
    """
    recorded = [
        operation for operation in oplog.operations(log) if operation.kind != oplog.OPEN or operation.directory
    ]
    syncs = [place for place, operation in enumerate(recorded) if operation.kind in (oplog.SYNC, oplog.FAILED)]
    chosen = set(syncs if boundaries >= len(syncs) else dice.sample(syncs, boundaries))
    others = [place for place in range(len(recorded)) if place not in chosen]
    between = set(dice.sample(others, min(len(others), len(chosen) // 2)))
    result = PowerLoss(operations=len(recorded), syncs=len(syncs), boundaries=len(chosen), between=len(between))
    said = before or Said()
    sampled = set(dice.sample(syncs[len(syncs) // 10 :], samples.wanted)) if samples else set()
    with tempfile.TemporaryDirectory(prefix="malote-powerloss-", dir=_memory()) as name:
        for place, operation in enumerate(recorded):
            losses: tuple[Loss, ...] = ()
            if place in chosen:
                losses = (disk.dropped(), dice.choice((disk.some, disk.torn))(dice))
            elif place in between:
                losses = (dice.choice((disk.kept(), disk.some(dice), disk.torn(dice))),)
            if samples is not None and place in sampled:
                model.write(Path(name) / "sample", disk.torn(dice))
                samples.take(Path(name) / "sample", said)
                shutil.rmtree(Path(name) / "sample")
            for loss in losses:
                target = Path(name) / "disk"
                model.write(target, loss)
                words = await check(target / "spool", said)
                result.states[loss.name] = result.states.get(loss.name, 0) + 1
                result.complaints += [f"before operation {place} ({loss.name}): {one}" for one in words[:3]]
                shutil.rmtree(target)
            model.apply(operation)
            if operation.kind == oplog.LOG:
                for event in oplog.events(operation):
                    said.hear(event)
    result.accepted = len(said.accepted)
    result.failed = sum(operation.kind == oplog.FAILED for operation in recorded)
    return result


_OPEN = """
import asyncio, pathlib, sys
from malote_relay.store.sqlite import SqliteStore

async def start():
    store = SqliteStore(pathlib.Path(sys.argv[1]))
    await store.open()
    await store.close()

asyncio.run(start())
"""


async def _again(
    root: Path, said: Said, recipients: Mapping[str, list[str]], *, damaged: bool, dice: random.Random
) -> PowerLoss:
    """Power is lost once more while the store opens what the first loss has left; a damaged one is salvaged first."""
    if damaged:
        _damage_an_index(root / "spool" / "relay.db")
    model, shim = Disk.of(root), Faults(root.parent, root, log=True)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OPEN, str(root / "spool"), env={**os.environ, **shim.environment}
    )
    if await child.wait() != 0:
        return PowerLoss(complaints=["the store did not open"])

    async def check(spool: Path, said: Said) -> list[str]:
        complaints = await _check(spool, said, recipients)
        return [words for words in complaints if not (damaged and words.startswith("set aside: the database was"))]

    return await replay(shim.log, model, check, sys.maxsize, dice, before=said)


def _damage_an_index(database: Path) -> None:
    connection = sqlite3.connect(database)
    (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'recipients_by_time'").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()  # the last one: the log goes into the database
    with database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(os.urandom(size))


def _memory() -> Path | None:
    """Where states are made: no disk needs to be troubled with them."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else None


async def _check(spool: Path, said: Said, recipients: Mapping[str, list[str]]) -> list[str]:
    store = SqliteStore(spool)
    try:
        recovered = await store.open()
    except StoreError as error:
        return [f"the store does not open: {error}"]
    try:
        return [*_sound(spool, recovered), *_complete(spool, said, recipients)]
    finally:
        await store.close()


def _sound(spool: Path, recovered: Recovered) -> list[str]:
    complaints = [f"set aside: {words}" for words in recovered.quarantined]
    connection = sqlite3.connect(spool / "relay.db")
    try:
        (charged,) = connection.execute("SELECT coalesce(sum(charged), 0) FROM hours").fetchone()
        (waiting,) = connection.execute("SELECT count(hour) FROM recipients").fetchone()
        (ended,) = connection.execute(
            "SELECT count(*) FROM events WHERE status IN ('delivered', 'failed') AND account != ''"
        ).fetchone()
    finally:
        connection.close()
    if charged != waiting + ended:
        complaints.append(f"{charged} charged, but {waiting} wait and {ended} have ended")
    return complaints


def _complete(spool: Path, said: Said, recipients: Mapping[str, list[str]]) -> list[str]:
    """Every message said to be accepted is there, whole, for each recipient that has no event of its end."""
    connection = sqlite3.connect(spool / "relay.db")
    try:
        waiting: dict[str, set[str]] = {}
        for message, address in connection.execute(
            "SELECT m.id, r.address FROM recipients AS r JOIN messages AS m ON m.seq = r.id >> 16"
        ):
            waiting.setdefault(message, set()).add(address)
        ended: dict[str, set[str]] = {}
        for message, address in connection.execute(
            "SELECT message, recipient FROM events WHERE status IN ('delivered', 'failed')"
        ):
            ended.setdefault(message, set()).add(address)
        complaints = []
        for message, count in said.accepted.items():
            there = waiting.get(message, set()) | ended.get(message, set())
            if len(there) != count or not set(recipients.get(message, ())) <= there:
                complaints.append(f"{message}: accepted for {count} recipients, {len(there)} are there")
            if again := waiting.get(message, set()) & said.delivered.get(message, set()):
                complaints.append(f"{message}: would go again to {', '.join(again)}")
        rows = connection.execute("SELECT id, content, checksum FROM messages WHERE account != ''")
        for message, content, summed in rows:
            file = spool / "spool" / message
            if content is None and not file.exists():
                complaints.append(f"{message}: its content is gone")
                continue
            octets = file.read_bytes() if content is None else content
            if not _whole(octets):
                complaints.append(f"{message}: its content is damaged")
            elif zlib.crc32(octets) != summed:
                complaints.append(f"{message}: its checksum is another one's")
        return complaints
    finally:
        connection.close()


def _whole(content: bytes) -> bool:
    header, _, body = content.partition(b"\r\n\r\n")
    digest = _DIGEST.search(header + b"\r\n")
    return digest is not None and hashlib.sha256(body).hexdigest().encode() == digest[1]
