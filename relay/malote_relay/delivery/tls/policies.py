"""MTA-STS policies fetched, kept over restarts, and renewed: RFC 8461 sections 3.3, 4.2, 5.1 and 10.2.

What was once fetched holds until its age is over, whoever keeps us from asking again: that is what a policy is for.
So it is kept in the store, and renewed well before: when its version in the DNS is another, and from half of its
life.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from malote_relay.delivery.tls import mtasts
from malote_relay.delivery.tls.https import Https, HttpsFailed
from malote_relay.delivery.tls.mtasts import InvalidPolicy, StsPolicy
from malote_relay.delivery.tls.results import ResultType, Trouble
from malote_relay.resolver import ResolverError, TemporaryFailure
from malote_relay.store.model import StoreError, Tables

MAX_KEPT: Final = 5000
MAX_FETCHES: Final = 20
PAUSE_SECONDS: Final = 300.0
"""Seconds after a failure before a policy is asked for again (section 3.3 wants five minutes at least)."""

FIRST_SECONDS: Final = 15.0
"""Seconds that mail waits at most for a policy not known yet; it goes on without, as if there were none."""

RECORD_SECONDS: Final = 5.0
"""Seconds that mail waits at most for the record that says whether there is a policy."""

_UNHEARD_SECONDS: Final = 60.0

_log = structlog.get_logger("malote.delivery")


class FetchFailed(Exception):
    """There is no policy to be had."""

    def __init__(self, trouble: Trouble):
        super().__init__(trouble.words)
        self.trouble = trouble


class Texts(Protocol):
    """What is asked of the DNS."""

    async def txt(self, name: str) -> tuple[bytes, ...]:
        """See `Resolver.txt`."""
        ...


@dataclass(slots=True)
class Kept:
    """A policy as fetched; times in epoch seconds."""

    id: str
    body: bytes
    policy: StsPolicy
    fetched_at: float
    used_at: float = field(default=0.0)

    @property
    def expires_at(self) -> float:
        """Until when it holds."""
        return self.fetched_at + self.policy.max_age

    def aging(self, now: float) -> bool:
        """Whether half of its life is over."""
        return now >= self.fetched_at + self.policy.max_age / 2


Fetch = Callable[[str], Awaitable[bytes]]
"""The policy's text for a domain. Raises FetchFailed."""


