"""A process's memory: the collector of cycles is kept out of its way, and what is free goes back to the kernel."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import structlog

_COLLECT_AFTER: Final = 5000
"""New objects after which the youngest are looked through for cycles: a busy relay makes some thousand a second."""

_LOOK_SECONDS: Final = 20.0
_WORTH_IT: Final = 8 * 1024 * 1024
"""Octets by which the process has grown since it last gave back."""

_log = structlog.get_logger("malote.relay")


@contextlib.asynccontextmanager
async def looked_after() -> AsyncIterator[None]:
    """Enter it once started; free memory is given back now and then until it is left."""
    # What is there now stays: to look through it time and again would hold the loop up.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)
    giving_back = asyncio.create_task(_give_back_now_and_then())
    try:
        yield
    finally:
        giving_back.cancel()
        await asyncio.gather(giving_back, return_exceptions=True)


async def _give_back_now_and_then() -> None:
    """Ends at once where the C library is not glibc.

    It keeps what was freed: among blocks of every size a burst of large messages leaves tens of megabytes of holes
    that nothing fills.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return
    least = resident()
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        now = resident()
        if now - least >= _WORTH_IT:
            await asyncio.to_thread(trim, 0)
            least = resident()
            _log.debug("free memory given back", octets=now - least)
        else:
            least = min(least, now)


def resident() -> int:
    """Octets of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
