"""What happens before a store is used: integrity, salvage, strays. Whatever is set aside is said in words.

Nothing is thrown away that may have been accepted. Damage is only what SQLite calls damage: then the database is
salvaged (see `salvage`). A disk that is full or fails says nothing about the database: the store cannot be used for
now, and everything stays as it is.
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Final

from malote_relay.store import salvage, schema
from malote_relay.store.layout import Layout, sync_directory
from malote_relay.store.model import StoreError

_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
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
        connection = _sound(layout.database)
    except _Damaged as damage:
        said.append(salvage.salvage(layout, str(damage)))
        connection = _sound(layout.database)
    try:
        _clear_strays(layout, connection)
        said += _missing_files(layout, connection)
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


def _sound(database: Path) -> sqlite3.Connection:
    """The database, checked and of the current version. Raises _Damaged, and sqlite3.Error for everything else."""
    connection: sqlite3.Connection | None = None
    try:
        connection = schema.connect(database)
        findings = [finding for (finding,) in connection.execute("PRAGMA quick_check(3)") if finding != "ok"]
        if findings:
            raise _judged(database, " ".join(" ".join(findings).split()))
        schema.migrate(connection)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
            raise _Damaged(str(error)) from error
        raise
    return connection


def _judged(database: Path, findings: str) -> Exception:
    """What the findings of a check mean: one of them may be that a page could not be read at all."""
    codes = {int(code) & 0xFF for code in _ERROR_CODE.findall(findings)}
    if codes - set(_DAMAGE):
        return StoreError(f"{database} could not be read to the end: {findings}")
    return _Damaged(findings)


def _clear_strays(layout: Layout, connection: sqlite3.Connection) -> None:
    """Remove content that was never accepted: a sound database names all that was."""
    for stray in layout.incoming.iterdir():
        stray.unlink()
    known = {message for (message,) in connection.execute("SELECT id FROM messages WHERE content IS NULL")}
    for path in layout.spool.iterdir():
        if path.name not in known:
            path.unlink()


def _missing_files(layout: Layout, connection: sqlite3.Connection) -> list[str]:
    """Take messages whose content is gone off the queue, with an event that says so."""
    present = {path.name for path in layout.spool.iterdir()}
    rows = connection.execute("SELECT seq, id FROM messages WHERE content IS NULL").fetchall()
    said = []
    for seq, message in rows:
        if message in present:
            continue
        reply = "the content file was missing when the relay started: the spool was damaged"
        connection.execute("BEGIN IMMEDIATE")
        waiting = connection.execute(
            "INSERT INTO events (at, message, account, reverse_path, header_from, recipient, domain, status,"
            " bounce_class, reply, host, tls, attempt, received_at, size, flags)"
            " SELECT max(r.next_attempt_at, m.received_at), m.id, m.account, m.reverse_path, m.header_from,"
            " r.address, r.domain, 'failed', '', ?1, '', '', r.attempts,"
            " m.received_at, m.size, m.flags"
            " FROM messages AS m JOIN recipients AS r ON r.id >> 16 = m.seq WHERE m.seq = ?2",
            (reply, seq),
        ).rowcount
        connection.execute("DELETE FROM recipients WHERE id >> 16 = ?", (seq,))
        connection.execute("DELETE FROM messages WHERE seq = ?", (seq,))
        connection.execute("COMMIT")
        said.append(f"message {message}: {reply}; {waiting} recipients will not get it")
    return said
