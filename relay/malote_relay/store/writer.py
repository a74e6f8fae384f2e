"""Group commit: one thread that writes what all sessions wait for in one transaction and one sync.

While a transaction is being synced, the next operations queue up; the thread then takes all of them at once. So
the cost of a sync is shared by whoever waits, and a lone message waits for nobody.
"""

from __future__ import annotations

import asyncio
import errno
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from malote_relay.store import transactions
from malote_relay.store.layout import sync_directory
from malote_relay.store.model import (
    Alongside,
    ClockBack,
    DiskFull,
    Hour,
    NewMessage,
    Outcome,
    Queued,
    Respread,
    StoreError,
)
from malote_relay.store.schema import MAX_RECIPIENTS
from malote_relay.store.transactions import Ended, Kept

_BATCH: Final = 512
_RETRY_SECONDS: Final = 0.5
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Keep:
    """Keep a message; answers the queued recipients."""

    message: NewMessage
    charged: bool


@dataclass(frozen=True, slots=True)
class Record:
    """Record ends of attempts, with what belongs to them; answers `Recorded`. Waits for room."""

    outcomes: Sequence[Outcome]
    notices: Sequence[NewMessage] = ()
    alongside: Alongside | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """The ids of messages that are complete, the notices' recipients as queued, and why what was to be written
    alongside was not.
    """

    messages: Sequence[str]
    queued: Sequence[Sequence[Queued]] = ()
    trouble: Exception | None = None


@dataclass(frozen=True, slots=True)
class Alone:
    """An operation in a transaction of its own."""

    work: Respread | ClockBack | Callable[[sqlite3.Connection], Any]
    """The last: anything that changes nothing of what waits; its answer is the operation's."""
    checkpoint: bool = False
    """Whether the log goes into the database afterwards: only then its file becomes shorter."""


Operation = Keep | Record | Alone


