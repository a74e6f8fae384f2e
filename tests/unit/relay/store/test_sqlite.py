"""The SQLite store: the contract, and what only a file can suffer."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.unit.relay.store.contract import (
    BODY,
    HOUR,
    NOW,
    StoreContract,
    addresses,
    deferred,
    delivered,
    held,
    message,
)

from malote_relay.store import model, sqlite
from malote_relay.store.contents import Damaged, StoredFile, checksum
from malote_relay.store.model import DiskFull, Result, Store, StoreError
from malote_relay.store.sqlite import SqliteStore

_ROOT = Path(__file__).parents[4]
_ACCEPT_UNTIL_KILLED = """
import asyncio, pathlib, sys
from malote_relay.store.sqlite import SqliteStore
from tests.unit.relay.store.contract import BODY, message

async def session(store, number):
    for count in range(1_000_000):
        name = f"s{number}-{count}"
        content = BODY
        if count % 5 == 0:
            content = store.incoming / name
            content.write_bytes(BODY)
        await store.accept(message([f"{name}@x.example"], content=content, identifier=name))
        print(name, flush=True)

async def main():
    store = SqliteStore(pathlib.Path(sys.argv[1]))
    await store.open()
    await asyncio.gather(*(session(store, number) for number in range(10)))

asyncio.run(main())
"""


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def make_store(self, tmp_path: Path) -> Callable[[], Store]:
        return lambda: SqliteStore(tmp_path / "spool")


async def events(directory: Path) -> list[sqlite3.Row]:
    connection = sqlite3.connect(directory / "relay.db")
    connection.row_factory = sqlite3.Row
    try:
        return connection.execute("SELECT * FROM events ORDER BY id").fetchall()
    finally:
        connection.close()


async def fill(directory: Path, count: int) -> None:
    store = SqliteStore(directory)
    await store.open()
    await asyncio.gather(
        *(
            store.accept(message([f"{n}@x.example"], content=BODY + b"x" * 3000, identifier=f"f{n}"))
            for n in range(count)
        )
    )
    await store.close()


async def test_every_acknowledged_message_survives_a_kill(tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _ACCEPT_UNTIL_KILLED,
        str(tmp_path),
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[4],
    )
    assert child.stdout is not None
    async with asyncio.timeout(60):
        printed = b"".join([await child.stdout.readline() for _ in range(60)])
    child.kill()
    printed += await child.stdout.read()
    await child.wait()
    acknowledged = [line.rstrip() for line in printed.decode().splitlines(keepends=True) if line.endswith("\n")]
    assert len(acknowledged) > 50
    store = SqliteStore(tmp_path)
    recovered = await store.open()
    queued = await store.due(NOW, 1_000_000)
    for name in acknowledged:
        content = await store.content(name)
        assert (content.read() if isinstance(content, StoredFile) else content) == BODY
    await store.close()
    assert recovered.quarantined == ()
    assert set(acknowledged) <= {recipient.message_id for recipient in queued}
    assert recovered.hours[HOUR].charged == len(queued), "accepting and counting are one transaction"


async def test_events_keep_what_the_reports_need(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    await store.open()
    (queued,) = await store.accept(message(["Bob@There.Example"], identifier="m-1"))
    await store.record([deferred(queued, NOW + 60)])
    await store.record([delivered(queued, NOW + 61)])
    await store.close()
    first, second = [dict(row) for row in await events(tmp_path)]
    assert (first["status"], first["bounce_class"], first["attempt"]) == (Result.DEFERRED, "greylisted", 1)
    del second["id"]
    assert second == {
        "at": NOW + 61, "message": "m-1", "account": "app", "reverse_path": "ana@acme.example",
        "header_from": "ana@acme.example", "recipient": "Bob@There.Example", "domain": "there.example",
        "status": "delivered", "bounce_class": "", "reply": "250 2.0.0 ok", "host": "mx.there.example",
        "tls": "TLSv1.3",
        "attempt": 2, "received_at": NOW, "size": len(BODY), "flags": 0, "dsn": "",
    }  # fmt: skip


async def test_a_full_disk_refuses_and_room_lets_it_go_on(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    await store.open()
    (queued,) = await store.accept(message(["first@x.example"]))
    limit_pages(store, 1)
    big = b"x" * 200_000
    results = await asyncio.gather(
        *(store.accept(message([f"{n}@x.example"], content=big)) for n in range(5)), return_exceptions=True
    )
    assert all(isinstance(result, DiskFull) for result in results)
    file = store.incoming / "file"
    file.write_bytes(b"x")
    with pytest.raises(DiskFull):  # the header alone takes more than what is free
        await store.accept(message([f"{n}@x.example" for n in range(2000)], content=file, identifier="in-file"))
    assert list((tmp_path / "spool").iterdir()) == []
    recording = asyncio.ensure_future(
        store.record([model.Outcome(queued, Result.DELIVERED, NOW, "2" * 200_000)]),
    )
    done, _ = await asyncio.wait([recording], timeout=0.2)
    assert not done, "an outcome waits for room"
    limit_pages(store, 1_000_000)
    await recording
    assert addresses(await store.accept(message(["last@x.example"], content=big))) == ["last@x.example"]
    assert addresses(await store.due(NOW, 10)) == ["last@x.example"]
    state = await store.queue_state(NOW)
    await store.close()
    assert (state.ready, state.deferred) == (1, 0)
    assert (await reopened(tmp_path)).hours[HOUR].charged == 2, "what was refused is not charged"


async def test_large_messages_that_fail_together_are_kept_one_by_one(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    await store.open()
    for name in ("one", "two", "three"):
        (store.incoming / name).write_bytes(BODY)
    twice = message(content=store.incoming / "two", identifier="one")  # what makes the transaction of all three fail
    results = await asyncio.gather(
        store.accept(message(content=store.incoming / "one", identifier="one")),
        store.accept(twice),
        store.accept(message(content=store.incoming / "three", identifier="three")),
        return_exceptions=True,
    )
    assert [isinstance(result, StoreError) for result in results] == [False, True, False]
    assert {path.name for path in (tmp_path / "spool").iterdir()} == {"one", "three"}
    await store.close()


def limit_pages(store: SqliteStore, pages: int) -> None:
    """SQLite's own limit gives the very error of a full file system."""
    assert store._writing is not None
    store._writing.execute(f"PRAGMA max_page_count = {pages}").fetchall()


