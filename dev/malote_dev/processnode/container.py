"""One container as a local process: started, probed, restarted with back-off, stopped with grace."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from malote_dev import keeper
from malote_dev.kubeapi import UNREACHABLE, ApiError, Object
from malote_dev.offspring import Child, Offspring
from malote_dev.processnode.actions import Outcome, Target, perform
from malote_dev.processnode.environment import ConfigError, expand
from malote_dev.processnode.probes import Reactions, probe_container
from malote_dev.processnode.status import ContainerView, terminated, timestamp

CONTAINER_MARK = "MALOTE_DEV_CONTAINER"
# The kubelet's numbers: the first restart is immediate, then 10 s, doubling to 5 min; 10 min of running reset it.
FIRST_BACK_OFF = 10.0
_LONGEST_BACK_OFF = 300.0
_LOG_TAIL = 2048


class BackOff:
    """How long to wait before each restart."""

    def __init__(self, first: float) -> None:
        self._first = first
        self._delay = 0.0

    def next(self, ran: float) -> float:
        """The seconds to wait before the next start, after a run of *ran* seconds."""
        if ran > 2 * _LONGEST_BACK_OFF:
            self._delay = 0.0
        wait = self._delay
        self._delay = min(max(self._delay * 2, self._first), _LONGEST_BACK_OFF)
        return wait


@dataclass(frozen=True)
class Prepared:
    """What a container's process is started with."""

    environ: Mapping[str, str]
    rewrite: Callable[[str], str]
    variables: Mapping[str, str]
    directory: Path


@dataclass(frozen=True)
class Surroundings:
    """What a container needs of its pod."""

    offspring: Offspring
    prepare: Callable[[Object], Awaitable[Prepared]]
    address: str
    log: Path
    restart_policy: str
    grace: float
    changed: Callable[[], None]
    warn: Callable[[str, str], None]
    tell: Callable[[str, str], None]
    retry: asyncio.Event
    back_off: float = FIRST_BACK_OFF


