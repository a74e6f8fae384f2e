"""``python -m tests.harness.stalling pytest tests/…``: does a test bear a machine that stalls?

Runs a command and, again and again, stops one of its processes for a moment, as a busy host stops a virtual machine:
the test's own process, a relay, an operator, an API server. A test that waits for what it is about passes all the
same.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

PAUSES = (0.5, 3.0)
"""Seconds between two stalls."""


def descendants(root: int) -> list[int]:
    """The process and all that it has started, as far as they are there now."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(status.parent.name))
    found = [root]
    for one in found:
        found += children.get(one, [])
    return found


def stall(process: int, seconds: float) -> None:
    """Stop a process for so long."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(process, signal.SIGCONT)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.harness.stalling", description=(__doc__ or "").strip())
    parser.add_argument("--longest", type=float, default=2.0, help="seconds of the longest stall (default 2)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("command", nargs=argparse.REMAINDER)
    said = parser.parse_args()
    chance = random.Random(said.seed)
    stalls = 0
    with subprocess.Popen(said.command) as running:
        while running.poll() is None:
            time.sleep(chance.uniform(*PAUSES))
            stall(chance.choice(descendants(running.pid)), chance.uniform(0.2, said.longest))
            stalls += 1
    print(f"{stalls} stalls of up to {said.longest:g} s (--seed {said.seed})", file=sys.stderr)
    return running.returncode


if __name__ == "__main__":
    raise SystemExit(main())
