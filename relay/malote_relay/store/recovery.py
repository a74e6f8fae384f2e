"""What happens before a store is used: integrity, salvage, strays. Whatever is set aside is said in words.

Nothing is thrown away that may have been accepted. Damage is only what SQLite calls damage: then the database is
salvaged (see `salvage`). A disk that is full or fails says nothing about the database: the store cannot be used for
now, and everything stays as it is.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from pathlib import Path
from typing import Final

from malote_relay.store import salvage, schema, wal
from malote_relay.store.layout import Layout, sync_directory
from malote_relay.store.model import StoreError
from malote_relay.store.salvage import set_aside

_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_QUEUE: Final = ("messages", "recipients")
"""Checked against their indexes too, a look-up for each row: what an index has lost would never be due."""
_ERROR_CODE: Final = re.compile(r"error code[= ](\d+)")


class _Damaged(Exception):
    """The database is damaged, with SQLite's words."""


def prepare(layout: Layout) -> tuple[sqlite3.Connection, list[str]]:
    """A sound database of the current version, its directories in order, and what had to be set aside.

    Raises StoreError, OSError and sqlite3.Error when there cannot be one now; nothing accepted is gone then.
    """
    for directory in (layout.directory, layout.incoming, layout.spool):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    said = _before_opening(layout)
    try:
        connection = _sound(layout, said)
    except _Damaged as damage:
        said.append(salvage.salvage(layout, str(damage)))
        connection = _sound(layout, said)
    try:
        said += _clear_strays(layout, connection)
        said += _damaged_files(layout, connection)
        # The first transaction creates the log: with it in the directory the directory can be made durable.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM hours WHERE charged <= 0")
        connection.execute("COMMIT")
        sync_directory(layout.directory)
        sync_directory(layout.directory.parent)
    except BaseException:
        connection.close()
        raise
    return connection, said


def _before_opening(layout: Layout) -> list[str]:
    """Finish a salvage that was cut short; keep contents whose database is gone."""
    if not layout.database.exists() and layout.salvaged.exists():
        return [salvage.finish(layout)]
    salvage.discard_unfinished(layout)
    if layout.database.exists() and layout.database.stat().st_size:
        return []
    # A new database would know none of them, and they would go as strays.
    said = salvage.set_aside_contents(layout)
    return [f"there was no database {layout.database}: {said}"] if said else []


def _sound(layout: Layout, said: list[str]) -> sqlite3.Connection:
    """The database, checked and of the current version. Raises _Damaged, and sqlite3.Error for everything else.

    A log of which a part could not be read is set aside, and that is added to what is `said`.
    """
    database = layout.database
    connection: sqlite3.Connection | None = None
    try:
        connection = schema.connect(database)
        if broken := _log_is_broken(layout, connection):
            said.append(f"{broken}; {_set_log_aside(layout, connection)}")
            connection.close()  # what was kept must not be written to any more
            connection = schema.connect(database)
        schema.known_version(connection)  # what a newer release would salvage, this one must not
        _check(database, connection, "quick_check(3)")
        schema.migrate(connection)
        if missing := schema.missing(connection):
            raise _Damaged(f"it has no {', '.join(missing)}")
        for table in _QUEUE:
            _check(database, connection, f"integrity_check({table})")
    except UnicodeDecodeError as error:  # the definition that SQLite complains of is quoted in its complaint
        if connection is not None:
            connection.close()
        raise _Damaged(f"a definition is no text: {error}") from error
    except BaseException as error:
        if connection is not None:
            connection.close()
        if not isinstance(error, _Damaged) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
            raise _Damaged(str(error)) from error
        raise
    return connection


def _log_is_broken(layout: Layout, connection: sqlite3.Connection) -> str:
    """How much of the log is not read though it was acknowledged, in words; "" for none. Nothing is written to it."""
    log = wal.of(layout.database)
    if not log.exists():
        return ""
    try:  # tells how much of it was read, too
        _, frames, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            return ""
        raise
    (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    count = wal.unread(log, max(0, frames), page_size)
    if count <= wal.UNFINISHED:
        return ""
    return f"the database's log was damaged: what the last {count} transactions in it had changed may be lost"


def _set_log_aside(layout: Layout, connection: sqlite3.Connection) -> str:
    """Keep the log, and the contents of which only it has told; where, in words.

    At once: the connection removes it when it is closed, whatever else fails.
    """
    aside = salvage.link_aside(layout, wal.of(layout.database))
    contents = salvage.set_aside_contents(layout, _in_files(connection))
    return f"it is kept as {aside}; {contents}" if contents else f"it is kept as {aside}"


def _check(database: Path, connection: sqlite3.Connection, check: str) -> None:
    """Run one of SQLite's checks. Raises what its findings mean."""
    findings = [finding for (finding,) in connection.execute(f"PRAGMA {check}") if finding != "ok"]
    if findings:
        raise _judged(database, " ".join(" ".join(findings).split()))


def _judged(database: Path, findings: str) -> Exception:
    """What the findings of a check mean: one of them may be that a page could not be read at all."""
    codes = {int(code) & 0xFF for code in _ERROR_CODE.findall(findings)}
    if codes - set(_DAMAGE):
        return StoreError(f"{database} could not be read to the end: {findings}")
    return _Damaged(findings)


def _clear_strays(layout: Layout, connection: sqlite3.Connection) -> list[str]:
    """Remove content that was never accepted: a sound database names all that was. What is no file is set aside."""
    known = _in_files(connection)
    strays = [*layout.incoming.iterdir(), *(path for path in layout.spool.iterdir() if path.name not in known)]
    said = []
    for stray in strays:
        if stray.is_dir() and not stray.is_symlink():
            said.append(
                f"{stray} is a directory, which the relay never makes; it is kept as {set_aside(layout, stray)}"
            )
        else:
            stray.unlink()
    return said


def _in_files(connection: sqlite3.Connection) -> set[str]:
    """The messages whose content is a file."""
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'messages'").fetchone():
        return set()
    return {message for (message,) in connection.execute("SELECT id FROM messages WHERE content IS NULL")}


def _damaged_files(layout: Layout, connection: sqlite3.Connection) -> list[str]:
    """Say which messages have lost their content, and keep what is left of it aside.

    They stay in the queue: when their turn comes they fail, and their senders are told (`Store.content`).
    """
    said = []
    for message, size in connection.execute("SELECT id, size FROM messages WHERE content IS NULL").fetchall():
        file = layout.spool / message
        if not (found := damage(file, size)):
            continue
        words = f"message {message}: its content {found}: the spool was damaged. It will not be delivered"
        said.append(f"{words}; what is left is kept as {set_aside(layout, file)}" if os.path.lexists(file) else words)
    return said


def damage(file: Path, size: int) -> str:
    """What is wrong with a content file that was accepted with this size; "" for nothing. Raises OSError."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return "is missing"
    if not stat.S_ISREG(status.st_mode):
        return "is no file"
    return f"has {status.st_size} octets of {size}" if status.st_size != size else ""
