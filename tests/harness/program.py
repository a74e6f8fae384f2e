"""The entry of a program under tests/: what ends it, and with which code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Coroutine
from typing import Any

from tests.harness.processes import RunError

SCRATCH = "/var/tmp"
"""Where queues and spools are kept unless something else is said: a disk, as /tmp need not be."""


def ends(name: str, work: Coroutine[Any, Any, int], *failures: type[Exception]) -> int:
    """Run it to its end; gives the exit code: its own, 143 after SIGTERM.

    1 after a RunError, or one of `failures`, whose words are printed.
    """
    told: tuple[type[Exception], ...] = (RunError, *failures)
    started = time.monotonic()
    try:
        code = asyncio.run(_until_told(work))
    except told as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        return 143
    print(f"took {time.monotonic() - started:.0f} s on {len(os.sched_getaffinity(0))} cores")
    return code


async def _until_told(work: Coroutine[Any, Any, int]) -> int:
    """Let SIGTERM end what was started, as Ctrl-C does."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task