class Policies:
    """The policies of all domains that mail went to. `clock` gives epoch seconds.

    `tables` is where they survive the process; without, they live as long as it.
    """

    def __init__(self, names: Texts, fetch: Fetch, tables: Tables | None, clock: Callable[[], float]):
        self.fetch = fetch
        self._names = names
        self._tables = tables
        self._clock = clock
        self._kept: dict[str, Kept] = {}
        self._asking: dict[str, asyncio.Task[Trouble | None]] = {}
        self._failed: dict[str, tuple[float, Trouble]] = {}
        self._unheard: dict[str, float] = {}
        self._room = asyncio.Semaphore(MAX_FETCHES)

    async def load(self) -> None:
        """Know again what was known before the restart. What can no longer be read is forgotten."""
        if self._tables is None:
            return
        for domain, id, body, fetched_at in await self._tables.read(_rows):
            try:
                self._kept[domain] = Kept(id, body, mtasts.parse(body), fetched_at)
            except InvalidPolicy as error:
                _log.warning("a kept MTA-STS policy is not valid any more", domain=domain, error=str(error))

    async def policy(self, domain: str) -> StsPolicy | Trouble | None:
        """The policy in force for `domain`; None: it has none; Trouble: the one it has is not to be had."""
        id = await self._record(domain)
        now = self._clock()
        kept = self._kept.get(domain)
        if kept is not None and kept.expires_at > now:
            kept.used_at = now
            if id is not None and (id != kept.id or kept.aging(now)) and not self._pausing(domain):
                self._renew(domain, id)
            return kept.policy
        if id is None:
            return None
        if (trouble := self._pausing(domain)) is not None:
            return trouble
        task = self._renew(domain, id)
        done, _ = await asyncio.wait([task], timeout=FIRST_SECONDS)
        if not done:
            return Trouble(ResultType.STS_FETCH_ERROR, f"its policy did not come within {FIRST_SECONDS:g} s")
        if (trouble := task.result()) is not None:
            return trouble
        fresh = self._kept.get(domain)
        return fresh.policy if fresh else None

    async def renew_aging(self) -> None:
        """Renew those in use of which half of the life is over, one after another; drop those that are over."""
        now = self._clock()
        for domain, kept in list(self._kept.items()):
            if kept.expires_at <= now:
                self._kept.pop(domain, None)
                await self._write(_DELETE, domain)
                continue
            due = kept.aging(now) and kept.used_at > kept.fetched_at and not self._pausing(domain)
            if due and (id := await self._record(domain)) is not None:
                await asyncio.wait([self._renew(domain, id)])

    async def close(self) -> None:
        """Ask no more."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _record(self, domain: str) -> str | None:
        if 0 < self._unheard.get(domain, 0.0) - self._clock() <= _UNHEARD_SECONDS:
            return None
        try:
            async with asyncio.timeout(RECORD_SECONDS):
                return mtasts.record_id(await self._names.txt(f"_mta-sts.{domain}"))
        except (TemporaryFailure, TimeoutError):
            # A name server that does not answer for it must not slow down each message.
            if len(self._unheard) > MAX_KEPT:
                self._unheard.clear()
            self._unheard[domain] = self._clock() + _UNHEARD_SECONDS
            return None
        except ResolverError:
            return None

    def _pausing(self, domain: str) -> Trouble | None:
        until, trouble = self._failed.get(domain, (0.0, None))
        # Of more than a pause only a clock that was set back since can speak.
        return trouble if 0 < until - self._clock() <= PAUSE_SECONDS else None

    def _renew(self, domain: str, id: str) -> asyncio.Task[Trouble | None]:
        task = self._asking.get(domain)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ask(domain, id), name="mta-sts")
            self._asking[domain] = task
            task.add_done_callback(lambda _: self._asking.pop(domain, None))
        return task

    async def _ask(self, domain: str, id: str) -> Trouble | None:
        try:
            async with self._room:
                body = await self.fetch(domain)
            policy = mtasts.parse(body)
        except FetchFailed as failed:
            return self._pause(domain, failed.trouble)
        except InvalidPolicy as error:
            return self._pause(domain, Trouble(ResultType.STS_INVALID, f"the policy of {domain}: {error}"))
        except Exception as error:  # a defect here must not stop mail to domains with a policy
            _log.exception("an MTA-STS policy could not be fetched", domain=domain)
            return self._pause(domain, Trouble(ResultType.STS_FETCH_ERROR, type(error).__name__))
        now = self._clock()
        self._failed.pop(domain, None)
        self._kept[domain] = Kept(id, body, policy, now, now)
        _log.info("MTA-STS policy", domain=domain, mode=policy.mode.value, mx=policy.mx, max_age=policy.max_age)
        while len(self._kept) > MAX_KEPT:
            first = min(self._kept, key=lambda name: self._kept[name].expires_at)
            del self._kept[first]
            await self._write(_DELETE, first)
        await self._write(_INSERT, domain, id, body, now)
        return None

    def _pause(self, domain: str, trouble: Trouble) -> Trouble:
        if len(self._failed) > MAX_KEPT:
            self._failed.clear()
        self._failed[domain] = (self._clock() + PAUSE_SECONDS, trouble)
        _log.warning("no MTA-STS policy", domain=domain, error=trouble.words, kept=domain in self._kept)
        return trouble

    async def _write(self, statement: str, *values: object) -> None:
        if self._tables is None:
            return
        try:
            await self._tables.write(lambda connection: connection.execute(statement, values).rowcount)
        except StoreError:
            _log.exception("an MTA-STS policy could not be kept: a restart forgets it")


_INSERT: Final = "INSERT OR REPLACE INTO mta_sts (domain, policy_id, body, fetched_at) VALUES (?, ?, ?, ?)"
_DELETE: Final = "DELETE FROM mta_sts WHERE domain = ?"


def _rows(connection: sqlite3.Connection) -> list[tuple[str, str, bytes, float]]:
    return connection.execute("SELECT domain, policy_id, body, fetched_at FROM mta_sts").fetchall()


def fetcher(https: Https, port: int) -> Fetch:
    """Fetches policies (section 3.3): only from the host of that name, only as plain text, never by a redirect."""

    async def fetch(domain: str) -> bytes:
        host = f"mta-sts.{domain}"
        try:
            answer = await https.request(
                "GET",
                host,
                port,
                "/.well-known/mta-sts.txt",
                headers={"Accept": "text/plain"},
                limit=mtasts.MAX_BYTES,
            )
        except HttpsFailed as error:
            result = ResultType.STS_WEBPKI_INVALID if error.certificate else ResultType.STS_FETCH_ERROR
            raise FetchFailed(Trouble(result, str(error))) from error
        if answer.status != 200:
            raise FetchFailed(Trouble(ResultType.STS_FETCH_ERROR, f"{host} answers with {answer.status}"))
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "text/plain":
            raise FetchFailed(
                Trouble(ResultType.STS_FETCH_ERROR, f"{host} sends {kind[:80] or 'no type'}, not text/plain")
            )
        return answer.body

    return fetch
