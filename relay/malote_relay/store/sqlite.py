"""The store in one SQLite file, with large contents as files beside it.

::

    DIR/relay.db      messages and recipients that wait, the hours' charges, events (see `schema`)
    DIR/incoming/     large contents being received; emptied at start
    DIR/spool/        large contents accepted, named by message id
    DIR/quarantine/   what was found damaged
    DIR/relay.db.new  while a damaged database is being replaced (see `salvage`)
    DIR/lock          held by the process that uses the store
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from malote_relay.store import contents, recovery, salvage, schema, transactions
from malote_relay.store.contents import Damaged, StoredFile
from malote_relay.store.layout import Layout
from malote_relay.store.model import (
    Alongside,
    ClockBack,
    NewMessage,
    Outcome,
    Queued,
    QueueState,
    Recovered,
    Respread,
    StoreError,
)
from malote_relay.store.writer import Alone, Keep, Operation, Record, Recorded, Writer

SMALL_CONTENT: Final = 256 * 1024
"""Up to so many bytes content goes into the database; larger content comes as a file in `incoming`."""

_PRUNE_ROWS: Final = 5000
_GIVE_BACK_PAGES: Final = 500
_CACHED_BYTES: Final = 8 * 1024 * 1024
_LOCK_SECONDS: Final = 10.0
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")

T = TypeVar("T")

_log = structlog.get_logger("malote.store")


class SqliteStore:
    """The store of one relay in `directory`; see `model.Store` for the contract."""

    def __init__(self, directory: Path) -> None:
        self._layout = Layout(directory)
        self._lock: int | None = None
        self._writing: sqlite3.Connection | None = None
        self._writer: Writer | None = None
        self._reading: sqlite3.Connection | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        # Most messages are delivered as soon as they are accepted: their content need not be read back.
        self._cache: dict[str, bytes] = {}
        self._cached_bytes = 0

    @property
    def directory(self) -> Path:
        """The whole spool's."""
        return self._layout.directory

    @property
    def incoming(self) -> Path:
        """Where a large message's content is written before `accept`; emptied of strays at start."""
        return self._layout.incoming

    async def open(self) -> Recovered:
        """See `model.Store.open`. Waits some seconds for another process that is just ending."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._reader, self._open, loop)
        except Exception as error:
            self._release()
            if isinstance(error, OSError | sqlite3.Error):
                raise StoreError(
                    f"the spool {self._layout.directory} cannot be used: {error}{_name_of(error)}"
                ) from error
            raise

    def _open(self, loop: asyncio.AbstractEventLoop) -> Recovered:
        self._layout.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(self._layout.lock)
        self._writing, said = recovery.prepare(self._layout)
        self._reading = schema.connect(self._layout.database, read_only=True)
        latest, hours = transactions.hours(self._writing)
        self._writer = Writer(self._writing, self._layout.spool, loop)
        return Recovered(hours, latest, tuple(said))

    async def close(self) -> None:
        """Finish what was handed in, then close. Harmless when not open."""
        loop = asyncio.get_running_loop()
        if self._writer is not None:
            await loop.run_in_executor(None, self._writer.close)
            self._writer = None
        self._reader.shutdown()
        self._release()

    def _release(self) -> None:
        for connection in (self._reading, self._writing):
            if connection is not None:
                connection.close()
        self._reading = self._writing = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def accept(self, message: NewMessage) -> Sequence[Queued]:
        """Keep the message and charge its recipients' hours in one transaction."""
        return await self._keep(message, charged=True)

    async def enqueue(self, message: NewMessage) -> Sequence[Queued]:
        """Keep a message of the relay's own, uncharged."""
        return await self._keep(message, charged=False)

    async def _keep(self, message: NewMessage, *, charged: bool) -> Sequence[Queued]:
        if isinstance(message.content, Path) and not _FILE_NAME.fullmatch(message.id):
            raise StoreError(f"the message id {message.id!r} cannot name a file")
        queued: Sequence[Queued] = await self._submit(Keep(message, charged))
        self._remember(message)
        return queued

    def _remember(self, message: NewMessage) -> None:
        content = message.content
        if isinstance(content, bytes) and self._cached_bytes + len(content) <= _CACHED_BYTES:
            self._cache[message.id] = content
            self._cached_bytes += len(content)

    async def record(
        self, outcomes: Sequence[Outcome], *, notices: Sequence[NewMessage] = (), alongside: Alongside | None = None
    ) -> Sequence[Sequence[Queued]]:
        """Write the ends of attempts, and what belongs to them; drop content that no recipient waits for any more."""
        if not outcomes:
            return ()
        recorded: Recorded = await self._submit(Record(outcomes, notices, alongside))
        for message in recorded.messages:
            if (content := self._cache.pop(message, None)) is not None:
                self._cached_bytes -= len(content)
        for notice in notices:
            self._remember(notice)
        if alongside is not None:
            try:
                alongside.written(recorded.trouble)
            except Exception:  # it is committed: to raise would have it written, and told of, once more
                _log.exception("what was written alongside could not be noted")
        return recorded.queued

    async def respread(self, plan: Respread) -> None:
        """Give what is held new hours and times."""
        await self._submit(Alone(plan))

    async def clock_went_back(self, clock: ClockBack) -> int:
        """Bring forward what waits for times of a clock that ran ahead; how many recipients."""
        brought: int = await self._submit(Alone(clock))
        return brought

    async def prune(self, before: float) -> int:
        """Drop events and hours older than `before`, in transactions short enough for others to get between."""
        total = 0
        while rows := await self.write(partial(transactions.prune, before=before, limit=_PRUNE_ROWS)):
            total += rows
        return total

    async def make_room(self, floor: int) -> int:
        """Give back what the database no longer uses, if there is little room; as `prune`, in short transactions."""
        given = 0
        while self._little_room(floor):
            if not (pages := await self._submit(Alone(_give_back, checkpoint=True))):
                break
            given += pages * schema.PAGE
        return given

    def _little_room(self, floor: int) -> bool:
        disk = os.statvfs(self._layout.directory)
        return disk.f_bavail * disk.f_frsize < max(2 * floor, disk.f_blocks * disk.f_frsize // 10)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction of its own; see `model.Tables`."""
        answer: T = await self._submit(Alone(work))
        return answer

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query on what is committed; see `model.Tables`."""
        answer: T = await self._read(query)
        return answer

    async def due(
        self, now: float, limit: int, *, excluding: Iterable[int] = (), excluding_domains: Collection[str] = ()
    ) -> Sequence[Queued]:
        """Recipients whose time has come, in the order of their time and then of arrival; at most `limit`."""
        leave_out = tuple(excluding), tuple(excluding_domains)
        queued: Sequence[Queued] = await self._read(transactions.due, now, limit, *leave_out)
        return queued

    async def next_time(self, after: float) -> float | None:
        """The earliest attempt time later than `after`, or None."""
        earliest: float | None = await self._read(transactions.next_time, after)
        return earliest

    async def content(self, message_id: str) -> bytes | StoredFile:
        """The message as accepted. Raises KeyError when it is gone, Damaged when it is not what was accepted."""
        if (cached := self._cache.get(message_id)) is not None:
            return cached
        content: bytes | StoredFile = await self._read(self._content, message_id)
        return content

    def _content(self, connection: sqlite3.Connection, message_id: str) -> bytes | StoredFile:
        kept, size, summed = transactions.content(connection, message_id)
        if kept is not None:
            contents.check(message_id, contents.checksum(kept), summed)
            return kept
        file = self._layout.spool / message_id
        if found := recovery.damage(file, size):
            raise Damaged(f"message {message_id}: its content {found}")
        return StoredFile(file, summed)

    async def set_aside(self, message_id: str) -> str:
        """Keep what is left of a damaged content in quarantine; where, "" for nowhere. Raises OSError."""
        where: str = await self._read(self._set_aside, message_id)
        return where

    def _set_aside(self, connection: sqlite3.Connection, message_id: str) -> str:
        kept, _, _ = transactions.content(connection, message_id)
        if kept is not None:
            return str(salvage.keep_aside(self._layout, message_id, kept))
        file = self._layout.spool / message_id
        return str(salvage.set_aside(self._layout, file)) if os.path.lexists(file) else ""

    async def queue_state(self, now: float) -> QueueState:
        """Counts for metrics, from the writer's tally."""
        oldest: float | None = await self._read(transactions.oldest)
        tally = self._open_writer().tally
        held = sum(count for hour, count in dict(tally.held).items() if hour * 3600 > now)
        return QueueState(tally.total - tally.deferred - held, tally.deferred, held, oldest)

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise StoreError("the store is not open")
        return self._writer

    async def _submit(self, operation: Operation) -> Any:
        # A caller that is cancelled ends the future and not the operation: the writer's thread knows no futures.
        return await self._open_writer().submit(operation)

    async def _read(self, query: Any, *arguments: Any) -> Any:
        if self._reading is None:
            raise StoreError("the store is not open")
        return await asyncio.get_running_loop().run_in_executor(
            self._reader, partial(query, self._reading, *arguments)
        )


_give_back: Final = partial(transactions.give_back, pages=_GIVE_BACK_PAGES)


def _name_of(error: OSError | sqlite3.Error) -> str:
    """SQLite's words for the failures of a disk are all alike; its names are not."""
    name = getattr(error, "sqlite_errorname", "")
    return f" ({name})" if name else ""


def _lock(path: Path) -> int:
    """Keep a second process out: two relays on one spool would deliver everything twice."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                raise StoreError(f"another process uses the spool {path.parent}: end it first") from None
            time.sleep(0.05)
        else:
            return descriptor
