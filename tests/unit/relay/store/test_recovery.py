"""What a start finds after a full disk, a kill or damage: nothing that was accepted is gone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import resource
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.relay.store.contract import BODY, NOW, addresses, delivered, message

from malote_relay.store import recovery, schema
from malote_relay.store.contents import StoredFile
from malote_relay.store.model import StoreError
from malote_relay.store.sqlite import SqliteStore

_SMALL = [f"{n}@x.example" for n in range(40)]
_BIG = BODY * 10_000

_OPEN_UNTIL_STEP = """
import asyncio, os, pathlib, signal, sys
from malote_relay.store import salvage
from malote_relay.store.sqlite import SqliteStore

left = int(sys.argv[2])

def killed_before(action):
    def counted(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return action(*arguments, **options)
    return counted

pathlib.Path.rename = killed_before(pathlib.Path.rename)
pathlib.Path.unlink = killed_before(pathlib.Path.unlink)
salvage._readable = killed_before(salvage._readable)
salvage.sync_directory = killed_before(salvage.sync_directory)
asyncio.run(SqliteStore(pathlib.Path(sys.argv[1])).open())
"""


async def spool_with_mail(directory: Path) -> Path:
    """A spool with small messages and one whose content is a file."""
    store = SqliteStore(directory)
    await store.open()
    for address in _SMALL:
        await store.accept(message([address]))
    (store.incoming / "big").write_bytes(_BIG)
    await store.accept(message(["big@x.example"], content=store.incoming / "big", identifier="big"))
    await store.close()
    return directory


def damage_an_index(directory: Path) -> None:
    connection = sqlite3.connect(directory / "relay.db")
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'recipients_by_time'").fetchone()
    connection.close()
    with (directory / "relay.db").open("r+b") as file:
        file.seek((page - 1) * 8192)
        file.write(os.urandom(8192))


async def assert_all_there(directory: Path) -> tuple[str, ...]:
    store = SqliteStore(directory)
    recovered = await store.open()
    try:
        assert addresses(await store.due(NOW, 1000)) == [*_SMALL, "big@x.example"]
        content = await store.content("big")
        assert isinstance(content, StoredFile)
        assert content.read() == _BIG
    finally:
        await store.close()
    return tuple(recovered.quarantined)


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """What a full disk does to files that would grow: SQLite cannot even make the index of its log."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 4096, 16_384, 65_536, 200_000])
async def test_a_disk_without_room_at_the_start_is_no_damage(tmp_path: Path, room: int) -> None:
    await spool_with_mail(tmp_path)
    with no_file_larger_than(room), contextlib.suppress(StoreError):
        store = SqliteStore(tmp_path)
        await store.open()
        await store.close()
    assert not (tmp_path / "quarantine").exists()
    assert await assert_all_there(tmp_path) == ()


async def test_a_store_that_cannot_be_opened_says_so_with_nothing_but_a_store_error(tmp_path: Path) -> None:
    await spool_with_mail(tmp_path)
    with no_file_larger_than(4096), pytest.raises(StoreError, match=r"cannot be used: disk I/O error \(SQLITE_IOERR"):
        await SqliteStore(tmp_path).open()
    (tmp_path / "relay.db").unlink()
    (tmp_path / "relay.db").mkdir()
    with pytest.raises(StoreError, match="cannot be used"):
        await SqliteStore(tmp_path).open()


async def test_after_a_start_that_failed_the_same_process_may_try_again(tmp_path: Path) -> None:
    await spool_with_mail(tmp_path)
    store = SqliteStore(tmp_path)
    with no_file_larger_than(4096), pytest.raises(StoreError):
        await store.open()
    await store.open()
    assert len(await store.due(NOW, 1000)) == 41
    await store.close()


@pytest.mark.parametrize("code", ["SQLITE_IOERR", "SQLITE_FULL", "SQLITE_BUSY", "SQLITE_PROTOCOL", "SQLITE_NOMEM"])
async def test_only_what_sqlite_calls_damage_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    await spool_with_mail(tmp_path)

    def failing(connection: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError("as said")
        error.sqlite_errorcode = getattr(sqlite3, code)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(schema, "migrate", failing)
        with pytest.raises(StoreError):
            await SqliteStore(tmp_path).open()
    assert await assert_all_there(tmp_path) == ()


def test_a_page_that_could_not_be_read_is_the_disks_fault(tmp_path: Path) -> None:
    unreadable = "Tree 5 page 7: unable to get the page. error code=266"
    assert isinstance(recovery._judged(tmp_path, unreadable), StoreError)
    assert not isinstance(
        recovery._judged(tmp_path, "Tree 5 page 7: btreeInitPage() returns error code 11"), StoreError
    )


async def test_without_room_for_a_salvage_the_damaged_database_stays_until_there_is(tmp_path: Path) -> None:
    await spool_with_mail(tmp_path)
    damage_an_index(tmp_path)
    with no_file_larger_than(50_000), pytest.raises(StoreError, match=r"damaged .* Nothing was removed"):
        await SqliteStore(tmp_path).open()
    assert not (tmp_path / "quarantine").exists()
    (said,) = await assert_all_there(tmp_path)
    assert "41 recipients" in said


async def test_a_salvage_that_is_killed_anywhere_loses_nothing(tmp_path: Path) -> None:
    damaged = await spool_with_mail(tmp_path / "damaged")
    damage_an_index(damaged)
    (damaged / "spool" / "unknown").write_bytes(b"might be somebody's")
    for step in itertools.count():
        directory = tmp_path / str(step)
        shutil.copytree(damaged, directory)
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _OPEN_UNTIL_STEP, str(directory), str(step)
        )
        if await child.wait() == 0:
            break
        assert child.returncode == -signal.SIGKILL
        await assert_all_there(directory)
        assert len(list((directory / "quarantine").glob("relay-*.db"))) == 1
        assert (directory / "quarantine" / "unknown").exists()
        assert not list(directory.glob("relay.db.new*"))
        shutil.rmtree(directory)
    assert step > 10, "it was killed before each of its steps"


async def test_a_salvage_that_was_cut_short_is_said_when_it_is_finished(tmp_path: Path) -> None:
    await spool_with_mail(tmp_path)
    (tmp_path / "relay.db").rename(tmp_path / "relay.db.new")
    assert "salvaged when the relay was stopped" in (await assert_all_there(tmp_path))[0]


async def test_contents_whose_database_is_gone_are_kept(tmp_path: Path) -> None:
    await spool_with_mail(tmp_path)
    (tmp_path / "relay.db").unlink()
    store = SqliteStore(tmp_path)
    (said,) = (await store.open()).quarantined
    await store.close()
    assert "there was no database" in said
    assert (tmp_path / "quarantine" / "big").read_bytes() == _BIG


@pytest.mark.parametrize("damaged", [False, True])
async def test_the_spool_of_an_older_release_goes_on(tmp_path: Path, damaged: bool) -> None:
    await spool_with_mail(tmp_path)
    connection = sqlite3.connect(tmp_path / "relay.db")
    connection.execute("DROP INDEX events_by_message")
    for table, column in (
        ("recipients", "dsn"), ("recipients", "told_of_delay"), ("recipients", "last_reply"), ("events", "dsn"),
        ("recipients", "last_class"), ("recipients", "last_host"), ("messages", "checksum"),
    ):  # fmt: skip
        connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    for table in ("suppressions", "account_pauses", "mta_sts", "tls_results", "clock"):
        connection.execute(f"DROP TABLE {table}")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    if damaged:
        damage_an_index(tmp_path)
    said = await assert_all_there(tmp_path)
    assert bool(said) == damaged


def fail(connection: sqlite3.Connection) -> int:
    raise StoreError("not now")


async def opened(directory: Path) -> tuple[list[str], tuple[str, ...]]:
    """Who is due after a start that must succeed, whatever was done to the files; and what was set aside."""
    store = SqliteStore(directory)
    recovered = await store.open()
    try:
        due = await store.due(NOW, 1000)
        for queued in due:
            with contextlib.suppress(KeyError):
                await store.content(queued.message_id)
        return addresses(due), tuple(recovered.quarantined)
    finally:
        await store.close()


async def test_a_flipped_bit_is_survived_and_whatever_it_costs_is_said(tmp_path: Path) -> None:
    """In a text it may go unseen: SQLite has no checksums. But no start fails, and no recipient vanishes silently."""
    sound = (await spool_with_mail(tmp_path / "sound")) / "relay.db"
    size, dice, said = sound.stat().st_size, random.Random(1), 0
    for _ in range(150):
        directory = shutil.copytree(sound.parent, tmp_path / "flipped")
        bit = dice.randrange(size * 8)
        with (directory / "relay.db").open("r+b") as file:
            file.seek(bit // 8)
            (octet,) = file.read(1)
            file.seek(bit // 8)
            file.write(bytes([octet ^ 1 << bit % 8]))
        due, quarantined = await opened(directory)
        assert quarantined or len(due) == len(_SMALL) + 1, f"bit {bit}"
        said += bool(quarantined)
        if quarantined:
            assert (await opened(directory))[1] == (), "the next start finds nothing to say"
        shutil.rmtree(directory)
    assert said > 5, "some were seen"


async def test_a_definition_that_is_no_text_any_more_is_damage_like_any_other(tmp_path: Path) -> None:
    await spool_with_mail(tmp_path)
    database = tmp_path / "relay.db"
    octets = database.read_bytes()
    assert octets.count(b"INDEX recipients_by_time") == 1
    database.write_bytes(octets.replace(b"INDEX recipients_by_time", b"IND\xacX recipients_by_time"))
    assert await assert_all_there(tmp_path)


@pytest.mark.parametrize("damaged", [b"header_messege_id", b"header_mess\xacge_id"], ids=["a text", "no text"])
async def test_a_column_whose_name_is_damaged_costs_no_message(tmp_path: Path, damaged: bytes) -> None:
    await spool_with_mail(tmp_path)
    database = tmp_path / "relay.db"
    octets = database.read_bytes()
    assert octets.count(b"header_message_id TEXT") == 1
    database.write_bytes(octets.replace(b"header_message_id TEXT", damaged + b" TEXT"))
    assert await assert_all_there(tmp_path)


async def test_a_text_that_is_no_text_any_more_keeps_nobody_from_reading_the_queue(tmp_path: Path) -> None:
    await spool_with_mail(tmp_path)
    connection = sqlite3.connect(tmp_path / "relay.db")
    connection.execute("UPDATE messages SET reverse_path = CAST(x'616e61ac' AS TEXT) WHERE seq = 1")
    connection.commit()
    connection.close()
    store = SqliteStore(tmp_path)
    await store.open()
    try:
        assert [one.reverse_path for one in await store.due(NOW, 1)] == ["ana\ufffd"]
    finally:
        await store.close()


async def test_a_damaged_spool_of_a_newer_release_is_left_to_it(tmp_path: Path) -> None:
    """What it keeps in tables of its own would not be salvaged here."""
    database = (await spool_with_mail(tmp_path)) / "relay.db"
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    damage_an_index(tmp_path)
    before = database.read_bytes()
    with pytest.raises(StoreError, match="newer release"):
        await opened(tmp_path)
    assert database.read_bytes() == before
    assert not (tmp_path / "quarantine").exists()


async def test_an_event_whose_index_is_damaged_is_dropped_in_its_time_with_the_others(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    await store.open()
    queued = await store.accept(message(_SMALL))
    await store.record([delivered(one) for one in queued])
    await store.close()
    database = tmp_path / "relay.db"
    damaged = database.read_bytes()
    entry = queued[0].message_id.encode() + bytes([7])  # of the message's event 7
    assert damaged.count(entry) == 1
    database.write_bytes(damaged.replace(entry, b"x" + entry[1:]))
    store = SqliteStore(tmp_path)
    assert not (await store.open()).quarantined
    assert await store.prune(NOW + 3600) >= len(_SMALL)
    assert not await store.read(lambda tables: tables.execute("SELECT * FROM events NOT INDEXED").fetchall())
    await store.close()


async def test_an_index_that_has_lost_an_entry_is_made_anew(tmp_path: Path) -> None:
    await spool_with_mail(tmp_path)
    connection = sqlite3.connect(tmp_path / "relay.db")
    connection.execute("PRAGMA writable_schema = ON")
    hidden = "CREATE INDEX recipients_by_time ON recipients (next_attempt_at, id, domain) WHERE address > '1'"
    plain = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'recipients_by_time'").fetchone()[0]
    for sql in (hidden, plain):
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'recipients_by_time'", (sql,))
        connection.commit()
        connection.close()
        connection = sqlite3.connect(tmp_path / "relay.db")
        if sql is hidden:
            connection.execute("REINDEX recipients_by_time")
        connection.execute("PRAGMA writable_schema = ON")
    connection.close()
    assert "missing from index" in (await assert_all_there(tmp_path))[0]


@pytest.mark.parametrize("what", ["recipients", "events", "recipients_by_time"])
async def test_a_definition_that_is_gone_is_damage(tmp_path: Path, what: str) -> None:
    await spool_with_mail(tmp_path)
    connection = sqlite3.connect(tmp_path / "relay.db")
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_schema SET sql = replace(sql, ?1, 'x' || substr(?1, 2)),"
                       " name = 'x' || substr(name, 2), tbl_name = replace(tbl_name, ?1, 'x' || substr(?1, 2))"
                       " WHERE name = ?1", (what,))  # fmt: skip
    connection.commit()
    connection.close()
    due, quarantined = await opened(tmp_path)
    assert quarantined
    assert len(due) == (0 if what == "recipients" else 41)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.7, 0.99])
async def test_a_database_cut_short_gives_what_is_left(tmp_path: Path, part: float) -> None:
    database = (await spool_with_mail(tmp_path)) / "relay.db"
    os.truncate(database, int(database.stat().st_size * part))
    due, quarantined = await opened(tmp_path)
    assert quarantined or len(due) == 41  # the last page may be a free one
    assert bool(quarantined) == (tmp_path / "quarantine").exists()


async def test_a_log_cut_short_or_overwritten_takes_away_the_latest_only(tmp_path: Path) -> None:
    """The write-ahead log's frames carry checksums: what follows a damaged one was never there."""
    store = SqliteStore(tmp_path / "sound")
    await store.open()
    for address in _SMALL:
        await store.accept(message([address]))
    killed = shutil.copytree(tmp_path / "sound", tmp_path / "killed")
    await store.close()
    size, dice = (killed / "relay.db-wal").stat().st_size, random.Random(2)
    seen = set()
    for cut in (0, 10, size - 1, *(dice.randrange(size) for _ in range(10))):
        for garbage in (b"", os.urandom(1000)):
            directory = shutil.copytree(killed, tmp_path / "cut")
            os.truncate(directory / "relay.db-wal", cut)
            with (directory / "relay.db-wal").open("ab") as log:
                log.write(garbage)
            due, quarantined = await opened(directory)
            assert due == _SMALL[: len(due)], "the first ones, in their order"
            assert not quarantined
            seen.add(len(due))
            shutil.rmtree(directory)
    assert len(seen) > 5


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("place", [20, 40, 150_000])  # in the log's header, in its first frame, further on
async def test_a_log_that_is_damaged_amid_what_was_acknowledged_is_kept_and_said(
    tmp_path: Path, place: int, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """What follows the damage is not read; but the contents that it told of are no strays."""
    store = SqliteStore(tmp_path / "sound")
    await store.open()
    for address in _SMALL:
        await store.accept(message([address]))
    (store.incoming / "big").write_bytes(_BIG)
    await store.accept(message(["big@x.example"], content=store.incoming / "big", identifier="big"))
    killed = shutil.copytree(tmp_path / "sound", tmp_path / "killed")
    await store.close()
    log = bytearray((killed / "relay.db-wal").read_bytes())
    log[place] ^= 1
    (killed / "relay.db-wal").write_bytes(log)
    if fails:  # the start, for another reason: the log goes with the connection all the same
        with monkeypatch.context() as patched:
            patched.setattr(schema, "known_version", fail)
            with pytest.raises(StoreError, match="not now"):
                await opened(killed)
    due, quarantined = await opened(killed)
    assert due == _SMALL[: len(due)]
    assert len(due) < len(_SMALL)
    assert fails or "log was damaged" in quarantined[0]
    (kept,) = (killed / "quarantine").glob("relay.db-wal*")
    assert kept.read_bytes() == log
    assert (killed / "quarantine" / "big").read_bytes() == _BIG
    assert (await opened(killed))[1] == ()
