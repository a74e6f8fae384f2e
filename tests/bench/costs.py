"""What a server's processes cost: time on the cores and memory, over whole trees of processes.

Memory is given in two ways: proportional (PSS: pages that processes share are divided among them, so that the sum is
what they take) and resident (RSS: what each has, shared or not, so that the sum counts shared pages again).
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
class Memory:
    """In MB."""

    pss: float = 0.0
    rss: float = 0.0

    def most(self, other: Memory) -> Memory:
        """The larger of each."""
        return Memory(max(self.pss, other.pss), max(self.rss, other.rss))


@dataclass(frozen=True)
class Idle:
    """What a process takes that has nothing to do; CPU in thousandths of a core."""

    memory: Memory
    cpu_millicores: float


async def idle(pid: int, seconds: float) -> Idle:
    """Watch one process that has nothing to do."""
    used, since = _exact_seconds(pid), time.monotonic()
    await asyncio.sleep(seconds)
    spent = (_exact_seconds(pid) - used) / (time.monotonic() - since)
    return Idle(memory([pid]), spent * 1000)


def cpu_seconds(roots: Iterable[int]) -> float:
    """Time on the cores of processes with all their descendants, those that have ended included."""
    return sum(sum(map(int, _stat(pid)[11:15])) for pid in tree(roots) if _stat(pid)) / _TICK


def memory(roots: Iterable[int]) -> Memory:
    """Memory of processes with their descendants."""
    kibibytes = {"Pss:": 0, "Rss:": 0}
    for pid in tree(roots):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
                name, value, _ = line.split()
                if name in kibibytes:
                    kibibytes[name] += int(value)
    return Memory(kibibytes["Pss:"] * 1024 / 1e6, kibibytes["Rss:"] * 1024 / 1e6)


class Peak:
    """The most memory that processes take while it is watched."""

    def __init__(self, roots: Sequence[int], every: float = 0.1) -> None:
        self.memory = Memory()
        self._roots = roots
        self._every = every

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            self.memory = self.memory.most(await asyncio.to_thread(memory, self._roots))
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
