"""What a start finds after a full disk, a kill or damage: nothing that was accepted is gone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.relay.store.contract import BODY, NOW, addresses, message

from malote_relay.store import recovery, schema
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
        assert isinstance(content, Path)
        assert content.read_bytes() == _BIG
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
    for column in ("dsn", "told_of_delay", "last_reply"):
        connection.execute(f"ALTER TABLE recipients DROP COLUMN {column}")
    for table in ("mta_sts", "tls_results"):
        connection.execute(f"DROP TABLE {table}")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    if damaged:
        damage_an_index(tmp_path)
    said = await assert_all_there(tmp_path)
    assert bool(said) == damaged
