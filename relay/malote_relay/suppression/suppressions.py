"""The suppression list at work: asked at RCPT, told of ends of deliveries and of complaints, changed by people."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Final

import structlog

from malote_relay.clock import moment
from malote_relay.config import Suppression
from malote_relay.delivery.answers.outcome import EXPIRED
from malote_relay.metrics import Metrics, Refused
from malote_relay.store import suppressions as table
from malote_relay.store.model import Alongside, Outcome, Result, StoreError, Tables
from malote_relay.store.suppressions import Changes, Entry, Reason
from malote_relay.submission.address import Mailbox
from malote_relay.submission.replies import Reply
from malote_relay.suppression import rule
from malote_relay.suppression.filter import Filter
from malote_relay.suppression.rule import Bounced, Complained, Delivered, Event

MAX_WAITING: Final = 20_000
"""Events that wait for a store that takes nothing; later ones are dropped, since mail must go on."""

_FORGOTTEN_AFTER: Final = 180 * 86_400.0
"""How long an address that left the list is remembered, so that it stays longer the next time."""

_PAGE: Final = 1000
_AT_ONCE: Final = 500
_RETRY_SECONDS: Final = 5.0

_log = structlog.get_logger("malote.suppression")


class Suppressions:
    """The list of one tenant. `clock` gives epoch seconds. `start` it, `stop` it."""

    def __init__(self, config: Suppression, tables: Tables, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._config = config
        self._tables = tables
        self._metrics = metrics
        self._clock = clock
        self._filter: Filter | None = None  # until it is made, every address is looked up
        self._next_filter: Filter | None = None
        self._waiting: list[Event] = []
        self._changed = asyncio.Event()
        self._one_flush = asyncio.Lock()
        self._writing: asyncio.Task[None] | None = None
        self._stopping = False

    def reconfigure(self, config: Suppression) -> None:
        """Use other rules from now on. What is on the list keeps its time."""
        self._config = config

    @property
    def enabled(self) -> bool:
        """Whether anybody is refused at all."""
        return self._config.enabled

    # Asked by the door.

    async def check(self, recipient: Mailbox) -> Reply | None:
        """Why this recipient is refused; None for not."""
        address = key(str(recipient))
        if not self._config.enabled or not self._may_have(address):
            return None
        try:
            entry = (await self._tables.read(partial(table.find, addresses=[address]))).get(address)
        except (StoreError, sqlite3.Error):
            _log.exception("the list cannot be read: mail goes on without it")
            return None
        return _refusal(recipient, entry) if entry is not None and entry.suppressed(self._clock()) else None

    def _may_have(self, address: str) -> bool:
        return self._filter is None or address in self._filter

    # Told by the relay.

    def alongside(self, outcomes: Sequence[Outcome]) -> Alongside | None:
        """What these ends of deliveries mean for the list, to be written with them; None for nothing."""
        if not self._config.enabled:
            return None
        events = [event for one in outcomes if (event := self._event(one)) is not None]
        return _Strikes(self, events, self._config) if events else None

    def _event(self, outcome: Outcome) -> Event | None:
        address = key(outcome.recipient.address)
        # What was put off until it was too old was never refused for good.
        refused = outcome.result is Result.FAILED and EXPIRED not in outcome.reply
        if refused and rule.bounces_needed(outcome.bounce_class, self._config):
            message = outcome.recipient.message_id
            return Bounced(address, outcome.at, outcome.bounce_class, outcome.reply, message)
        if outcome.result is Result.DELIVERED and self._may_have(address):
            return Delivered(address, outcome.at)
        return None

    def taken_in(self, changes: Changes) -> None:
        """What was written with ends of deliveries is on disk."""
        self._note(changes)
        if self._filter is not None and self._filter.crowded:
            self._changed.set()

    def take_again(self, events: Sequence[Event], error: Exception) -> None:
        """It could not be written with them: it is kept for a transaction of its own."""
        _log.error("bounces could not be written with the ends of their deliveries", error=str(error))
        for event in events:
            self._take(event)

    def bounced(self, address: str, bounce_class: str, reply: str, at: float, message: str) -> None:
        """Take in a failure that was reported after the delivery, by a DSN."""
        if rule.bounces_needed(bounce_class, self._config):
            self._take(Bounced(key(address), at, bounce_class, reply, message, after_delivery=True))

    def complained(self, address: str, at: float, message: str) -> None:
        """Take in a complaint (RFC 5965) about a message to this address."""
        self._take(Complained(key(address), at, message))

    def _take(self, event: Event) -> None:
        if not self._config.enabled:
            return
        if len(self._waiting) >= MAX_WAITING:
            _log.error("too much waits to be written: not taken in", address=event.address)
            return
        self._waiting.append(event)
        self._changed.set()

    def start(self) -> None:
        """From now on write what is told."""
        self._changed.set()
        self._writing = asyncio.create_task(self._write())

    async def stop(self) -> None:
        """Write what still waits, then end."""
        self._stopping = True
        self._changed.set()
        if self._writing is not None:
            await self._writing

    async def _write(self) -> None:
        while not self._stopping or self._waiting:
            await self._changed.wait()
            try:
                await self.flush()
                if self._filter is None or self._filter.crowded:
                    await self._make_filter()
            except (StoreError, sqlite3.Error):
                _log.exception("bounces and complaints could not be written", waiting=len(self._waiting))
                if self._stopping:
                    return
                await asyncio.sleep(_RETRY_SECONDS)
                self._changed.set()

    async def flush(self) -> None:
        """Write what was told so far. Raises StoreError; then it still waits."""
        async with self._one_flush:
            while self._waiting:
                some = self._waiting[:_AT_ONCE]
                changes = await self._tables.write(partial(_applied, events=some, config=self._config))
                del self._waiting[: len(some)]
                self._note(changes)
            self._changed.clear()

    def _note(self, changes: Changes) -> None:
        now = self._clock()
        for address, (before, entry) in changes.items():
            if entry is None:
                _log.info("no longer suppressed", address=address)
                continue
            self._add_to_filters(address)
            if entry.suppressed(now) and not (before is not None and before.suppressed(now)):
                self._metrics.suppressed.labels(entry.reason.value).inc()
                _log.info("suppressed", address=address, reason=entry.reason.value, until=entry.until)

    async def _make_filter(self) -> None:
        rows = await self._tables.read(table.count)
        fresh = self._next_filter = Filter(rows)
        after = ""
        while some := await self._tables.read(partial(table.addresses, after=after, limit=_PAGE)):
            for address in some:
                fresh.add(address)
            after = some[-1]
        self._filter, self._next_filter = fresh, None

    def _add_to_filters(self, address: str) -> None:
        for one in (self._filter, self._next_filter):
            if one is not None:
                one.add(address)

    async def forget(self) -> None:
        """Drop what left the list long ago; from time to time. Raises StoreError."""
        await self._tables.write(partial(table.forget, before=self._clock() - _FORGOTTEN_AFTER))

    # Told by people.

    async def add(self, address: str, *, until: float | None = None, note: str = "") -> Entry:
        """Suppress an address by hand: until a time, or for ever. Raises StoreError."""
        entry = Entry(key(address), Reason.MANUAL, self._clock(), until, detail=note)
        changes = await self._tables.write(partial(_put_by_hand, entry=entry))
        self._note(changes)
        return entry

    async def remove(self, address: str) -> Entry | None:
        """Take an address off; what there was of it, also when it was only counted. Raises StoreError."""
        changes = await self._tables.write(partial(_removed, address=key(address)))
        self._note(changes)
        before = [entry for entry, _ in changes.values()]
        return before[0] if before else None

    async def find(self, address: str) -> Entry | None:
        """What there is of an address."""
        return (await self._tables.read(partial(table.find, addresses=[key(address)]))).get(key(address))

    async def entries(self, *, text: str = "", reason: str = "", limit: int = 0) -> AsyncIterator[Entry]:
        """Who is suppressed now, in the order of the addresses: with `text` in them, for `reason`; 0 for all."""
        now, after, left = self._clock(), "", limit
        while True:
            size = min(_PAGE, left) if limit else _PAGE
            query = partial(table.page, now=now, after=after, limit=size, text=text.lower(), reason=reason)
            some: Sequence[Entry] = await self._tables.read(query)
            for entry in some:
                yield entry
            left -= len(some)
            if len(some) < size or (limit and left <= 0):
                return
            after = some[-1].address


class _Strikes:
    """`store.model.Alongside`: what ends of deliveries mean for the list."""

    def __init__(self, owner: Suppressions, events: Sequence[Event], config: Suppression) -> None:
        self._owner = owner
        self._events = events
        self._config = config
        self._changes: Changes = {}

    def write(self, connection: sqlite3.Connection) -> None:
        """See `Alongside`."""
        self._changes = _applied(connection, self._events, self._config)

    def written(self, error: Exception | None) -> None:
        """See `Alongside`."""
        if error is None:
            self._owner.taken_in(self._changes)
        else:
            self._owner.take_again(self._events, error)


def key(address: str) -> str:
    """How an address is compared: without regard to case, before the @ too, where hardly any host looks at it."""
    return address.lower()


def _applied(connection: sqlite3.Connection, events: Sequence[Event], config: Suppression) -> Changes:
    before = table.find(connection, {event.address for event in events})
    now: dict[str, Entry | None] = dict(before)
    for event in events:
        now[event.address] = rule.after(now.get(event.address), event, config)
    return _written(connection, {address: (before.get(address), entry) for address, entry in now.items()})


def _put_by_hand(connection: sqlite3.Connection, entry: Entry) -> Changes:
    return _written(connection, {entry.address: (table.find(connection, [entry.address]).get(entry.address), entry)})


def _removed(connection: sqlite3.Connection, address: str) -> Changes:
    return _written(connection, {address: (table.find(connection, [address]).get(address), None)})


def _written(connection: sqlite3.Connection, changes: Changes) -> Changes:
    real = {address: pair for address, pair in changes.items() if pair[0] != pair[1]}
    table.put(connection, [entry for _, entry in real.values() if entry is not None])
    table.remove(connection, [address for address, (_, entry) in real.items() if entry is None])
    return real


def _refusal(recipient: Mailbox, entry: Entry) -> Reply:
    why = {
        Reason.BOUNCE: f"mail to it bounced ({entry.bounce_class}: {entry.detail})",
        Reason.COMPLAINT: "its owner complained of mail from here",
        Reason.MANUAL: "it was put there by hand" + (f" ({entry.detail})" if entry.detail else ""),
    }[entry.reason]
    until = f"until {moment(entry.until)}" if entry.until is not None else "for good"
    text = (
        f"the recipient <{recipient}> is on this tenant's suppression list since {moment(entry.since)}, "
        f"{until}: {why}; to send to it again, have your platform take it off the list"
    )
    return Reply(550, "5.7.1", text, Refused.RECIPIENT_SUPPRESSED)
