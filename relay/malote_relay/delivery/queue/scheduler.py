"""Delivery as a whole: from the store's queue to attempts, and from their ends back to the store.

The queue itself is in the store; in hand (`window`) is only a bounded part of it, so that a million queued recipients
cost no memory. Mail comes into the window in two ways: freshly accepted with its content (`offer`), when nothing
older waits for it to be overtaken, and by pages of what is due. Each message and domain is a job, a task of its own
(`jobs`): the pool lets jobs through within each destination's limits, so that none waits for another's destination.
Ends of attempts are written in batches (`recorder`); only then a recipient leaves the window. Whatever is killed at
whatever moment, the store still has what was not written down as ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from malote_relay.config import RelayConfig
from malote_relay.delivery.content import Content
from malote_relay.delivery.conversion.converter import Converter, SignAgain
from malote_relay.delivery.destinations.destination import DestinationState, Held
from malote_relay.delivery.destinations.pool import Pool
from malote_relay.delivery.destinations.room import Limits
from malote_relay.delivery.destinations.shapes import shapes_of
from malote_relay.delivery.notices.due import Due, Kind
from malote_relay.delivery.notices.notifier import Notifier, Sign, unsigned
from malote_relay.delivery.peer import Identity, Timeouts, delivering
from malote_relay.delivery.queue.attempt import Router
from malote_relay.delivery.queue.jobs import Job, Jobs, grouped, spawn
from malote_relay.delivery.queue.lanes import Bounds
from malote_relay.delivery.queue.recorder import Consequence, Recorder, no_consequence
from malote_relay.delivery.queue.waiting import Situation, Stage, Waiting, explain
from malote_relay.delivery.queue.window import Window
from malote_relay.delivery.route import Policy
from malote_relay.delivery.tls.service import TransportSecurity
from malote_relay.resolver import Resolver
from malote_relay.returnpath import NONE, Current
from malote_relay.store.model import NewMessage, Notify, Outcome, Queued, Result, Store, Tables
from malote_relay.store.names import domain_of

_log = structlog.get_logger("malote.delivery")


@dataclass(frozen=True, slots=True)
class Unattempted:
    """What is written down of a recipient without an attempt, in `words` like a reply, with its bounce class.

    It fails; or, with a time of the next attempt, it is deferred. `host` is who gave the last answer in the words.
    """

    recipient: Queued
    words: str
    bounce_class: str = "other"
    next_attempt_at: float = 0.0
    host: str = ""


class Scheduler:
    """Delivers what the store has queued. Make it, `start` it once the store is open, `stop` it before it closes.

    `tables` is the store's database, where what is known of domains' TLS is kept. `clock` gives epoch seconds (the
    relay's clock); `observer` hears of every outcome of accepted mail once it is written down, and `alongside` says
    what is to be written with it; neither hears of the relay's own notifications and reports. Those are signed by
    `sign`, what had to be converted by `sign_again`; `noticed` hears of each notice: what it tells, and whether it
    was sent or left out. `return_paths` gives those in force; `lost` hears how many recipients fail for a damaged
    content; `credentials` are the passwords that the configuration names, by their files' names.
    """

    def __init__(
        self,
        store: Store,
        config: RelayConfig,
        names: Resolver,
        tables: Tables,
        *,
        clock: Callable[[], float] = time.time,
        observer: Callable[[Outcome], None] | None = None,
        alongside: Consequence = no_consequence,
        sign: Sign = unsigned,
        sign_again: SignAgain = unsigned,
        noticed: Callable[[Kind, bool], None] = lambda kind, sent: None,
        return_paths: Current = lambda: NONE,
        slowed: Callable[[str], None] = lambda provider: None,
        lost: Callable[[int], None] = lambda recipients: None,
        rng: random.Random | None = None,
        bounds: Bounds | None = None,
        timeouts: Timeouts | None = None,
        idle_seconds: float = 5.0,
        credentials: Mapping[str, str] | None = None,
    ):
        self._store = store
        self._config = config
        self._credentials = credentials or {}
        self._clock = clock
        self._return_paths = return_paths
        rng = rng or random.SystemRandom()
        self._idle_seconds = idle_seconds
        self._security = TransportSecurity(config, self._credentials, names, tables, clock, self._enqueue, sign)
        self._router = Router(names, Policy.of(config), rng, secure=self._security.secure)
        self._pool = Pool(
            *self._egress(),
            timeouts=timeouts,
            tls=self._security.handshakes,
            shapes=shapes_of(config),
            rng=rng,
            slowed=slowed,
            report=self._security.report,
        )
        self._notifier = Notifier(store, config, clock, self.offer, sign, noticed)
        self._recorder = Recorder(store, self._settle, observer, self._notifier, alongside)
        self._jobs = Jobs(
            store,
            self._router,
            self._pool,
            config.delivery,
            clock=clock,
            return_paths=return_paths,
            convert=Converter(store.incoming, sign_again, lambda: self._config.limits.min_free_bytes).convert,
            ended=self._recorder.add,
            put_back=self._put_back,
            lost=lost,
        )
        self._window = Window(
            store,
            bounds or Bounds(),
            frozen=config.delivery.frozen,
            clock=clock,
            return_paths=return_paths,
            begin=self._jobs.begin,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._readers = 0
        self._ended_meanwhile: set[int] = set()
        """Recipients that ended, or were tried, while somebody read the queue to conclude some of it."""
        self._stopping = False

    async def start(self) -> None:
        """Begin to deliver. The store must be open."""
        await self._security.start()
        self._tasks = [spawn(work(), name) for work, name in self._loops()]

    async def stop(self, grace: float) -> None:
        """Begin nothing new, let running transactions end within `grace` seconds, write the ends down, hang up.

        What is cut off stays queued. Harmless when it never started.
        """
        if not self._tasks:
            return
        self._stopping = True
        self._tasks[0].cancel()
        await self._jobs.stop(grace)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(grace, 5.0)):
                await self._recorder.drained()
        for task in self._tasks[1:]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pool.close()
        await self._security.stop()

    async def _enqueue(self, message: NewMessage) -> None:
        """Keep a mail of the relay's own, and deliver it."""
        self.offer(await self._store.enqueue(message), message.content)

    def offer(self, queued: Sequence[Queued], content: bytes | Path) -> None:
        """Take what was just accepted, without reading it back; call it right after the store's `accept` returned.

        Held recipients may be among them. What finds no room here is found in the store in its turn.
        """
        try:
            self._take(queued, content)
        except Exception:  # it is kept: were its client told anything else, it would bring it again
            _log.exception("what was accepted is left to the store")
            self._window.look_again()

    def _take(self, queued: Sequence[Queued], content: bytes | Path) -> None:
        now = self._clock()
        due = []
        for recipient in queued:
            if recipient.next_attempt_at > now:
                self._window.expect(recipient.next_attempt_at)
            elif recipient.id not in self._window.lanes:
                due.append(recipient)
        if not due:
            return
        if self._stopping or self._config.delivery.frozen:
            self._window.look_later()
            return
        # A file is no longer where the caller wrote it: the store has taken it over.
        shared, size = (Content(content), len(content)) if isinstance(content, bytes) else (None, 0)
        for domain, recipients in grouped(due, self._return_paths()):
            if not self._window.lanes.admits(domain, len(recipients)):
                self._window.lanes.refuse(domain)
                self._window.look_again()
                continue
            keep = self._jobs.content_bytes + size <= self._window.lanes.bounds.content_bytes
            self._window.take(Job(domain, recipients, shared if keep else None, size if keep else 0))

    async def tell_later(self, due: Due) -> None:
        """Tell a sender what came back after delivery, within what senders are told. Raises StoreError."""
        await self._notifier.tell(self._notifier.allowed([due]))

    def wake(self) -> None:
        """Look into the store now: times in it were changed by others (`Store.respread`)."""
        self._window.look_again()

    def clock_changed(self) -> None:
        """The clock was moved: look at what is due by it now."""
        self._window.look_again()
        self._notifier.clock_changed()

    def reconfigure(self, config: RelayConfig, credentials: Mapping[str, str] | None = None) -> None:
        """Deliver as this configuration says from now on; transactions under way end as they began."""
        ways = self._ways()
        self._config = config
        self._credentials = credentials or {}
        self._window.frozen = config.delivery.frozen
        self._jobs.settings = config.delivery
        self._notifier.reconfigure(config)
        self._security.reconfigure(config, self._credentials)
        self._router.configure(Policy.of(config))
        self._pool.configure(*self._egress(), shapes_of(config), self._security.handshakes)
        self._window.left_alone.clear()
        if self._ways() != ways:
            self._jobs.turn_back()
        if config.delivery.frozen:
            self._jobs.withdraw()
            self._pool.close_idle()
        self._window.look_again()

    @property
    def in_hand(self) -> int:
        """Recipients in the window: waiting for a connection, being sent, or being written down."""
        return len(self._window.lanes)

    @property
    def connections(self) -> int:
        """Outgoing connections, open or being opened."""
        return self._pool.connections

    @property
    def running(self) -> bool:
        """Whether its loops turn: false before the start, after the stop, and if one died."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    def stages(self) -> Mapping[int, Stage]:
        """How far it has got with those in hand, by their numbers; all others are only stored."""
        found = dict.fromkeys(self._window.lanes.recipients(), Stage.RECORDING)
        found.update(self._jobs.stages())
        return found

    def destinations(self) -> Sequence[DestinationState]:
        """Whom the pool has to do with now."""
        return self._pool.states()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Around the reading of those to `conclude` and that itself: who ends meanwhile is known to have ended."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers:
                self._ended_meanwhile.clear()

    def conclude(self, ends: Sequence[Unattempted], *, tell: bool = True) -> list[Queued]:
        """Write down what becomes of these without an attempt; those who were taken are returned.

        Passed over are those being sent or written down: they come to an end of their own; and those who have since
        they were read (`reading`). Without `tell` the sender hears nothing of it.
        """
        if self._stopping or not ends:
            return []
        taken = self._jobs.take_out({end.recipient.id for end in ends} - self._ended_meanwhile)
        outcomes = []
        now = self._clock()
        for end in ends:
            one = end.recipient
            if one.id in self._ended_meanwhile:
                continue
            if one.id not in self._window.lanes:
                # In hand until it is written down, so that no page of the queue begins it meanwhile.
                self._window.lanes.add(domain_of(one.address), [one])
            elif one.id in taken:
                taken.remove(one.id)
            else:
                continue
            if not tell:
                one = replace(one, dsn=replace(one.dsn, notify=Notify.NEVER))
            again, host = end.next_attempt_at, end.host
            result = Result.DEFERRED if again else Result.FAILED
            outcomes.append(Outcome(one, result, now, end.words, end.bounce_class, host, "", again, own=not host))
        if outcomes:
            self._recorder.add(outcomes)
        return [one.recipient for one in outcomes]

    async def written(self, recipients: Sequence[Queued], seconds: float) -> bool:
        """Wait until what was concluded of these is on disk, at most so long; whether they are."""
        deadline = time.monotonic() + seconds
        while any(one.id in self._window.lanes for one in recipients):
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    # What a watchdog wants to know, and may do.

    @property
    def frozen(self) -> bool:
        """Whether all delivery is stopped."""
        return self._config.delivery.frozen

    @property
    def max_age(self) -> float:
        """Seconds after its release at which a recipient is given up."""
        return float(self._config.delivery.max_age_seconds)

    @property
    def delay_after(self) -> float:
        """Seconds after its release at which a sender is told that it takes longer; 0 for never."""
        return float(self._notifier.delay_after)

    @property
    def moved_at(self) -> float:
        """When, by the monotonic clock, an attempt last began, or its end was written down."""
        return self._jobs.moved_at

    @property
    def busy(self) -> bool:
        """Whether a transaction is under way."""
        return self._jobs.busy

    def left_alone(self) -> list[str]:
        """The domains for which nothing is tried for now, as their destinations' state demands."""
        return self._window.left_alone.domains()

    def push(self) -> None:
        """Bring delivery back to life: dead loops start again, who waits in line goes back to the queue."""
        if self._stopping or not self._tasks:
            return
        for place, (work, name) in enumerate(self._loops()):
            if self._tasks[place].done():
                _log.error("a loop of the delivery had ended; it is started again", loop=name)
                self._tasks[place] = spawn(work(), name)
        self._jobs.withdraw()
        self._window.left_alone.clear()
        self._window.look_again()

    def _loops(self) -> Sequence[tuple[Callable[[], Coroutine[Any, Any, None]], str]]:
        return (
            (self._window.run, "delivery-scheduler"),
            (self._recorder.run, "delivery-recorder"),
            (self._notifier.run, "delivery-notifier"),
        )

    def why(self, recipient: Queued, stages: Mapping[int, Stage] | None = None, *, last_class: str = "") -> Waiting:
        """Why this recipient waits, and until when. `stages`: where many are asked about.

        `last_class` is what its last answer was taken to mean.
        """
        domain = domain_of(recipient.address)
        stage = (self.stages() if stages is None else stages).get(recipient.id, Stage.STORED)
        route = self._router.known(domain)
        held = self._window.left_alone.why(domain)
        if held is None and route is not None:
            held = self._pool.held(route)
        line = self._pool.line(route) if route is not None and stage is Stage.WAITING else None
        situation = Situation(
            now=self._clock(),
            frozen=self._config.delivery.frozen,
            stage=stage,
            behind=self._window.lanes.behind or domain in self._window.lanes.overflowing,
            held=held.words if held else "",
            held_for=held.seconds if held else 0.0,
            in_line=line.in_line if line else 0,
            slowed=f"the destination is {line.why}" if line and line.why else "",
            slowed_for=line.seconds if line else 0.0,
            max_age=self._config.delivery.max_age_seconds,
            last_class=last_class,
        )
        return explain(recipient, situation)

    def retry_now(self, domain: str) -> None:
        """Mail for this domain is wanted out: forget what its destination said, and look."""
        self._window.left_alone.forget(domain)
        if (route := self._router.known(domain)) is not None:
            self._pool.forgive(route)
        self._window.look_again()

    def _put_back(self, job: Job, held: Held | None) -> None:
        self._window.put_back(job, held)

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        self._jobs.moved_at = time.monotonic()
        if self._readers:
            self._ended_meanwhile.update(one.recipient.id for one in outcomes)
        self._window.settle(outcomes)

    def _ways(self) -> object:
        """What a way found for a message rests on: equal while nothing of that changes."""
        config = self._config
        return Policy.of(config), delivering(config, self._credentials), config.delivery.tls, config.resolver

    def _egress(self) -> tuple[Identity, Limits]:
        settings = self._config.delivery
        return delivering(self._config, self._credentials), Limits(
            connections=settings.max_connections,
            per_destination=settings.max_connections_per_destination,
            idle_seconds=self._idle_seconds,
        )
