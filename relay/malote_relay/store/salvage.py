"""What becomes of a damaged database: what can still be read goes into a new one, the old one is kept aside.

It may be cut short at any point, by a kill or by the loss of power, and nothing is lost by that. The new database
is written as ``relay.db.new`` while the damaged one stays where it is; only when it is complete and synced does the
damaged one go to `quarantine/`. So at a start there is either the damaged ``relay.db``, and salvage begins anew; or
only ``relay.db.new``, and what is left to do is `finish`: set aside, then give it its name.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from malote_relay.store import schema
from malote_relay.store.layout import Layout, sync_directory
from malote_relay.store.model import StoreError

_UNREADABLE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""What reading a damaged table ends with (the last: its definition is gone). Everything else, like a failing disk or
too little room, says nothing about the table and must not pass for its end."""


def salvage(layout: Layout, why: str) -> str:
    """Put a sound database in the place of the damaged one; what was done, in words. Raises StoreError.

    After an error the damaged database is where it was.
    """
    discard_unfinished(layout)
    try:
        _copy(layout.database, layout.salvaged)
    except (OSError, sqlite3.Error) as error:
        discard_unfinished(layout)
        size = layout.database.stat().st_size
        raise StoreError(
            f"{layout.database} is damaged ({why}) and could not be salvaged: {error}. Nothing was removed: "
            f"see to the disk, {size // 1_000_000 + 1} MB must be free on it, then start again"
        ) from error
    sync_directory(layout.directory)
    return finish(layout, why)


def discard_unfinished(layout: Layout) -> None:
    """Remove what a salvage that was cut short has written. Only while the damaged database is in its place!"""
    for suffix in ("", "-journal"):
        layout.salvaged.with_name(layout.salvaged.name + suffix).unlink(missing_ok=True)


def finish(layout: Layout, why: str = "it was being salvaged when the relay was stopped") -> str:
    """Set the damaged database and unknown contents aside, then put the complete new one in force."""
    counts, known = _told(layout.salvaged)
    # Named by when the new one was complete: the same name, however often this is begun.
    aside = layout.quarantine / f"relay-{_stamp(layout.salvaged)}.db"
    layout.quarantine.mkdir(mode=0o700, exist_ok=True)
    # The log last: until the database is safely out of the way, it needs its log.
    for suffixes in (("",), ("-wal", "-shm")):
        for suffix in suffixes:
            part = layout.database.with_name(layout.database.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        sync_directory(layout.quarantine)
        sync_directory(layout.directory)
    strays = set_aside_contents(layout, known)
    layout.salvaged.rename(layout.database)
    sync_directory(layout.directory)
    rows = ", ".join(f"{count} {table}" for table, count in counts.items())
    said = f"the database was damaged ({why}); it is kept as {aside}; salvaged from it: {rows}"
    return f"{said}; {strays}" if strays else said


def set_aside_contents(layout: Layout, known: Collection[str] = ()) -> str:
    """Move contents that no message names out of the spool, to be looked at; what was moved, in words."""
    strays = [path for path in layout.spool.iterdir() if path.name not in known]
    if not strays:
        return ""
    layout.quarantine.mkdir(mode=0o700, exist_ok=True)
    for stray in strays:
        stray.rename(layout.quarantine / stray.name)
    sync_directory(layout.quarantine)
    sync_directory(layout.spool)
    return f"{len(strays)} contents without a message in the database are kept in {layout.quarantine}"


def set_aside(layout: Layout, path: Path) -> Path:
    """Move something damaged out of the way, to be looked at; where it is then. Raises OSError."""
    layout.quarantine.mkdir(mode=0o700, exist_ok=True)
    aside, number = layout.quarantine / path.name, 0
    while os.path.lexists(aside):
        number += 1
        aside = aside.with_name(f"{path.name}.{number}")
    path.rename(aside)
    sync_directory(layout.quarantine)
    sync_directory(path.parent)
    return aside


def link_aside(layout: Layout, path: Path) -> Path:
    """Keep a damaged file aside under a second name, until its first one is removed; where. Raises OSError."""
    layout.quarantine.mkdir(mode=0o700, exist_ok=True)
    aside = layout.quarantine / f"{path.name}-{_stamp(path)}"
    with contextlib.suppress(FileExistsError):  # by a start that was cut short
        aside.hardlink_to(path)
    sync_directory(layout.quarantine)
    return aside


def _stamp(path: Path) -> str:
    """When a file was last written, as a part of names."""
    return f"{datetime.fromtimestamp(path.stat().st_mtime, UTC):%Y%m%dT%H%M%S.%fZ}"


def keep_aside(layout: Layout, name: str, octets: bytes) -> Path:
    """Keep a damaged content of the database as a file, once; where it is then. Raises OSError."""
    layout.quarantine.mkdir(mode=0o700, exist_ok=True)
    aside = layout.quarantine / name
    if not os.path.lexists(aside):
        aside.write_bytes(octets)
    return aside


def _told(database: Path) -> tuple[dict[str, int], set[str]]:
    """Rows by table, and the messages whose content is a file."""
    connection = schema.connect(database, read_only=True)
    try:
        counts = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
            for table in _tables(connection)
        }
        return counts, {name for (name,) in connection.execute("SELECT id FROM messages WHERE content IS NULL")}
    finally:
        connection.close()


