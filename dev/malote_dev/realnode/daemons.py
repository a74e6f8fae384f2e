"""The node's daemons: started one after the other, stopped in the opposite order, never left behind."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from malote_dev import keeper
from malote_dev.offspring import MARK_VARIABLE


class DaemonError(RuntimeError):
    """A daemon ended or did not become ready; the message has the end of its log."""


class Daemons:
    """Processes with a log file each.

    A keeper process ends what this one started, should this one be killed before it can.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._mark = f"{MARK_VARIABLE}={os.getpid()}-{secrets.token_hex(8)}"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", keeper.__file__, self._mark],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, cwd="/",
        )  # fmt: skip

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        ready: Callable[[], bool],
        *,
        env: Mapping[str, str] | None = None,
        seconds: float = 60,
    ) -> None:
        """Start a daemon and wait until `ready` says so. Raises DaemonError when it ends or takes too long."""
        mark, _, value = self._mark.partition("=")
        with (self._logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                cwd="/", env={**os.environ, **(env or {}), mark: value},
            )  # fmt: skip
        self._running[name] = process
        deadline = time.monotonic() + seconds
        while not ready():
            if process.poll() is not None:
                raise DaemonError(f"{name} ended (exit {process.returncode}):\n{self.log_tail(name)}")
            if time.monotonic() > deadline:
                raise DaemonError(f"{name} was not ready within {seconds:.0f} s:\n{self.log_tail(name)}")
            time.sleep(0.1)

    def stop(self, name: str, seconds: float = 20) -> None:
        """SIGTERM, and SIGKILL when that is not enough."""
        process = self._running.pop(name, None)
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def close(self) -> None:
        """Stop all, the last one started first, and whatever they left behind."""
        for name in reversed(list(self._running)):
            self.stop(name)
        if self._keeper.stdin is not None and not self._keeper.stdin.closed:
            self._keeper.stdin.close()
            self._keeper.wait()

    def log_tail(self, name: str, lines: int = 15) -> str:
        """The end of a daemon's log."""
        said = (self._logs / f"{name}.log").read_text(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in said[-lines:])
