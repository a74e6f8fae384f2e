"""A front: a process that speaks to clients, from its start by the core to its end.

It obeys the core alone: signals to end are the core's to handle, and when the core is gone so is the front.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop

from malote_relay import logs, memory
from malote_relay.clock import SystemClock
from malote_relay.config import ConfigError
from malote_relay.fronts import protocol
from malote_relay.fronts.channel import Channel
from malote_relay.fronts.protocol import (
    Answer,
    Begin,
    Came,
    Checked,
    Frame,
    Grant,
    Hello,
    Noted,
    Over,
    Ping,
    Pong,
    Recall,
    Reload,
    Stop,
)
from malote_relay.fronts.purse import Purse
from malote_relay.fronts.standins import (
    HereSigner,
    RemoteAccounts,
    RemoteChecks,
    RemoteCounts,
    RemoteDesk,
    RemoteRecipients,
    RemoteSenders,
)
from malote_relay.reload import load
from malote_relay.store.layout import Layout
from malote_relay.submission.acceptance import Door
from malote_relay.submission.body import Spool
from malote_relay.submission.crowd import Crowd
from malote_relay.submission.listener import Places
from malote_relay.submission.policy import Rules
from malote_relay.submission.server import SubmissionServer

_PR_SET_PDEATHSIG: Final = 1

_log = structlog.get_logger("malote.front")


class Front:
    """One front; `run` it to its end."""

    def __init__(self, directory: Path, spool: Path, number: int, of: int, places: Places) -> None:
        self._directory = directory
        self._of = of
        self._places = places
        self._loaded = load(directory)
        config = self._loaded.config
        self._purse = Purse(self._say)
        self._desk = RemoteDesk(self._purse, self._say)
        self._checks = RemoteChecks(self._say)
        self._senders = RemoteSenders(config, self._checks)
        self._clock = SystemClock(config.rehearsal.clock_offset_seconds)
        self._crowd = Crowd(lambda client, change: self._say(Came(client, change)))
        self._door = Door(
            rules=Rules(config),
            signer=HereSigner(self._loaded.signer),
            senders=self._senders,
            recipients=RemoteRecipients(self._checks),
            accounts=RemoteAccounts(self._checks),
            desk=self._desk,
            spool=Spool(Layout(spool).incoming, config.limits, prefix=f"front{number}-", share=of),
            clock=self._clock,
            metrics=RemoteCounts(self._say),
        )
        self._server = SubmissionServer(
            self._door,
            self._loaded.context,
            self._crowd,
            lambda seen, client, account: self._say(Noted(seen, client, account)),
        )
        self._channel: Channel | None = None
        self._ending = False
        self._stopping: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, end: socket.socket) -> None:
        """Wait for the core's word, take clients, and end when it says so."""
        self._channel = await Channel.over(end, self._hear, self._alone)
        self._say(Hello(self._loaded.hash))
        grace = await self._stopping
        await self._server.stop(grace)
        self._ending = True
        self._channel.close()

    def _alone(self, words: str) -> None:
        """The core is gone, and with it whoever could accept anything: no client is to wait for an answer."""
        if not self._ending:
            os._exit(1)

    def _say(self, frame: Frame) -> None:
        if self._channel is not None:
            self._channel.send(frame)

    def _hear(self, frame: protocol.Any) -> None:
        match frame:
            case Answer():
                self._desk.answered(frame)
            case Grant():
                self._purse.granted(frame.number, frame.count)
            case Over():
                self._purse.over(frame)
            case Recall():
                self._purse.recall()
            case Checked():
                self._checks.answered(frame)
            case Came():
                self._crowd.note(frame.client, frame.change)
            case Noted():
                self._server.note(frame.seen, frame.client, frame.account, frame.age)
            case Ping():
                self._say(Pong())
            case Begin():
                self._start(self._server.start(self._places))
            case Reload():
                self._start(self._reload())
            case Stop():
                if not self._stopping.done():
                    self._stopping.set_result(frame.grace)
            case _:
                _log.error("the core said what only fronts say", what=type(frame).__name__)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reload(self) -> None:
        """Put in force what the files say now; the core compares what it is told of it with what it has itself."""
        error = ""
        try:
            loaded = await asyncio.to_thread(load, self._directory, self._loaded)
        except ConfigError as failed:
            error = str(failed)
        else:
            config = loaded.config
            self._clock.offset = config.rehearsal.clock_offset_seconds
            self._door.reconfigure(Rules(config), HereSigner(loaded.signer))
            self._senders.reconfigure(config)
            self._checks.forget()
            self._server.use(loaded.context)
            self._loaded = loaded
        self._say(protocol.Loaded(self._loaded.hash, error))


def _die_with(parent: int) -> None:
    """Have the kernel end this process when the core ends, should its own loop not notice."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


async def _run(options: argparse.Namespace) -> None:
    logs.gather(asyncio.get_running_loop())
    try:
        places = Places(
            [socket.socket(fileno=number) for number in options.submission],
            [socket.socket(fileno=number) for number in options.submissions],
        )
        front = Front(options.config, options.spool, options.number, options.of, places)
        async with memory.looked_after():
            await front.run(socket.socket(fileno=options.channel))
    finally:
        logs.gather(None)


def main() -> None:
    """The entry: the core starts it, nobody else."""
    parser = argparse.ArgumentParser(prog="malote-relay-front", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--log-format", choices=logs.FORMATS, default="json")
    for name in ("number", "of", "parent", "channel"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("submission", "submissions"):
        parser.add_argument(f"--{name}", type=int, nargs="+", required=True)
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    _die_with(options.parent)
    logs.configure(options.log_format)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(options))
    except (ConfigError, OSError) as error:
        print(f"malote-relay-front: {error}", file=sys.stderr)
        raise SystemExit(1) from error