@dataclass(slots=True)
class Tally:
    """What waits, kept up by the writer after each commit, so that nobody has to count a long queue."""

    total: int = 0
    deferred: int = 0
    held: dict[Hour, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Waiting:
    operation: Operation
    future: asyncio.Future[Any]


_Answer = tuple[asyncio.Future[Any], Any]


class Writer:
    """Owns the writing connection. `submit` from the event loop; everything else happens in the thread."""

    def __init__(self, connection: sqlite3.Connection, spool: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._spool = spool
        self._loop = loop
        self._seq = transactions.last_seq(connection)
        self.tally = Tally(*transactions.waiting(connection))
        self._queue: deque[_Waiting] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._latest: Hour = 0
        """The latest hour that is known to be kept as begun."""
        self._moved: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, operation: Operation) -> asyncio.Future[Any]:
        """Hand in an operation; the future ends after its commit. Order is kept."""
        future: asyncio.Future[Any] = self._loop.create_future()
        with self._wake:
            if self._closing:
                raise StoreError("the store is closed")
            self._queue.append(_Waiting(operation, future))
            self._wake.notify()
        return future

    def close(self) -> None:
        """Finish what was handed in and end the thread. Blocks."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        stuck: list[_Waiting] = []
        while True:
            with self._wake:
                if stuck:
                    self._wake.wait_for(lambda: self._closing, timeout=_RETRY_SECONDS)
                else:
                    self._wake.wait_for(lambda: self._queue or self._closing)
                closing = self._closing
                batch = self._take()
            if not batch and not stuck and closing:
                return
            answers, stuck = self._one_by_one(stuck)
            if batch:
                more_answers, more_stuck = self._write(batch)
                answers += more_answers
                stuck += more_stuck
            if stuck and closing:
                answers += [(waiting.future, DiskFull("the disk is full")) for waiting in stuck]
                stuck = []
            self._loop.call_soon_threadsafe(_resolve, answers)

    def _take(self) -> list[_Waiting]:
        """The operations of the next transaction, in order: one that wants to be alone ends it."""
        if self._queue and isinstance(self._queue[0].operation, Alone):
            return [self._queue.popleft()]
        batch: list[_Waiting] = []
        while self._queue and len(batch) < _BATCH and not isinstance(self._queue[0].operation, Alone):
            batch.append(self._queue.popleft())
        return batch

    def _write(self, batch: Sequence[_Waiting]) -> tuple[list[_Answer], list[_Waiting]]:
        """One transaction for all; if it fails, one for each, so that nobody fails for another's sake."""
        try:
            results = self._transaction([waiting.operation for waiting in batch])
        except Exception as error:
            if len(batch) == 1:
                return self._failed(batch[0], error)
            return self._one_by_one(batch)
        return [(waiting.future, result) for waiting, result in zip(batch, results, strict=True)], []

    def _one_by_one(self, batch: Sequence[_Waiting]) -> tuple[list[_Answer], list[_Waiting]]:
        answers: list[_Answer] = []
        stuck: list[_Waiting] = []
        for waiting in batch:
            more_answers, more_stuck = self._write([waiting])
            answers += more_answers
            stuck += more_stuck
        return answers, stuck

    def _failed(self, waiting: _Waiting, error: Exception) -> tuple[list[_Answer], list[_Waiting]]:
        no_room = _is_no_room(error)
        if no_room and not isinstance(waiting.operation, Keep):
            # Reusing the log's pages may be all the room there is.
            _quietly(lambda: self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
            return [], [waiting]
        if isinstance(waiting.operation, Keep) and waiting.operation.message.id in self._moved:
            self._moved.remove(waiting.operation.message.id)
            # What failed for another reason, like a sync, may be in the log all the same, and be there after a kill:
            # whole. Else the file is a stray, and goes at the next start.
            if no_room or isinstance(error, StoreError):
                _quietly((self._spool / waiting.operation.message.id).unlink)
        if no_room:
            return [(waiting.future, DiskFull("the disk is full"))], []
        return [(waiting.future, error if isinstance(error, StoreError) else StoreError(f"not stored: {error}"))], []

    def _transaction(self, operations: Sequence[Operation]) -> list[Any]:
        if isinstance(operations[0], Alone):
            return [self._alone(operation) for operation in operations if isinstance(operation, Alone)]
        kept: list[Kept] = []
        for operation in operations:
            if isinstance(operation, Keep):
                kept.append(self._number(operation.message, charged=operation.charged))
            elif isinstance(operation, Record):
                kept += [self._number(notice, charged=False) for notice in operation.notices]
        outcomes = [
            outcome for operation in operations if isinstance(operation, Record) for outcome in operation.outcomes
        ]
        latest = max((one.message.accepted_in for one in kept), default=0)
        self._take_over_files(kept)
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            queued = transactions.insert(connection, kept) if kept else []
            if latest > self._latest:
                transactions.begun(connection, latest)
            ended = transactions.record(connection, outcomes) if outcomes else Ended(0, 0, 0, (), ())
            troubles = [self._alongside(one.alongside) if isinstance(one, Record) else None for one in operations]
            connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        self._latest = max(self._latest, latest)
        self._moved.difference_update(one.message.id for one in kept)  # others' wait for their own transactions
        self._count(kept, ended)
        for name in ended.files:
            _quietly((self._spool / name).unlink)
        answers = iter(queued)
        return [
            Recorded(ended.messages, [next(answers) for _ in operation.notices], trouble)
            if isinstance(operation, Record)
            else next(answers)
            for operation, trouble in zip(operations, troubles, strict=True)
        ]

    def _alongside(self, alongside: Alongside | None) -> Exception | None:
        """Write what belongs to ends of attempts; whatever is wrong with it must not keep them from being written."""
        if alongside is None:
            return None
        connection = self._connection
        connection.execute("SAVEPOINT alongside")
        try:
            alongside.write(connection)
        except Exception as error:
            if _is_no_room(error) or not connection.in_transaction:
                raise
            connection.execute("ROLLBACK TO alongside")
            connection.execute("RELEASE alongside")
            return error
        connection.execute("RELEASE alongside")
        return None

    def _alone(self, operation: Alone) -> Any:
        connection, work, tally = self._connection, operation.work, self.tally
        held: dict[Hour, int] | None = None
        changed: Any
        connection.execute("BEGIN IMMEDIATE")
        try:
            if isinstance(work, Respread | ClockBack):
                transactions.begun(connection, work.current)
            if isinstance(work, Respread):
                held = transactions.move_held(connection, work)
                changed = sum(held.values()) if held else 0
            elif isinstance(work, ClockBack):
                changed = transactions.bring_forward(connection, work)
            else:
                changed = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        if isinstance(work, Respread):
            if held is not None:
                tally.held = {hour: n for hour, n in tally.held.items() if hour <= work.current} | held
        elif isinstance(work, ClockBack):
            tally.held = {hour: n for hour, n in tally.held.items() if hour > work.current}
        if operation.checkpoint:
            _quietly(lambda: connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall())
        return changed

    def _roll_back(self) -> None:
        if self._connection.in_transaction:  # some errors (a full disk) have rolled back already
            self._connection.execute("ROLLBACK")

    def _number(self, message: NewMessage, *, charged: bool) -> Kept:
        if not 0 < len(message.recipients) <= MAX_RECIPIENTS:
            raise StoreError(f"{len(message.recipients)} recipients: 1 to {MAX_RECIPIENTS} can be kept")
        self._seq += 1
        return Kept(self._seq, message, charged, in_file=isinstance(message.content, Path))

    def _take_over_files(self, batch: Sequence[Kept]) -> None:
        """Move large contents from `incoming` to their place and sync it, before the rows that name them commit."""
        for kept in batch:
            content, name = kept.message.content, kept.message.id
            if not isinstance(content, Path) or name in self._moved:  # an earlier try of this transaction moved it
                continue
            target = self._spool / name
            if target.exists():
                raise StoreError(f"there is a message {name} already")
            content.rename(target)
            self._moved.add(name)
        if self._moved:
            sync_directory(self._spool)

    def _count(self, batch: Sequence[Kept], ended: Ended) -> None:
        tally = self.tally
        for kept in batch:
            tally.total += len(kept.message.recipients)
            for recipient in kept.message.recipients:
                if recipient.not_before > 0:
                    tally.held[recipient.hour] = tally.held.get(recipient.hour, 0) + 1
        for hour in tally.held.keys() & ended.by_hour.keys():  # in hours that have come nobody asks who was held
            tally.held[hour] = max(0, tally.held[hour] - ended.by_hour[hour])
        tally.total -= ended.recipients
        tally.deferred += ended.newly_deferred - ended.were_deferred


def _is_no_room(error: Exception) -> bool:
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def _quietly(action: Callable[[], object]) -> None:
    """For clean-up whose failure harms nobody: what it leaves is cleaned at the next start."""
    try:
        action()
    except (OSError, sqlite3.Error):
        return


def _resolve(answers: Sequence[_Answer]) -> None:
    for future, result in answers:
        if future.done():  # its caller was cancelled
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
