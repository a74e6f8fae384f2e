"""One relay, put together from its parts: made, started, given new configurations, and ended in order.

Here the parts get to know each other, and in no other place: what each of them does is its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from malote_relay.bounces.intake import Intake
from malote_relay.bounces.server import BounceServer
from malote_relay.clock import StepWatch, SystemClock
from malote_relay.config import ConfigError, RelayConfig, is_address
from malote_relay.consequences import Consequences
from malote_relay.control.registry import Controls
from malote_relay.control.server import ControlServer
from malote_relay.delivery.destinations.shapes import shapes_of
from malote_relay.delivery.notices.due import Kind
from malote_relay.delivery.queue.commands import QueueCommands
from malote_relay.delivery.queue.scheduler import Scheduler
from malote_relay.delivery.queue.upkeep import Upkeep
from malote_relay.delivery.route import Policy
from malote_relay.fronts.supervisor import Fronts, program
from malote_relay.gauges import show
from malote_relay.housekeeping import Housekeeping, compare_clock
from malote_relay.metrics import Metrics
from malote_relay.observe import Heartbeat, Observatory
from malote_relay.pausing.commands import AccountCommands
from malote_relay.pausing.pauses import Pauses
from malote_relay.pausing.telling import told_of
from malote_relay.quota import HourWindow, start_of
from malote_relay.reload import Fingerprint, Loaded, Watcher
from malote_relay.resolver import Resolver
from malote_relay.sender_memory import SenderMemory
from malote_relay.senders import CalloutProbe, Senders
from malote_relay.store.model import Outcome, Result, StoreError
from malote_relay.store.sqlite import SqliteStore
from malote_relay.submission.acceptance import Door
from malote_relay.submission.body import Spool
from malote_relay.submission.crowd import Crowd
from malote_relay.submission.desk import StoreDesk
from malote_relay.submission.policy import Rules
from malote_relay.submission.replies import Reply
from malote_relay.submission.server import SubmissionServer
from malote_relay.suppression.commands import SuppressionCommands
from malote_relay.suppression.suppressions import Suppressions

LISTEN_VARIABLE: Final = "MALOTE_LISTEN"
"""An address to listen on in place of the configured one: where several relays share a host's network."""

_log = structlog.get_logger("malote.relay")


