"""The records of the store and its contract.

A message's way: `accept` (commit, sync, then 250) → its recipients are *queued* with a time before which
they must not be tried → the scheduler asks for what is `due`, tries, and `record`s outcomes: delivered,
deferred (queued again with a later time) or failed. When no recipient of a message is
queued any more its content goes; its events stay for the reports until `report_retention_days` have passed.
"""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from malote_relay.store.contents import StoredFile

T = TypeVar("T")

Hour = int
"""A clock hour in UTC: whole hours since the epoch."""


class StoreError(Exception):
    """Nothing was stored; the message says why. The client gets a 451 4.3.0 and tries again."""


class DiskFull(StoreError):
    """Nothing was stored because there is no room: the client gets 452 4.3.1 and tries again."""


class Notify(enum.Flag):
    """When the sender wants to hear of a recipient (RFC 3461 section 4.1). `NEVER` stands alone.

    `DEFAULT` is what holds when the client asked for nothing: failures, and delays.
    """

    NEVER = 0
    SUCCESS = 1
    FAILURE = 2
    DELAY = 4
    DEFAULT = 6


class Return(enum.StrEnum):
    """How much of the message a notification brings back (RFC 3461 section 4.3); "" when the client did not say."""

    UNSAID = ""
    FULL = "FULL"
    HEADERS = "HDRS"


@dataclass(frozen=True, slots=True)
class DsnRequest:
    """What the client asked for with DSN (RFC 3461) for one recipient: to be kept, honoured, and passed on.

    `orcpt` is the parameter's value as it came (`rfc822;xtext`), `envid` the message's (xtext); "" for none. `asked`
    is whether NOTIFY was given at all.
    """

    notify: Notify = Notify.DEFAULT
    asked: bool = False
    orcpt: str = ""
    envid: str = ""
    ret: Return = Return.UNSAID


NO_DSN = DsnRequest()
"""The client asked for nothing, as most do."""


@dataclass(frozen=True, slots=True)
class NewRecipient:
    """A recipient as accepted, charged to `hour`.

    Held mail is charged to a later hour than it came in and has that hour's start as `not_before`; else 0: at once.
    """

    address: str
    hour: Hour
    not_before: float = 0.0
    dsn: DsnRequest = NO_DSN


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message ready to be kept: `content` is exactly what will be sent after DATA, CRLF line ends, signed.

    Large content is a file already written and synced inside the store's `incoming` directory; `accept` takes
    it over. `size` is the content's in octets: a file that has another one later is damaged. So is a content that has
    another `checksum` (`contents`); None is for a file whose checksum is not known, or has the store reckon that of
    octets. `sender_unknown` flags a sender address whose existence could not be established.
    """

    id: str
    account: str
    reverse_path: str
    header_from: str
    message_id: str
    recipients: Sequence[NewRecipient]
    content: bytes | Path
    size: int
    received_at: float
    eight_bit: bool = False
    smtputf8: bool = False
    sender_unknown: bool = False
    accepted_in: Hour = 0
    """The hour in force when it was charged, though all its recipients may be charged to later ones."""
    checksum: int | None = None


@dataclass(frozen=True, slots=True)
class Queued:
    """A recipient waiting for its (next) attempt. `id` is the store's number of the recipient."""

    id: int
    message_id: str
    address: str
    reverse_path: str
    account: str
    size: int
    eight_bit: bool
    smtputf8: bool
    received_at: float
    released_at: float
    """When the first attempt was allowed: age limits and delivery times count from here, not from acceptance."""
    attempts: int
    next_attempt_at: float
    dsn: DsnRequest = NO_DSN
    told_of_delay: bool = False
    """Whether the sender has been told that it takes longer."""


class Result(enum.StrEnum):
    """How an attempt ended."""

    DELIVERED = "delivered"
    DEFERRED = "deferred"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attempt's end for one recipient. `reply` is the remote's last words or our own diagnosis.

    `bounce_class` is "" for delivered, else a name from `delivery/answers/classify.py`. `next_attempt_at` only when
    deferred.
    """

    recipient: Queued
    result: Result
    at: float
    reply: str
    bounce_class: str = ""
    host: str = ""
    tls: str = ""
    next_attempt_at: float = 0.0
    told_of_delay: bool = False
    """Whether, with this outcome, the sender is told that it takes longer."""
    notify_passed_on: bool = False
    """Whether who took it also took over to notify the sender (RFC 3461 section 5.2). Not kept."""
    own: bool = False
    """Whether `reply` (of what is given up: the last answer in it) is the relay's finding, not words of `host`."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """What waits: recipients by state, and the oldest's acceptance time (None: nothing waits)."""

    ready: int = 0
    deferred: int = 0
    held: int = 0
    oldest_received_at: float | None = None


@dataclass(frozen=True, slots=True)
class HourCharge:
    """What has been charged to an hour in all, and how much of it came in earlier (held)."""

    charged: int = 0
    held: int = 0


@dataclass(frozen=True, slots=True)
class Respread:
    """Hours for everything that is held at hour `current`: the first `count` recipients in order of arrival to the
    first hour, the next ones to the second, and so on. An hour that is `current` means: may go at once.
    """

    current: Hour
    hours: Sequence[tuple[Hour, int]]


@dataclass(frozen=True, slots=True)
class ClockBack:
    """The clock went back to `now`. Hours up to `current` have begun all the same: what may go by them goes at once.
    What was deferred is tried again by `latest`.
    """

    now: float
    current: Hour
    latest: float


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the store found at start: counters to go on from, and what it had to set aside, in words."""

    hours: Mapping[Hour, HourCharge] = field(default_factory=dict)
    latest_hour: Hour = 0
    quarantined: Sequence[str] = ()