class Container:
    """Runs one container; `view` is its state for the pod's status."""

    def __init__(self, spec: Object, surroundings: Surroundings) -> None:
        self.spec = spec
        self.view = ContainerView(spec["name"], spec.get("image", ""))
        self._around = surroundings
        self._child: Child | None = None
        self._prepared: Prepared | None = None
        self._stopping = False
        self._killed_because = ""
        self._work: asyncio.Task[None] | None = None
        self._kill: asyncio.Task[None] | None = None

    @property
    def child(self) -> Child | None:
        """The running process."""
        return self._child

    async def run(self) -> int | None:
        """Run it, again and again as the restart policy says; the last exit code, None where it was stopped first."""
        self._work = asyncio.current_task()
        back_off = BackOff(self._around.back_off)
        while not self._stopping:
            started = datetime.now(UTC)
            code = await self._run_once(back_off)
            if code is None or self._stopping or not self._restarts(code):
                return self.view.exit_code
            self.view.last_state, self.view.restarts = self.view.state, self.view.restarts + 1
            await self._wait_out(back_off.next((datetime.now(UTC) - started).total_seconds()))
        return self.view.exit_code

    async def stop(self, deadline: Callable[[], float]) -> None:
        """End it: preStop, SIGTERM, and SIGKILL at *deadline* by the loop's clock (asked repeatedly: it may move)."""
        self._stopping = True
        loop = asyncio.get_running_loop()
        child = self._child
        if child is None:
            if self._work is not None:
                self._work.cancel()
                await asyncio.gather(self._work, return_exceptions=True)
            return
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        if hook and deadline() > loop.time():
            outcome = await perform(hook, self._target(), deadline() - loop.time())
            if not outcome.ok:
                self._around.warn("FailedPreStopHook", outcome.message)
        if deadline() > loop.time():
            child.signal(signal.SIGTERM)
        while child.returncode is None and loop.time() < deadline():
            await asyncio.wait([asyncio.ensure_future(child.wait())], timeout=min(0.2, deadline() - loop.time()))
        child.kill_group()
        if self._work is not None and self._work is not asyncio.current_task():
            await asyncio.gather(self._work, return_exceptions=True)

    def _restarts(self, code: int) -> bool:
        policy = self._around.restart_policy
        return policy == "Always" or (policy == "OnFailure" and code != 0)

    async def _run_once(self, back_off: BackOff) -> int | None:
        """Start it (however often that must be tried) and wait for its end; its exit code."""
        child = await self._start(back_off)
        if child is None:
            return None
        started = datetime.now(UTC)
        self.view.state = {"running": {"startedAt": timestamp(started)}}
        self._around.tell("Started", f"Started container {self.spec['name']}")
        self._around.changed()
        probing = asyncio.create_task(self._probe(child))
        try:
            code = await child.wait()
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
            await self._sweep(child)
            self._child = None
        self.view.ready = self.view.started = False
        self.view.state = terminated(code, started, datetime.now(UTC), self.view.identity, self._last_words(code))
        self._around.changed()
        return 128 - code if code < 0 else code

    async def _start(self, back_off: BackOff) -> Child | None:
        name = self.spec["name"]
        while not self._stopping:
            try:
                self._prepared = await self._around.prepare(self.spec)
                return await self._spawn(self._prepared)
            except ConfigError as error:
                self._waiting("CreateContainerConfigError", str(error))
                self._around.warn("Failed", f"Error: {error}")
                await self._retry_within(2.0)
            except OSError as error:
                message = f"failed to start container {name}: {error.strerror or error}"
                self._waiting("RunContainerError", message)
                self._around.warn("Failed", f"Error: {message}")
                await self._retry_within(max(1.0, back_off.next(0.0)))
            except (ApiError, *UNREACHABLE) as error:
                self._waiting("CreateContainerConfigError", f"the API server does not answer: {error}")
                await self._retry_within(1.0)
        return None

    async def _spawn(self, prepared: Prepared) -> Child:
        argv = [*(self.spec.get("command") or ()), *(self.spec.get("args") or ())]
        if not self.spec.get("command"):
            raise ConfigError("the process node has no images and so no entry points: name a `command`")
        argv = [prepared.rewrite(expand(part, prepared.variables)) for part in argv]
        identity = secrets.token_hex(16)
        self.view.identity = f"process://{identity}"
        self._around.log.parent.mkdir(parents=True, exist_ok=True)
        with self._around.log.open("ab") as log:
            child = await self._around.offspring.start(
                argv,
                environ={**prepared.environ, CONTAINER_MARK: identity},
                directory=self._working_directory(prepared),
                output=log,
            )
        # From here on the process is ours to end, even if a cancellation comes before anything else happens.
        self._child = child
        return child

    def _working_directory(self, prepared: Prepared) -> Path:
        wanted = self.spec.get("workingDir")
        if wanted:
            folder = Path(prepared.rewrite(wanted))
            if folder.is_dir():
                return folder
        return prepared.directory

    async def _probe(self, child: Child) -> None:
        if hook := (self.spec.get("lifecycle") or {}).get("postStart"):
            outcome = await perform(hook, self._target(), 60.0)
            if not outcome.ok:
                self._around.warn("FailedPostStartHook", outcome.message)
                self._begin_kill(child, self._around.grace)
                return
        await probe_container(
            self.spec,
            Reactions(
                perform=lambda probe, timeout: perform(probe, self._target(), timeout),
                unhealthy=self._unhealthy,
                started=self._has_started,
                ready=self._is_ready,
                restart=lambda which, probe: self._fail(child, which, probe),
            ),
        )

    def _unhealthy(self, name: str, outcome: Outcome) -> None:
        self._around.warn("Unhealthy", f"{name} probe failed: {outcome.message}")

    def _has_started(self) -> None:
        self.view.started = True
        self._around.changed()

    def _is_ready(self, ready: bool) -> None:
        if self.view.ready != ready:
            self.view.ready = ready
            self._around.changed()

    def _fail(self, child: Child, which: str, probe: Object) -> None:
        self._around.tell("Killing", f"Container {self.spec['name']} failed {which} probe, will be restarted")
        self._begin_kill(child, float(probe.get("terminationGracePeriodSeconds", self._around.grace)))

    def _begin_kill(self, child: Child, grace: float) -> None:
        # A task of its own: the probing task that calls this is cancelled by the process's end.
        self._kill = asyncio.create_task(_stopped(child, grace))

    async def _sweep(self, child: Child) -> None:
        """End what the container's first process left behind, as the end of a pid name space does."""
        child.kill_group()
        identity = self.view.identity.removeprefix("process://")
        await asyncio.to_thread(keeper.kill_marked, f"{CONTAINER_MARK}={identity}".encode())

    async def _wait_out(self, delay: float) -> None:
        if delay <= 0:
            return
        name = self.spec["name"]
        self._waiting("CrashLoopBackOff", f"back-off {delay:g}s restarting failed container={name}")
        self._around.warn("BackOff", f"Back-off restarting failed container {name}")
        await asyncio.sleep(delay)

    async def _retry_within(self, seconds: float) -> None:
        """Wait, but no longer than until something that the pod refers to has changed."""
        self._around.retry.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._around.retry.wait()

    def _waiting(self, reason: str, message: str) -> None:
        self.view.state = {"waiting": {"reason": reason, "message": message}}
        self._around.changed()

    def _last_words(self, code: int) -> str:
        """The log's end as the status message, where the spec asks for it and the container failed."""
        if code == 0 or self.spec.get("terminationMessagePolicy") != "FallbackToLogsOnError":
            return ""
        with self._around.log.open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - _LOG_TAIL))
            return log.read().decode(errors="replace").strip()

    def _target(self) -> Target:
        return Target(self._around.address, self.spec, self._execute)

    async def _execute(self, command: Sequence[str], timeout: float) -> tuple[int, str]:
        prepared = self._prepared
        if prepared is None:
            raise OSError("container not running")
        argv = [prepared.rewrite(part) for part in command]
        identity = self.view.identity.removeprefix("process://")
        with tempfile.TemporaryFile() as output:
            child = await self._around.offspring.start(
                argv,
                environ={**prepared.environ, CONTAINER_MARK: identity},
                directory=self._working_directory(prepared),
                output=output,
            )
            try:
                async with asyncio.timeout(timeout):
                    status = await child.wait()
            finally:
                child.kill_group()
            output.seek(0)
            return status, output.read(4096).decode(errors="replace")


async def _stopped(child: Child, grace: float) -> None:
    await child.stop(grace)