class Relay:
    """One relay: made from a configuration that has been loaded, `start`ed once, `stop`ped once."""

    def __init__(self, directory: Path, spool: Path, loaded: Loaded, seen: Fingerprint, grace: float) -> None:
        config = _effective(loaded.config)
        self._directory, self._spool = directory, spool
        self._loaded = loaded
        self._told = loaded  # in force everywhere
        self._door: Door | None = None
        self._clock = SystemClock(config.rehearsal.clock_offset_seconds)
        self._steps = StepWatch(self._clock)
        self.metrics = Metrics()
        self._store = SqliteStore(spool)
        self._config = config
        self._watcher = Watcher(directory, seen, loaded, self._apply, self.metrics.config_errors.inc)
        self.metrics.config_error.set_function(lambda: float(bool(self._watcher.error)))
        self._heartbeat = Heartbeat()
        self.controls = Controls()
        self._grace = grace
        self._opened = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Recover the spool, then listen. Raises OSError, StoreError; then nothing stays open."""
        try:
            await self._start()
        except BaseException:
            await self._opened.aclose()
            raise

    async def _start(self) -> None:
        config = self._config
        recovered = await self._store.open()
        self._opened.push_async_callback(self._store.close)
        self.metrics.set_aside.set(len(recovered.quarantined))
        for said in recovered.quarantined:
            _log.error("found damaged and set aside", what=said)
        compare_clock(self._clock.now(), start_of(recovered.latest_hour))
        plan = config.plan
        self._window = HourWindow(
            plan.messages_per_hour, plan.tolerance_percent, recovered.hours, recovered.latest_hour
        )
        self._resolver = Resolver(config.resolver)
        self._probe = CalloutProbe(self._resolver, config, self._loaded.credentials)
        self._senders = Senders(config, self._probe, self.metrics, memory=SenderMemory(self._store, self._clock))
        await self._senders.recall()
        self.suppressions = Suppressions(config.suppression, self._store, self.metrics, self._clock.now)
        self.suppressions.start()
        self._opened.push_async_callback(self.suppressions.stop)
        self.pauses = Pauses(config.account_pause, config.accounts, self._store, self.metrics, self._clock.now)
        await self.pauses.start()
        self._opened.push_async_callback(self.pauses.stop)
        self.consequences = Consequences(self.suppressions, self.pauses)
        self._scheduler = Scheduler(
            self._store,
            config,
            self._resolver,
            self._store,
            clock=self._clock.now,
            observer=self._count,
            alongside=self.consequences.alongside,
            sign=self._sign_notice,
            sign_again=self._sign_again,
            noticed=self._count_notice,
            return_paths=lambda: self._loaded.return_paths,
            slowed=self._slowed,
            lost=self.metrics.recipients_lost.inc,
            credentials=self._loaded.credentials,
        )
        self._desk = StoreDesk(self._window, self._store, self._clock, self.metrics, self._scheduler.offer)
        self.server = self._at_the_door(config)
        self._intake = Intake(
            self._store,
            lambda: self._config,
            lambda: self._loaded.return_paths,
            self._clock.now,
            self.metrics,
            self.consequences,
            self._scheduler.tell_later,
        )
        self.bounces = BounceServer(self._intake, lambda: self._config, lambda: self._loaded.context)
        self.observatory = Observatory(self.metrics, self._heartbeat, self._readiness, self._refresh)
        self._housekeeping = Housekeeping(
            self._store,
            self._scheduler,
            self._window,
            self.suppressions,
            self._clock,
            self._steps,
            self.metrics,
            lambda: self._config,
        )
        await self._housekeeping.respread(self._window.settle(self._clock.now()))
        await self._housekeeping.clock_went_back()
        self._heartbeat.start()
        self._opened.callback(self._heartbeat.stop)
        self.observatory.start(config.listen.address, config.listen.observe_port)
        self._opened.callback(self.observatory.stop)
        await self._scheduler.start()
        self._opened.push_async_callback(self._scheduler.stop, self._grace)
        QueueCommands(self._store, self._scheduler, self._clock.now).register(self.controls)
        SuppressionCommands(self.suppressions, self._clock.now).register(self.controls)
        AccountCommands(self.pauses).register(self.controls)
        control = ControlServer(self.controls, self._store.directory)
        await control.start()
        self._opened.push_async_callback(control.stop)
        await self.server.start()
        self._opened.push_async_callback(self.server.stop, self._grace)
        if config.listen.bounce_port is not None:
            await self.bounces.start(config.listen.address, config.listen.bounce_port)
            self._opened.push_async_callback(self.bounces.stop, self._grace)
        stalled = self.metrics.queue_stalled_seconds.set
        upkeep = Upkeep(self._store, self._store, self._scheduler, self._clock.now, stalled)
        for work in (self._watcher.run(), self._housekeeping.run(), upkeep.run()):
            self._opened.push_async_callback(_cancelled, asyncio.create_task(work))
        _log.info(
            "listening",
            tenant=config.tenant,
            submission=self.server.submission_port,
            submissions=self.server.submissions_port,
            observe=self.observatory.port,
            bounces=self.bounces.port or None,
            configuration=self._loaded.hash,
        )

    def _at_the_door(self, config: RelayConfig) -> SubmissionServer | Fronts:
        """What speaks to the clients: this process, or several of their own."""
        if config.listen.processes:
            return Fronts(
                listen=config.listen,
                program=program(self._directory, self._spool),
                incoming=self._store.incoming,
                desk=self._desk,
                senders=self._senders,
                recipients=self.suppressions,
                accounts=self._paused,
                window=self._window,
                clock=self._clock,
                metrics=self.metrics,
                configuration=lambda: self._loaded.hash,
            )
        self._door = Door(
            rules=Rules(config),
            signer=self._loaded.signer,
            senders=self._senders,
            recipients=self.suppressions,
            accounts=self.pauses,
            desk=self._desk,
            spool=Spool(self._store.incoming, config.limits),
            clock=self._clock,
            metrics=self.metrics,
        )
        crowd = Crowd(lambda *_: self.metrics.sessions.set(crowd.total))
        return SubmissionServer(self._door, self._loaded.context, crowd)

    async def _paused(self, username: str) -> Reply | None:
        """Why an account may not send now, for the processes that do not have the pauses."""
        account = next((one for one in self._config.accounts if one.username == username), None)
        return None if account is None else await self.pauses.check(account)

    async def stop(self) -> None:
        """End in order: first what takes mail, then what sends it, then the store. Nothing accepted is lost."""
        _log.info("stopping")
        await self._opened.aclose()
        _log.info("stopped")

    async def _apply(self, loaded: Loaded) -> None:
        """Put a new configuration in force, for the next command of open sessions too: all of it or nothing."""
        config = _effective(loaded.config)
        rules = _tried(config)
        # From here on nothing fails, and nothing is awaited before all of it is in force.
        offset = config.rehearsal.clock_offset_seconds
        moved = offset - self._clock.offset
        self._clock.offset = offset
        if moved:
            self._steps.step()  # asked for: not worth an alarm
        if self._door is not None:
            self._door.reconfigure(rules, loaded.signer)
        self._senders.reconfigure(config)
        self.suppressions.reconfigure(config.suppression)
        self.pauses.reconfigure(config.account_pause, config.accounts)
        self._probe.reconfigure(config, loaded.credentials)
        self._resolver.reconfigure(config.resolver)
        self._scheduler.reconfigure(config, loaded.credentials)
        if isinstance(self.server, SubmissionServer):
            self.server.use(loaded.context)
        plan = config.plan
        held = self._window.set_plan(plan.messages_per_hour, plan.tolerance_percent, self._clock.now())
        self._config, self._loaded = config, loaded
        _log.info("configuration in force", configuration=loaded.hash, submission_open=config.submission.open)
        try:
            await self._housekeeping.respread(held)
            if moved < 0:
                await self._housekeeping.clock_went_back()
        except StoreError:
            _log.exception("what waits keeps its times until the next start")
        if moved:
            self._scheduler.clock_changed()
        if isinstance(self.server, Fronts):
            await self.server.reload()
        self._told = loaded

    def _readiness(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "ready": self.server.listening,
            "configHash": self._told.hash,
            "submissionOpen": self._told.config.submission.open,
        }
        if self._watcher.error:
            body["configError"] = self._watcher.error
        if paused := self.pauses.standing():
            body["pausedAccounts"] = told_of(paused)
        return body

    async def _refresh(self) -> None:
        """Bring the gauges up to date; before each scrape."""
        now = self._clock.now()
        queue = await self._store.queue_state(now)
        show(
            self.metrics,
            now,
            usage=self._window.usage(now),
            oldest_key=self._loaded.oldest_key,
            queue=queue,
            destinations=self._scheduler.destinations(),
        )

    def _count(self, outcome: Outcome) -> None:
        self.metrics.deliveries_of(outcome.result.value, outcome.bounce_class).inc()
        if outcome.result is Result.DELIVERED:
            self.metrics.delivery_seconds.observe(max(0.0, outcome.at - outcome.recipient.released_at))
        self.consequences.observe(outcome)

    def _count_notice(self, kind: Kind, sent: bool) -> None:
        self.metrics.notices.labels(kind.value, "sent" if sent else "withheld").inc()

    async def _sign_notice(self, domain: str, content: bytes) -> bytes:
        signer = self._loaded.notice_signer
        return await signer.sign(domain, content) if signer.has_key(domain) else b""

    async def _sign_again(self, domain: str, content: bytes | Path) -> bytes:
        """Sign what was signed before and had to be changed: by the keys in force, whichever they are now."""
        for signer in (self._loaded.signer, self._loaded.notice_signer):
            if signer.has_key(domain):
                return await signer.sign(domain, content)
        _log.warning("a converted message goes unsigned: its domain has no key any more", domain=domain)
        return b""

    def _slowed(self, provider: str) -> None:
        self.metrics.slowdowns.labels(provider or "other").inc()


def _effective(config: RelayConfig) -> RelayConfig:
    """The configuration with what the process's environment says on top."""
    address = os.environ.get(LISTEN_VARIABLE)
    if address is None:
        return config
    if address and not is_address(address):
        raise ConfigError(f"{LISTEN_VARIABLE}: {address!r} is not an IP address: write one of this machine")
    return msgspec.structs.replace(config, listen=msgspec.structs.replace(config.listen, address=address))


def _tried(config: RelayConfig) -> Rules:
    """A configuration's rules, once everything else that parts build from it was built too, for trial.

    So what cannot be built fails before anything was switched.
    """
    Policy.of(config)
    shapes_of(config)
    Resolver(config.resolver)
    return Rules(config)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
