"""Processes that a run starts and ends itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_given: set[int] = set()


class RunError(Exception):
    """The run cannot go on; the message says why, for people."""


def free_port() -> int:
    """A port of 127.0.0.1 for a server that is started later, and perhaps again and again.

    It lies below those that the system gives to connections and to who asks for any: none of them takes it meanwhile.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(min(10_000, first - 1000), first)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


def system_program(name: str) -> str | None:
    """The path of a program, also where only root's PATH leads; None when it is not installed."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Child:
    """A process with a log file; ended with its whole group, politely first."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log

    @classmethod
    async def start(
        cls,
        command: Sequence[str | Path],
        log: Path,
        *,
        talk: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *map(str, command),
                stdin=asyncio.subprocess.PIPE if talk else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if talk else output,
                stderr=output,
                cwd=ROOT,
                start_new_session=True,
                limit=64 * 1024 * 1024,
                env={**os.environ, **(environment or {})},
            )
        return cls(process, log)

    async def hear(self) -> dict[str, Any]:
        """The next JSON line it says."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise RunError(f"{self.log.name} ended:\n{self.tail()}")
        words: dict[str, Any] = json.loads(line)
        return words

    async def ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        return await self.hear()

    async def stop(self, timeout: float = 60.0) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.returncode is not None:
                return
            try:
                os.killpg(self.process.pid, number)
                async with asyncio.timeout(timeout):
                    await self.process.wait()
            except (ProcessLookupError, TimeoutError):
                continue

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