async def reopened(directory: Path) -> model.Recovered:
    store = SqliteStore(directory)
    recovered = await store.open()
    await store.close()
    return recovered


async def test_a_file_that_is_no_database_is_set_aside_and_said(tmp_path: Path) -> None:
    await reopened(tmp_path)
    (tmp_path / "relay.db").write_bytes(b"garbage" * 5000)
    store = SqliteStore(tmp_path)
    recovered = await store.open()
    assert await store.accept(message())
    await store.close()
    (said,) = recovered.quarantined
    (aside,) = (tmp_path / "quarantine").glob("relay-*.db")
    assert str(aside) in said
    assert aside.read_bytes().startswith(b"garbage")
    assert not (await reopened(tmp_path)).quarantined


async def test_what_a_damaged_database_still_tells_is_salvaged(tmp_path: Path) -> None:
    await fill(tmp_path, 200)
    database = tmp_path / "relay.db"
    with database.open("r+b") as file:  # the middle of the file: pages of messages
        file.seek(database.stat().st_size // 2 // 8192 * 8192)
        file.write(os.urandom(8192 * 2))
    store = SqliteStore(tmp_path)
    recovered = await store.open()
    queued = await store.due(NOW, 1000)
    contents = [await store.content(recipient.message_id) for recipient in queued]
    await store.close()
    assert "salvaged" in recovered.quarantined[0]
    assert len(queued) > 100
    assert contents == [BODY + b"x" * 3000] * len(queued)


@pytest.mark.parametrize(("left", "words"), [(None, "is missing"), (BODY[:-1], "octets of")])
async def test_a_content_file_that_is_not_whole_is_said_and_never_delivered(
    tmp_path: Path, left: bytes | None, words: str
) -> None:
    store = SqliteStore(tmp_path)
    await store.open()
    for name in ("gone", "there"):
        (store.incoming / name).write_bytes(BODY)
        await store.accept(message([f"{name}@x.example"], content=store.incoming / name, identifier=name))
    await store.close()
    (tmp_path / "spool" / "gone").unlink()
    if left is not None:
        (tmp_path / "spool" / "gone").write_bytes(left)
    store = SqliteStore(tmp_path)
    (said,) = (await store.open()).quarantined
    # It stays queued: its turn ends it, and tells its sender.
    assert addresses(await store.due(NOW, 10)) == ["gone@x.example", "there@x.example"]
    with pytest.raises(Damaged):
        await store.content("gone")
    assert await store.content("there") == StoredFile(tmp_path / "spool" / "there")
    await store.close()
    assert "message gone" in said
    assert words in said
    if left is not None:
        assert (tmp_path / "quarantine" / "gone").read_bytes() == left


async def test_a_content_file_that_is_cut_short_while_the_relay_runs_is_not_delivered(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    await store.open()
    (store.incoming / "cut").write_bytes(BODY)
    await store.accept(message(content=store.incoming / "cut", identifier="cut"))
    os.truncate(tmp_path / "spool" / "cut", 10)
    with pytest.raises(Damaged):
        await store.content("cut")
    await store.close()


async def _read(store: Store, message_id: str) -> bytes:
    kept = await store.content(message_id)
    return kept.read() if isinstance(kept, StoredFile) else kept


@pytest.mark.parametrize("large", [False, True], ids=["in the database", "in a file"])
@pytest.mark.parametrize("older", [False, True], ids=["with its checksum", "kept by an older release"])
async def test_a_bit_that_flips_in_a_content_is_seen_when_read(tmp_path: Path, large: bool, older: bool) -> None:
    """An older release kept no checksum: what it left is read as it is."""
    store = SqliteStore(tmp_path)
    await store.open()
    content: bytes | Path = BODY
    if large:
        content = store.incoming / "one"
        content.write_bytes(BODY)
    known = checksum(BODY) if large else None  # of octets the store reckons it itself
    await store.accept(replace(message(content=content, identifier="one"), checksum=known))
    flipped = BODY[:-3] + bytes([BODY[-3] ^ 4]) + BODY[-2:]
    if large:
        (tmp_path / "spool" / "one").write_bytes(flipped)
    else:
        await store.write(lambda tables: tables.execute("UPDATE messages SET content = ?", (flipped,)).rowcount)
    if older:
        await store.write(lambda tables: tables.execute("UPDATE messages SET checksum = NULL").rowcount)
    await store.close()
    store = SqliteStore(tmp_path)
    assert (await store.open()).quarantined == (), "no start reads all that waits"
    if older:
        assert await _read(store, "one") == flipped
    else:
        with pytest.raises(Damaged, match="another checksum"):
            await _read(store, "one")
        for _ in range(2):
            await store.set_aside("one")
        (aside,) = (tmp_path / "quarantine").iterdir()
        assert aside.read_bytes() == flipped
        assert addresses(await store.due(NOW, 10)) == ["b@there.example"], "its turn ends it, and tells its sender"
        with pytest.raises(Damaged):
            await store.content("one")
    await store.close()


async def test_a_directory_among_the_contents_is_set_aside_and_said(tmp_path: Path) -> None:
    await reopened(tmp_path)
    for folder in ("incoming", "spool"):
        (tmp_path / folder / "odd").mkdir()
    assert [said.partition(" is a directory")[0] for said in (await reopened(tmp_path)).quarantined] == [
        str(tmp_path / folder / "odd") for folder in ("incoming", "spool")
    ]
    assert {path.name for path in (tmp_path / "quarantine").iterdir()} == {"odd", "odd.1"}
    assert not (await reopened(tmp_path)).quarantined


async def test_a_content_file_that_was_never_accepted_is_removed(tmp_path: Path) -> None:
    await reopened(tmp_path)
    (tmp_path / "spool" / "stray").write_bytes(BODY)
    assert (await reopened(tmp_path)).quarantined == ()
    assert list((tmp_path / "spool").iterdir()) == []


async def test_a_second_process_is_kept_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_LOCK_SECONDS", 0.1)
    first, second = SqliteStore(tmp_path), SqliteStore(tmp_path)
    await first.open()
    with pytest.raises(StoreError, match="another process"):
        await second.open()
    await first.close()
    await SqliteStore(tmp_path).open()


async def test_a_spool_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    await reopened(tmp_path)
    connection = sqlite3.connect(tmp_path / "relay.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="newer release"):
        await SqliteStore(tmp_path).open()
    assert not (tmp_path / "quarantine").exists()


async def test_every_commit_is_synced(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    await store.open()
    assert store._writing is not None
    pragmas = {
        name: store._writing.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
    }
    await store.close()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}


async def test_a_long_queue_is_cheap_to_ask(tmp_path: Path) -> None:
    """200,000 recipients waiting, most held or for a full destination: asking reads only what it gives."""
    store = SqliteStore(tmp_path)
    await store.open()
    for _ in range(10):
        await store.accept(message([held(f"{n}@x.example", HOUR + 1) for n in range(10_000)]))
        await store.accept(message([f"{n}@slow.example" for n in range(10_000)], at=NOW - 1))
    await store.accept(message(["fast@x.example"]))
    started = time.process_time()  # its own, whatever else the machine does
    page = await store.due(NOW, 100)
    fast = await store.due(NOW, 100, excluding_domains={"slow.example"})
    state = await store.queue_state(NOW)
    assert await store.next_time(NOW) == (HOUR + 1) * 3600.0
    elapsed = time.process_time() - started
    await store.close()
    assert len(page) == 100
    assert addresses(fast) == ["fast@x.example"]
    assert (state.ready, state.held) == (100_001, 100_000)
    assert elapsed < 0.5


async def test_what_the_database_no_longer_uses_is_given_back_where_there_is_little_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a queue that once filled the disk would leave no room for mail, though it is long delivered."""
    disk = SimpleNamespace(f_bavail=1000, f_blocks=2000, f_frsize=1 << 20)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    store = SqliteStore(tmp_path)
    await store.open()
    file = tmp_path / "relay.db"
    try:
        queued = [(await store.accept(message([f"{n}@x.example"], content=BODY * 4000)))[0] for n in range(100)]
        await store.record([delivered(one) for one in queued[:99]])
        full = file.stat().st_size
        assert await store.make_room(10 << 20) == 0, "there is room: what is free is for new mail"
        assert file.stat().st_size == full
        disk.f_bavail = 19
        assert await store.make_room(10 << 20) > 0
        assert file.stat().st_size < full / 4
        assert await store.content(queued[99].message_id) == BODY * 4000
        assert await store.make_room(10 << 20) == 0
    finally:
        await store.close()


_WITH_A_LONG_QUEUE = """
import asyncio, pathlib, sys
from tests.unit.relay.store.contract import NOW, deferred, message
from malote_relay.store.model import ClockBack
from malote_relay.store.sqlite import SqliteStore

async def work():
    store = SqliteStore(pathlib.Path(sys.argv[1]))
    await store.open()
    queued = [
        one
        for n in range(40)
        for one in await store.accept(message([f"{n}.{m}@x.example" for m in range(500)]))
    ]
    await store.record([deferred(one, NOW + one.id % 1009) for one in queued[::3]])
    await store.read(lambda tables: tables.execute("SELECT * FROM events ORDER BY recipient, id").fetchall())
    assert await store.clock_went_back(ClockBack(NOW - 10, 0, NOW - 10))
    assert await store.prune(NOW + 2000)
    await store.close()

asyncio.run(work())
"""


async def test_it_makes_no_temporary_files(tmp_path: Path) -> None:
    """A pod's root is read-only: there is no place for them, and what needed one would never succeed."""
    place = tmp_path / "temporary"
    place.mkdir()
    before = place.stat().st_mtime_ns
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _WITH_A_LONG_QUEUE,
        str(tmp_path / "spool"),
        env={**os.environ, "SQLITE_TMPDIR": str(place)},
        cwd=Path(__file__).parents[4],
    )
    assert await process.wait() == 0
    assert place.stat().st_mtime_ns == before


async def test_a_part_with_a_table_of_its_own_writes_and_reads_through_the_store(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    await store.open()
    try:
        await store.write(lambda tables: tables.execute("CREATE TABLE notes (text)"))
        await store.write(lambda tables: tables.execute("INSERT INTO notes VALUES ('kept')"))
        with pytest.raises(StoreError):
            await store.write(_half)
        assert await store.read(lambda tables: tables.execute("SELECT text FROM notes").fetchall()) == [("kept",)]
    finally:
        await store.close()


def _half(tables: sqlite3.Connection) -> None:
    tables.execute("INSERT INTO notes VALUES ('half of it')")
    raise ValueError("the rest could not be made")
