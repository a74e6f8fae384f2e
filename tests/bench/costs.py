"""What a server's processes cost: time on the cores and memory, over whole trees of processes.

Memory is proportional (PSS): pages that processes share are divided among them, so that the sum is what they take.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Idle:
    """Memory in MB, CPU in thousandths of a core."""

    pss_megabytes: float
    cpu_millicores: float


async def idle(pid: int, seconds: float) -> Idle:
    """Watch one process that has nothing to do."""
    used, since = _exact_seconds(pid), time.monotonic()
    await asyncio.sleep(seconds)
    spent = (_exact_seconds(pid) - used) / (time.monotonic() - since)
    return Idle(pss_megabytes([pid]), spent * 1000)


def cpu_seconds(roots: Iterable[int]) -> float:
    """Time on the cores of processes with all their descendants, those that have ended included."""
    return sum(sum(map(int, _stat(pid)[11:15])) for pid in tree(roots) if _stat(pid)) / _TICK


def pss_megabytes(roots: Iterable[int]) -> float:
    """Memory of processes with their descendants."""
    kibibytes = 0
    for pid in tree(roots):
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            kibibytes += next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return kibibytes * 1024 / 1e6


class Peak:
    """The most memory that processes take while it is watched."""

    def __init__(self, roots: Sequence[int], every: float = 0.1) -> None:
        self.megabytes = 0.0
        self._roots = roots
        self._every = every

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            self.megabytes = max(self.megabytes, await asyncio.to_thread(pss_megabytes, self._roots))
            await asyncio.sleep(self._every)


@contextlib.asynccontextmanager
async def watched(peak: Peak) -> AsyncIterator[None]:
    """Watch while the block runs."""
    task = asyncio.create_task(peak.watch())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def tree(roots: Iterable[int]) -> set[int]:
    """The processes and all their descendants that live."""
    parents = {pid: int(stat[1]) for pid in _all() if (stat := _stat(pid))}
    found = {pid for pid in roots if pid in parents}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _all() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, from the state on; none when it has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _exact_seconds(pid: int) -> float:
    """All threads' time on a core, in nanoseconds' precision where /proc/PID/stat counts hundredths."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
