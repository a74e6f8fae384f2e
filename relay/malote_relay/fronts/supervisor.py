"""The core's side of the fronts: starting them, hearing them, reloading, restarting and ending them.

Sessions are counted in the core and told on, so that each front holds all of them against the limits; a limit can be
exceeded by as many as come to different fronts within a millisecond. Octets in flight are divided among the fronts.
Failed sign-ins and connections without one are counted so, too; a front that is started anew is told of the sign-ins
that there were, and has yet to hear of the minute's connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from malote_relay import logs
from malote_relay.clock import Clock
from malote_relay.config import Listen
from malote_relay.fronts import protocol, standins
from malote_relay.fronts.channel import Channel
from malote_relay.fronts.leases import Leases
from malote_relay.fronts.memory import SignIns
from malote_relay.fronts.protocol import (
    Answer,
    Ask,
    Asked,
    Begin,
    Came,
    Check,
    Checked,
    Frame,
    Hello,
    Loaded,
    Noted,
    Ping,
    Pong,
    Refusal,
    Reload,
    Return,
    Stop,
    Take,
)
from malote_relay.metrics import Metrics, Refused
from malote_relay.quota import HourWindow
from malote_relay.submission import replies
from malote_relay.submission.acceptance import ChecksRecipients, ChecksSenders
from malote_relay.submission.address import Mailbox
from malote_relay.submission.desk import Desk
from malote_relay.submission.listener import Places, bind
from malote_relay.submission.replies import Reply
from malote_relay.submission.server import BACKLOG

_START_SECONDS: Final = 30.0
_RELOAD_SECONDS: Final = 10.0
_END_SECONDS: Final = 8.0
"""Beyond the grace: what is being committed, and the good-byes."""

_PING_SECONDS: Final = 5.0
_MISSED: Final = 4
"""Pings in a row without a word: a front that is held up so long (stopped, or hanging) serves nobody, and may keep
units that others wait for. Not seconds: a whole machine that was asleep wakes up with one ping missed."""

_SOUND_SECONDS: Final = 60.0
"""A front that lived for so long is started again at once."""

_MAX_PAUSE: Final = 30.0

_log = structlog.get_logger("malote.fronts")


@dataclass(eq=False)
class _Front:
    """One front, and those that came before it in its place."""

    number: int
    places: Places
    process: subprocess.Popen[bytes] | None = None
    channel: Channel | None = None
    since: float = 0.0
    failures: int = 0
    begun: bool = False
    heard: bool = False
    confirmed: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    clients: Counter[str] = field(default_factory=Counter)
    files: set[str] = field(default_factory=set)
    """Contents that the store is about to take over."""


class Fronts:
    """All fronts of a relay. `program` is what to run, with the arguments that all have in common."""

    def __init__(
        self,
        *,
        listen: Listen,
        program: list[str],
        incoming: Path,
        desk: Desk,
        senders: ChecksSenders,
        recipients: ChecksRecipients,
        accounts: Callable[[str], Awaitable[Reply | None]],
        window: HourWindow,
        clock: Clock,
        metrics: Metrics,
        configuration: Callable[[], str],
    ) -> None:
        self._listen = listen
        self._program = program
        self._incoming = incoming
        self._desk = desk
        self._senders = senders
        self._recipients = recipients
        self._accounts = accounts
        self._metrics = metrics
        self._configuration = configuration
        self._fronts: list[_Front] = []
        self._leases = Leases(window, clock.now, self._say)
        self._sign_ins = SignIns()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._sessions = 0
        self.submission_port = 0
        self.submissions_port = 0

    @property
    def listening(self) -> bool:
        """Whether new sessions are taken, by one front at least."""
        return not self._stopping.is_set() and any(front.begun for front in self._fronts)

    @property
    def pids(self) -> list[int]:
        """The processes there are."""
        return [front.process.pid for front in self._fronts if front.process is not None]

    async def start(self) -> None:
        """Bind the ports and start the fronts; returns when all take clients. Raises OSError."""
        listen = self._listen
        for number in range(listen.processes):
            places = bind(listen, shared=True)
            self._fronts.append(_Front(number, places))
            for one in (*places.submission, *places.submissions):
                one.listen(BACKLOG)  # from now on clients wait here, also while a front is started anew
            # A port that the system chose for the first is the others' too.
            submission, submissions = places.ports
            listen = _on_ports(listen, submission, submissions)
        self.submission_port, self.submissions_port = listen.submission_port, listen.submissions_port
        for front in self._fronts:
            self._spawn(self._keep(front))
        try:
            async with asyncio.timeout(_START_SECONDS):
                for front in self._fronts:
                    await front.confirmed.wait()
        except TimeoutError:
            await self.stop(0.0)
            raise OSError("a front process did not start: see its words in the log") from None

    async def stop(self, grace: float) -> None:
        """Let the fronts finish what is under way, for at most `grace` seconds, and end."""
        self._stopping.set()
        for front in self._fronts:
            self._tell(front, Stop(grace))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace + _END_SECONDS)
        for front in self._fronts:
            if front.process is not None:
                front.process.kill()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_END_SECONDS)
        for task in self._tasks:
            task.cancel()
        for front in self._fronts:
            for one in (*front.places.submission, *front.places.submissions):
                one.close()

    async def reload(self) -> None:
        """Have every front put the configuration in force that the core has: returns when all have.

        One that does not within some seconds is ended: the next in its place begins with what there is.
        """
        asked = [front for front in self._fronts if front.begun]
        for front in asked:
            front.confirmed.clear()
            self._tell(front, Reload(self._configuration()))
        for front in asked:
            try:
                async with asyncio.timeout(_RELOAD_SECONDS):
                    await front.confirmed.wait()
            except TimeoutError:
                _log.error("a front has not taken the configuration: it is started anew", front=front.number)
                if front.process is not None:
                    front.process.kill()

    # One front's life.

    async def _keep(self, front: _Front) -> None:
        """Start a front, and another whenever it has ended, sooner or later."""
        while not self._stopping.is_set():
            try:
                await self._live(front)
            except OSError:
                _log.exception("a front cannot be started", front=front.number)
            if self._stopping.is_set():
                return
            lived = time.monotonic() - front.since
            front.failures = 0 if lived >= _SOUND_SECONDS else front.failures + 1
            pause = 0.0 if front.failures <= 1 else min(_MAX_PAUSE, 0.5 * 2.0 ** (front.failures - 2))
            _log.error("a front has ended: another is started", front=front.number, lived=lived, pause=pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _live(self, front: _Front) -> None:
        front.gone.clear()
        front.since = time.monotonic()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = front.process = self._start_process(front, theirs)
        except OSError:
            ours.close()
            raise
        self._leases.join(front.number)
        watch: asyncio.Task[None] | None = None
        try:
            front.channel = await Channel.over(
                ours, lambda frame: self._hear(front, frame), lambda words: front.gone.set()
            )
            watch = asyncio.create_task(self._watch(front, process))
            await front.gone.wait()
        except OSError:
            ours.close()
            raise
        finally:
            if watch is not None:
                watch.cancel()
            await self._bury(front, process)

    async def _watch(self, front: _Front, process: subprocess.Popen[bytes]) -> None:
        """End a front that says nothing any more; that its channel is lost then begins the next one's life."""
        missed = 0
        while missed < (_MISSED if front.begun else _START_SECONDS / _PING_SECONDS):
            front.heard = False
            self._tell(front, Ping())
            await asyncio.sleep(_PING_SECONDS)
            missed = 0 if front.heard else missed + 1
        _log.error("a front does not answer: it is ended", front=front.number)
        process.kill()

    def _start_process(self, front: _Front, end: socket.socket) -> subprocess.Popen[bytes]:
        places = front.places
        submission = [one.fileno() for one in places.submission]
        submissions = [one.fileno() for one in places.submissions]
        numbers = {"number": front.number, "of": len(self._fronts), "parent": os.getpid(), "channel": end.fileno()}
        return subprocess.Popen(  # noqa: S603  # our own program
            [
                *self._program,
                *(f"--{name}={value}" for name, value in numbers.items()),
                "--submission", *map(str, submission),
                "--submissions", *map(str, submissions),
            ],
            stdin=subprocess.DEVNULL,
            pass_fds=[end.fileno(), *submission, *submissions],
        )  # fmt: skip

    async def _bury(self, front: _Front, process: subprocess.Popen[bytes]) -> None:
        """A front is gone: what it had reserved goes back, and what it was writing is removed."""
        front.channel = None
        front.begun = False
        front.process = None
        self._leases.leave(front.number)
        for client, count in front.clients.items():
            self._came(front, client, -count)
        front.clients.clear()
        process.kill()  # it may hang rather than be gone
        await asyncio.to_thread(process.wait)
        await asyncio.to_thread(_clear, self._incoming, f"front{front.number}-", frozenset(front.files))

    # What fronts say.

    def _hear(self, front: _Front, frame: protocol.Any) -> None:
        front.heard = True
        match frame:
            case Pong():
                pass
            case Take():
                self._take(front, frame)
            case Ask():
                self._leases.ask(front.number, frame.number)
            case Return():
                self._leases.give_back(front.number, frame.count, recalled=frame.recalled)
            case Check():
                self._spawn(self._check(front, frame))
            case Came():
                front.clients[frame.client] += frame.change
                if not front.clients[frame.client]:
                    del front.clients[frame.client]
                self._came(front, frame.client, frame.change)
            case Noted():
                self._sign_ins.note(frame)
                self._tell_others(front, frame)
            case Refusal():
                self._metrics.refused(Refused(frame.reason))
            case Hello(configuration=configuration):
                self._confirm(front, configuration, "")
            case Loaded():
                self._confirm(front, frame.configuration, frame.error)
            case _:
                raise protocol.BadFrame(f"{type(frame).__name__} from a front")

    def _take(self, front: _Front, frame: Take) -> None:
        try:
            units = self._leases.take(front.number, len(frame.recipients))
            message = standins.message(frame, self._incoming)
        except ValueError as error:
            raise protocol.BadFrame(str(error)) from error

        async def take() -> None:
            front.files.add(frame.file)
            try:
                reply = await self._desk.take(message, units)
            except Exception:  # its client waits for an answer, whatever happens
                _log.exception("a message failed", id=message.id)
                reply = replies.INTERNAL_ERROR
            finally:
                front.files.discard(frame.file)
            self._tell(front, Answer(frame.number, reply))

        self._spawn(take())

    async def _check(self, front: _Front, frame: Check) -> None:
        try:
            refusal, unknown = await self._checked(frame)
        except Exception:  # its client waits for an answer, whatever happens
            _log.exception("a check failed", about=frame.about.value)
            refusal, unknown = replies.INTERNAL_ERROR, False
        self._tell(front, Checked(frame.number, refusal, unknown))

    async def _checked(self, frame: Check) -> tuple[Reply | None, bool]:
        if frame.about is Asked.ACCOUNT:
            return await self._accounts(frame.name), False
        local, _, domain = frame.name.rpartition("@")
        mailbox = Mailbox(local, domain)
        if frame.about is Asked.RECIPIENT:
            return await self._recipients.check(mailbox), False
        return await self._senders.check(mailbox)

    def _confirm(self, front: _Front, configuration: str, error: str) -> None:
        """A front has loaded a configuration: when it is not the core's it tries again, until told otherwise."""
        if configuration != self._configuration():
            _log.warning("a front has another configuration", front=front.number, error=error)
            asyncio.get_running_loop().call_later(0.2, self._tell, front, Reload(self._configuration()))
            return
        if not front.begun:
            front.begun = True
            for other in self._fronts:
                if other is not front:
                    for client, count in other.clients.items():
                        self._tell(front, Came(client, count))
            for noted in self._sign_ins.told():
                self._tell(front, noted)
            self._tell(front, Begin())
        front.confirmed.set()

    def _came(self, front: _Front, client: str, change: int) -> None:
        self._sessions += change
        self._metrics.sessions.set(self._sessions)
        self._tell_others(front, Came(client, change))

    def _tell_others(self, front: _Front, frame: Frame) -> None:
        for other in self._fronts:
            if other is not front and other.begun:
                self._tell(other, frame)

    def _say(self, number: int, frame: Frame) -> None:
        self._tell(self._fronts[number], frame)

    def _tell(self, front: _Front, frame: Frame) -> None:
        if front.channel is not None:
            front.channel.send(frame)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def program(config: Path, spool: Path) -> list[str]:
    """What to run as a front."""
    return [
        sys.executable, "-P", "-m", "malote_relay.fronts",
        f"--config={config}", f"--spool={spool}", f"--log-format={logs.form()}",
    ]  # fmt: skip


def _on_ports(listen: Listen, submission: int, submissions: int) -> Listen:
    return msgspec.structs.replace(listen, submission_port=submission, submissions_port=submissions)


def _clear(incoming: Path, prefix: str, kept: frozenset[str]) -> None:
    """Remove what a front that is gone was still writing."""
    for path in incoming.glob(f"{prefix}*"):
        if path.name not in kept:
            with contextlib.suppress(OSError):  # the next start removes what is left
                path.unlink(missing_ok=True)
