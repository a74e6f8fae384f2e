"""The accounts' counts and pauses at work: told of ends of deliveries and of complaints, asked at MAIL."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import structlog

from malote_relay.clock import moment
from malote_relay.config import Account, AccountPause
from malote_relay.metrics import Metrics, Refused
from malote_relay.pausing import rule
from malote_relay.pausing.window import SPAN_SECONDS, Tally, Window
from malote_relay.store import pauses as table
from malote_relay.store.model import Outcome, Result, StoreError, Tables
from malote_relay.store.pauses import Pause
from malote_relay.submission.replies import Reply

MOST_TOLD: Final = 200
"""Pauses that are told of together: as many as a tenant may have accounts."""

_SLICE_SECONDS: Final = 3600.0
_RETRY_SECONDS: Final = 5.0
_MAX_WAITING: Final = 1_000

_log = structlog.get_logger("malote.pausing")


@dataclass(frozen=True, slots=True)
class State:
    """Where an account stands: `pause` while it is paused, `suspended` when its platform has stopped it."""

    account: str
    tally: Tally
    pause: Pause | None
    suspended: bool


class Pauses:
    """The accounts of one tenant. `clock` gives epoch seconds. `start` it before mail comes in."""

    def __init__(
        self,
        config: AccountPause,
        accounts: Iterable[Account],
        tables: Tables,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._tables = tables
        self._metrics = metrics
        self._clock = clock
        self._windows: dict[str, Window] = {}
        self._pauses: dict[str, Pause] = {}
        self._waiting: list[Callable[[sqlite3.Connection], None]] = []
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._config = config
        self._accounts: tuple[str, ...] = ()
        self._suspended: frozenset[str] = frozenset()
        self.reconfigure(config, accounts)

    def reconfigure(self, config: AccountPause, accounts: Iterable[Account]) -> None:
        """Use other limits from the next bounce on. A pause that is keeps its time."""
        self._config = config
        accounts = tuple(accounts)
        now = tuple(account.name for account in accounts)
        for gone in set(self._accounts) - set(now):
            self._metrics.account_paused.remove(gone)
        self._accounts = now
        self._suspended = frozenset(account.name for account in accounts if account.suspended)
        self._show()

    async def start(self) -> None:
        """Know again who is paused, count what happened before in the background, write. Raises StoreError."""
        self._pauses = {pause.account: pause for pause in await self._tables.read(table.all_of)}
        self._show()
        self._tasks = [asyncio.create_task(self._recount(self._clock())), asyncio.create_task(self._write())]

    async def stop(self) -> None:
        """Write what still waits, then end."""
        self._stopping = True
        self._changed.set()
        if self._tasks:
            self._tasks[0].cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    # Asked by the door.

    async def check(self, account: Account) -> Reply | None:
        """Why this account may not send now; None for may."""
        pause = self.paused(account.name)
        if pause is None:
            return None
        back = (
            f"sending resumes at {moment(pause.until)}"
            if pause.until is not None
            else "it stays so until your platform resumes it"
        )
        text = f"the account {account.username} is paused since {moment(pause.since)}: {pause.reason}; {back}"
        return Reply(550, "5.7.1", text, Refused.ACCOUNT_PAUSED)

    def paused(self, account: str) -> Pause | None:
        """The pause that an account is in now."""
        pause = self._pauses.get(account)
        if pause is None or pause.resumed_at is not None or not self._config.enabled:
            return None
        now = self._clock()
        if pause.until is not None and pause.until <= now:
            self._resume(pause, now)
            return None
        return pause

    # Told by the relay.

    def observe(self, outcome: Outcome) -> None:
        """Take in how a delivery ended."""
        account = outcome.recipient.account
        if not account:
            return  # the relay's own mail
        if outcome.result is Result.DELIVERED:
            self._window(account).count(outcome.at, delivered=1)
        elif outcome.result is Result.FAILED and outcome.bounce_class in rule.COUNTED:
            self._window(account).count(outcome.at, bounced=1)
            self._judge(account)

    def bounced_later(self, account: str, bounce_class: str, at: float) -> None:
        """Take in a bounce that was told of after the delivery, and is among the events as `bounced`."""
        if account and bounce_class in rule.COUNTED:
            self._window(account).count(at, bounced=1, delivered=-1)
            self._judge(account)

    def complained(self, account: str, at: float) -> None:
        """Take in a complaint (RFC 5965) about one of the account's messages; among the events as `complained`."""
        if account:
            self._window(account).count(at, complained=1)
            self._judge(account)

    def _window(self, account: str) -> Window:
        return self._windows.setdefault(account, Window())

    def _judge(self, account: str) -> None:
        if not self._config.enabled or self.paused(account) is not None:
            return
        now = self._clock()
        reason = rule.verdict(self._window(account).tally(now, self._config.window_hours), self._config)
        if reason:
            hours = self._config.pause_hours
            pause = Pause(account, now, now + hours * 3600 if hours else None, reason)
            self._keep(pause)
            _log.error("account paused", account=account, reason=reason, until=pause.until)

    # Told by people.

    def resume(self, account: str) -> Pause | None:
        """End a pause; what was counted before no longer counts. The pause, if there was one."""
        pause = self.paused(account)
        return self._resume(pause, self._clock()) if pause is not None else None

    def standing(self) -> Sequence[Pause]:
        """The pauses that stand now, by account, at most `MOST_TOLD`. Changes nothing: any thread may ask."""
        if not self._config.enabled:
            return ()
        now, known = self._clock(), self._accounts
        pauses = [
            pause
            for pause in tuple(self._pauses.values())
            if pause.account in known and pause.resumed_at is None and (pause.until is None or pause.until > now)
        ]
        return sorted(pauses, key=lambda pause: pause.account)[:MOST_TOLD]

    def states(self) -> Sequence[State]:
        """Every configured account and where it stands."""
        now, hours = self._clock(), self._config.window_hours
        return [
            State(account, self._window(account).tally(now, hours), self.paused(account), account in self._suspended)
            for account in self._accounts
        ]

    def _resume(self, pause: Pause, now: float) -> Pause:
        self._windows.pop(pause.account, None)
        resumed = replace(pause, resumed_at=now)
        self._keep(resumed)
        _log.info("account resumed", account=pause.account)
        return resumed

    def _keep(self, pause: Pause) -> None:
        self._pauses[pause.account] = pause
        self._show()
        self._later(partial(table.put, pause=pause))

    def _show(self) -> None:
        for account in self._accounts:
            pause = self._pauses.get(account)
            stands = pause is not None and pause.resumed_at is None and self._config.enabled
            self._metrics.account_paused.labels(account).set(stands)

    # The store.

    def _later(self, work: Callable[[sqlite3.Connection], None]) -> None:
        if len(self._waiting) >= _MAX_WAITING:
            _log.error("too much waits to be written: a pause will not outlast a restart")
            return
        self._waiting.append(work)
        self._changed.set()

    async def _write(self) -> None:
        while not self._stopping or self._waiting:
            await self._changed.wait()
            try:
                while some := self._waiting[:100]:
                    await self._tables.write(partial(_all_done, works=some))
                    del self._waiting[: len(some)]
                self._changed.clear()
            except StoreError:
                _log.exception("pauses could not be written", waiting=len(self._waiting))
                if self._stopping:
                    return
                await asyncio.sleep(_RETRY_SECONDS)  # what woke us is still set

    async def _recount(self, until: float) -> None:
        """Count what happened before the start, an hour at a time so that other readers get between."""
        begin = until - self._config.window_hours * 3600
        classes = sorted(rule.COUNTED)
        try:
            while begin < until:
                end = min(begin + _SLICE_SECONDS, until)
                query = partial(table.counts, begin=begin, end=end, width=SPAN_SECONDS, bounce_classes=classes)
                for one in await self._tables.read(query):
                    self._count_again(one)
                begin = end
        except (StoreError, sqlite3.Error):
            _log.exception("what happened before the start is not counted")

    def _count_again(self, count: table.Count) -> None:
        pause = self._pauses.get(count.account)
        resumed_at = pause.resumed_at if pause is not None else None
        if resumed_at is None or count.span * SPAN_SECONDS >= resumed_at:
            self._window(count.account).count_span(count.span, count.delivered, count.bounced, count.complained)


def _all_done(connection: sqlite3.Connection, works: Sequence[Callable[[sqlite3.Connection], None]]) -> None:
    for work in works:
        work(connection)
