"""The relay's process: wiring, reload, signals, and an orderly end.

::

    malote-relay --config DIR --spool DIR

On SIGTERM: new sessions read 421, transactions under way finish, deliveries drain for a bounded time, the store is
closed, and the process ends with 0. What was not delivered waits in the spool for the next start.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec
import structlog
import uvloop

from malote_relay import collector, logs
from malote_relay.bounces.intake import Intake
from malote_relay.bounces.server import BounceServer
from malote_relay.clock import StepWatch, SystemClock
from malote_relay.config import ConfigError, RelayConfig, is_address
from malote_relay.consequences import Consequences
from malote_relay.control.registry import Controls
from malote_relay.control.server import ControlServer
from malote_relay.delivery.commands import QueueCommands
from malote_relay.delivery.notices import Kind
from malote_relay.delivery.retry import JITTER
from malote_relay.delivery.route import Policy
from malote_relay.delivery.scheduler import Scheduler
from malote_relay.delivery.shapes import shapes_of
from malote_relay.delivery.upkeep import Upkeep
from malote_relay.fronts.supervisor import Fronts, program
from malote_relay.metrics import STANDINGS, Metrics
from malote_relay.observe import Heartbeat, Observatory
from malote_relay.pausing.commands import AccountCommands
from malote_relay.pausing.pauses import Pauses
from malote_relay.quota import HourWindow, start_of
from malote_relay.reload import Fingerprint, Loaded, Watcher, fingerprint, load
from malote_relay.resolver import Resolver
from malote_relay.sender_memory import SenderMemory
from malote_relay.senders import CalloutProbe, Senders
from malote_relay.store.model import ClockBack, Outcome, Respread, Result, StoreError
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

_HOUSEKEEPING_SECONDS: Final = 60.0
_PRUNE_EVERY: Final = 60
_SECONDS_PER_DAY: Final = 86_400

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
        self._watcher = Watcher(directory, seen, loaded.context, self._apply, self.metrics.config_errors.inc)
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
        for said in recovered.quarantined:
            _log.error("found damaged and set aside", what=said)
        self._compare_clock(start_of(recovered.latest_hour))
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
            sign=self._sign_notice,
            noticed=self._count_notice,
            return_paths=lambda: self._loaded.return_paths,
            slowed=self._slowed,
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
        )
        self.bounces = BounceServer(self._intake, lambda: self._config, lambda: self._loaded.context)
        self.observatory = Observatory(self.metrics, self._heartbeat, self._readiness, self._refresh)
        await self._respread(self._window.settle(self._clock.now()))
        await self._clock_went_back()
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
        for work in (self._watcher.run(), self._housekeeping(), upkeep.run()):
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
            await self._respread(held)
            if moved < 0:
                await self._clock_went_back()
        except StoreError:
            _log.exception("what waits keeps its times until the next start")
        if moved:
            self._scheduler.clock_changed()
        if isinstance(self.server, Fronts):
            await self.server.reload()
        self._told = loaded

    async def _respread(self, plan: Respread | None) -> None:
        if plan is not None:
            await self._store.respread(plan)
            self._scheduler.wake()

    async def _clock_went_back(self) -> None:
        """Let nothing wait for times of a clock that ran ahead, whether it was set right now or between two runs."""
        now = self._clock.now()
        longest = self._config.delivery.max_retry_seconds * (1 + JITTER)
        brought = await self._store.clock_went_back(ClockBack(now, self._window.usage(now).hour, now + longest))
        if brought:
            _log.warning("waited for times of a clock that ran ahead: brought forward", recipients=brought)
            self._scheduler.wake()

    def _compare_clock(self, latest_hour: float) -> None:
        """Say it when mail was charged to hours that have not come: until they do there is little room, or none."""
        behind = latest_hour - self._clock.now()
        if behind > 0:
            until = datetime.fromtimestamp(latest_hour, UTC).isoformat()
            _log.error(
                "the clock is behind the hours that mail was charged to, and they do not reopen",
                seconds=behind,
                until=until,
            )

    def _readiness(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "ready": self.server.listening,
            "configHash": self._told.hash,
            "submissionOpen": self._told.config.submission.open,
        }
        if self._watcher.error:
            body["configError"] = self._watcher.error
        return body

    async def _refresh(self) -> None:
        """Bring the gauges up to date; before each scrape."""
        metrics, now = self.metrics, self._clock.now()
        usage = self._window.usage(now)
        metrics.hour_charged.set(usage.charged)
        metrics.hour_limit.set(usage.limit)
        metrics.hour_tolerance.set(usage.tolerance)
        metrics.hour_held.set(usage.held)
        metrics.clock_behind_seconds.set(max(0.0, start_of(usage.hour) - now))
        oldest_key = self._loaded.oldest_key
        metrics.dkim_key_age_days.set(0.0 if oldest_key is None else max(0.0, now - oldest_key) / _SECONDS_PER_DAY)
        queue = await self._store.queue_state(now)
        metrics.queue_messages.labels("ready").set(queue.ready)
        metrics.queue_messages.labels("deferred").set(queue.deferred)
        metrics.queue_messages.labels("held").set(queue.held)
        states = Counter(one.standing for one in self._scheduler.destinations())
        for standing in STANDINGS:
            metrics.destinations.labels(standing).set(states[standing])
        oldest = queue.oldest_received_at
        metrics.queue_oldest_seconds.set(0.0 if oldest is None else max(0.0, now - oldest))

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

    def _slowed(self, provider: str) -> None:
        self.metrics.slowdowns.labels(provider or "other").inc()

    async def _housekeeping(self) -> None:
        turn = 0
        while True:
            if turn % _PRUNE_EVERY == 0:
                days = self._config.plan.report_retention_days
                try:
                    await self._store.prune(self._clock.now() - days * _SECONDS_PER_DAY)
                    await self.suppressions.forget()
                except StoreError:
                    _log.exception("what is old could not be dropped")
            turn += 1
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)
            if step := self._steps.step():
                self.metrics.clock_steps.inc()
                _log.error("the clock was moved: hours do not reopen, held mail follows the new time", seconds=step)
                if step < 0:
                    try:
                        await self._clock_went_back()
                    except StoreError:
                        _log.exception("what was deferred waits for the clock")
                self._scheduler.clock_changed()


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


async def run(directory: Path, spool: Path, grace: float) -> None:
    """Run a relay until SIGTERM or SIGINT. Raises ConfigError, OSError, StoreError."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)
    seen = fingerprint(directory)
    relay = Relay(directory, spool, load(directory), seen, grace)
    logs.gather(loop)
    try:
        await relay.start()
        collector.spare()
        await stopping.wait()
        await relay.stop()
    finally:
        logs.gather(None)


def main() -> None:
    """The command `malote-relay`."""
    options = _options()
    logs.configure(options.log_format)
    try:
        with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(options.config, options.spool, options.grace))
    except (ConfigError, StoreError) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="malote-relay", description="The SMTP relay of one tenant: takes, signs, holds and delivers mail."
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="DIR", help="holds config/relay.json, keys/ and tls/"
    )
    parser.add_argument("--spool", type=Path, required=True, metavar="DIR", help="where accepted mail is kept")
    parser.add_argument("--log-format", choices=logs.FORMATS, default="json", help="json (default) or console")
    parser.add_argument(
        "--grace",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="for clients, and again for deliveries, to finish at the end (default %(default)s)",
    )
    return parser.parse_args()


def _fail(words: str) -> NoReturn:
    print(f"malote-relay: {words}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