class Alongside(Protocol):
    """What another part of the relay keeps in its tables because attempts ended: in one transaction with their ends.

    So there is never the one without the other, whenever the relay is killed.
    """

    def write(self, connection: sqlite3.Connection) -> None:
        """Write it, inside the transaction; in another thread. Called again where that had to be begun anew."""
        ...

    def written(self, error: Exception | None) -> None:
        """It is on disk. Or, with an error, it is not: then the ends are there without it, and it is for the part
        to try again.
        """
        ...


class Store(Protocol):
    """The durable store of one relay. Every coroutine returns after commit and sync, not before."""

    @property
    def incoming(self) -> Path:
        """Where a large message's content is written before `accept`; emptied of strays at start."""
        ...

    async def open(self) -> Recovered:
        """Open or create, check integrity, clear strays. Damaged data is salvaged and quarantined: see the answer.

        Raises StoreError, and nothing else, when the store cannot be used now: another process has it, a newer
        release wrote it, the disk is full or fails. Everything accepted is still there then.
        """
        ...

    async def close(self) -> None:
        """Finish what was handed in, then close."""
        ...

    async def accept(self, message: NewMessage) -> Sequence[Queued]:
        """Keep the message and charge its recipients' hours in one transaction. Raises StoreError, DiskFull.

        Many sessions' calls are committed together by one sync (group commit). A caller that is cancelled meanwhile
        must take the message as accepted: it may be on disk.
        """
        ...

    async def due(
        self, now: float, limit: int, *, excluding: Iterable[int] = (), excluding_domains: Collection[str] = ()
    ) -> Sequence[Queued]:
        """Recipients whose time has come, in the order of their time and then of arrival; at most `limit`.

        Left out are the recipients `excluding` and those at `excluding_domains` (lower case): what the scheduler
        has in hand already, and domains of which it has as much in hand as it wants.
        """
        ...

    async def next_time(self, after: float) -> float | None:
        """The earliest attempt time later than `after`, or None."""
        ...

    async def content(self, message_id: str) -> bytes | StoredFile:
        """The message as accepted. Raises KeyError when it is gone, Damaged when it is not what was accepted.

        A file's checksum is compared while it is read.
        """
        ...

    async def set_aside(self, message_id: str) -> str:
        """Keep what is left of a damaged content in quarantine, to be looked at; where, "" for nowhere.

        The message stays in the queue, without it.
        """
        ...

    async def record(
        self, outcomes: Sequence[Outcome], *, notices: Sequence[NewMessage] = (), alongside: Alongside | None = None
    ) -> Sequence[Sequence[Queued]]:
        """Write the ends of attempts; drop content that no recipient waits for any more. Group-committed.

        In the same transaction: the `notices` that tell of them are kept, as by `enqueue`, whose recipients are
        given; and what is to be written `alongside`. Waits for room on a full disk: an outcome that got lost would
        be a second delivery.
        """
        ...

    async def enqueue(self, message: NewMessage) -> Sequence[Queued]:
        """Keep a message of the relay's own (a DSN): uncharged, otherwise as `accept`."""
        ...

    async def respread(self, plan: Respread) -> None:
        """Give what is held new hours and times after a change of plan (`HourWindow.set_plan`, `.settle`)."""
        ...

    async def clock_went_back(self, clock: ClockBack) -> int:
        """Bring forward what waits for times of a clock that ran ahead; how many recipients. Harmless at any time."""
        ...

    async def queue_state(self, now: float) -> QueueState:
        """Counts for metrics; cheap enough for every scrape."""
        ...

    async def prune(self, before: float) -> int:
        """Drop events and hours older than `before`; returns how many rows."""
        ...

    async def make_room(self, floor: int) -> int:
        """Give back to the file system what the database no longer uses, if there is little room; how many octets.

        Little is less than a tenth of it, or than twice the `floor` (octets) below which no mail is taken.
        """
        ...


class Tables(Protocol):
    """The database of a store, for parts of the relay that keep tables of their own in it."""

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction of its own, in the order of all writing; its answer after commit and sync.

        For tables that only one part of the relay knows. `work` may run again after a full disk. Raises StoreError.
        """
        ...

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query on what is committed. Keep it short: other readers wait for it."""
        ...