def _copy(damaged: Path, target: Path) -> None:
    """Copy what can still be read. What hangs in the air is left out."""
    # Without a write-ahead log, one file is the whole database, and renaming it is atomic.
    fresh = schema.connect(target, journal="DELETE")
    try:
        schema.migrate(fresh)
        fresh.execute("BEGIN IMMEDIATE")
        for table in _tables(fresh):
            # By place: a database of an older release has fewer columns, and a damaged name may be any.
            names = [name for (name,) in fresh.execute("SELECT name FROM pragma_table_info(?)", (table,))]
            for row in _readable(damaged, table, len(names)):
                columns, values = ", ".join(names[: len(row)]), ", ".join("?" * len(row))
                try:
                    fresh.execute(
                        f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({values})",  # noqa: S608
                        row,
                    )
                except sqlite3.IntegrityError:  # a damaged row that breaks a rule of the table
                    continue
        fresh.execute("DELETE FROM recipients WHERE id >> 16 NOT IN (SELECT seq FROM messages)")
        fresh.execute("DELETE FROM messages WHERE seq NOT IN (SELECT id >> 16 FROM recipients)")
        fresh.execute("COMMIT")
    finally:
        fresh.close()


def _tables(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return [name for (name,) in found]


def _readable(damaged: Path, table: str, most: int) -> Iterator[tuple[Any, ...]]:
    """The rows before the first damaged page and, from the other end, those after the last; at most `most` columns.

    A database of an older release has fewer columns, or no such table at all.
    """
    for direction in ("ASC", "DESC"):
        connection: sqlite3.Connection | None = None
        try:
            connection = schema.connect(damaged, read_only=True)
            # One damaged definition must not hide the tables whose definitions are sound: with this the first
            # statement fails, and those after it see what could be understood.
            connection.execute("PRAGMA writable_schema = ON")
            with contextlib.suppress(sqlite3.DatabaseError, UnicodeDecodeError):
                connection.execute("SELECT name FROM sqlite_schema").fetchall()
            (count,) = connection.execute("SELECT count(*) FROM pragma_table_info(?)", (table,)).fetchone()
            names = ", ".join(f"c{number}" for number in range(count)) or "nothing"  # not the damaged ones
            rows = connection.execute(
                f"WITH readable ({names}) AS (SELECT * FROM {table} NOT INDEXED ORDER BY rowid {direction})"  # noqa: S608
                " SELECT * FROM readable"
            )
            for row in rows:
                yield row[:most]
        except UnicodeDecodeError:  # SQLite's complaint of a definition that is no text quotes it
            pass
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _UNREADABLE:
                raise
        else:
            return
        finally:
            if connection is not None:
                connection.close()
