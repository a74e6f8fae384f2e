"""Processes that never outlive the one that started them.

Everything the local world starts (etcd, the API server, the containers of the process node) is started here, so that
neither Ctrl-C nor SIGKILL of the parent leaves anything behind. Three nets, one below the other:

* an orderly end: SIGTERM, a grace period, SIGKILL to the process group;
* `malote_dev.keeper`: when the parent is gone it kills whatever carries this family's mark in its environment;
* the kernel's parent-death signal on each direct child (``setpriv --pdeathsig``), should the keeper be gone too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from malote_dev import keeper

MARK_VARIABLE = "MALOTE_DEV_FAMILY"


class Child:
    """One running process, leader of a process group of its own."""

    def __init__(self, process: asyncio.subprocess.Process, argv: Sequence[str]) -> None:
        self._process = process
        self.argv = tuple(argv)
        self._exit = asyncio.ensure_future(process.wait())

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its process group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status (negative: the signal that ended it), None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """The exit status, once there is one."""
        return await asyncio.shield(self._exit)

    def signal(self, number: signal.Signals) -> None:
        """Signal the process itself, as a container runtime signals a container's first process."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def kill_group(self) -> None:
        """SIGKILL what is left of the group; a container's other processes end with its first one."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def stop(self, grace: float) -> int:
        """SIGTERM, then SIGKILL after *grace* seconds; gives the exit status."""
        if self.returncode is None and grace > 0:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self.wait()
        self.kill_group()
        return await self.wait()


class Offspring:
    """The children of one owner; leaving the context ends all of them."""

    def __init__(self) -> None:
        self._mark = f"{MARK_VARIABLE}={os.getpid()}-{secrets.token_hex(8)}"
        self._children: set[Child] = set()
        self._keeper: subprocess.Popen[bytes] | None = None
        self._setpriv = shutil.which("setpriv")

    @property
    def mark(self) -> str:
        """``VARIABLE=VALUE`` in the environment of every child, and of whatever a child starts."""
        return self._mark

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the children that run."""
        return tuple(child.pid for child in self._children)

    async def __aenter__(self) -> Self:
        # In a session of its own: a SIGKILL to the parent's whole process group must not reach the keeper.
        self._keeper = await asyncio.to_thread(
            subprocess.Popen,
            [sys.executable, "-I", "-S", keeper.__file__, self._mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end(grace=5.0)

    async def end(self, grace: float) -> None:
        """End all children, and whatever they have started: SIGTERM, SIGKILL after *grace* seconds (0: at once)."""
        await asyncio.gather(*(child.stop(grace) for child in list(self._children)), return_exceptions=True)
        # Closing its input sets the keeper to work on strays; then it ends.
        if self._keeper is not None and self._keeper.stdin is not None:
            self._keeper.stdin.close()
            await asyncio.to_thread(self._keeper.wait)
            self._keeper = None

    async def start(
        self,
        argv: Sequence[str],
        *,
        environ: Mapping[str, str],
        directory: Path,
        output: IO[bytes] | int | None = None,
    ) -> Child:
        """Start a process in a session of its own, standard output and error into *output*.

        Raises FileNotFoundError or PermissionError where there is no such program.
        """
        if self._keeper is None:
            raise RuntimeError("Offspring starts processes only inside its `async with`")
        program = shutil.which(argv[0], path=environ.get("PATH", os.defpath))
        if program is None:
            raise FileNotFoundError(f'exec: "{argv[0]}": executable file not found in $PATH')
        name, _, value = self._mark.partition("=")
        command = [program, *argv[1:]]
        if self._setpriv:
            command = [self._setpriv, "--pdeathsig", "KILL", "--", *command]
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**environ, name: value},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if output is None else output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A pipe end of the keeper's in a child would keep the keeper waiting: close all but the three streams.
            close_fds=True,
        )
        child = Child(process, argv)
        self._children.add(child)
        child._exit.add_done_callback(lambda _: self._children.discard(child))
        return child
