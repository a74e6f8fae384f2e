"""Memory that is free goes back to the kernel, also from between what is in use."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import time
from collections.abc import Iterator

import pytest

from malote_relay import memory

MEGABYTE = 1024 * 1024


@pytest.fixture(autouse=True)
def collector_as_it_was() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


async def test_holes_between_what_is_in_use_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_LOOK_SECONDS", 0.02)
    async with memory.looked_after():
        ctypes.CDLL(None).malloc_trim(0)  # what earlier tests have left is not to be filled
        await asyncio.sleep(0.05)
        before = memory.resident()
        # Too small for a mapping of their own, each followed by something that stays.
        content = [bytes(1000 * (1 + place % 2 * 99)) for place in range(2000)]
        grown = memory.resident() - before
        assert grown > 60 * MEGABYTE
        kept = content[::2]
        del content
        deadline = time.monotonic() + 60
        while memory.resident() - before > grown / 4 and time.monotonic() < deadline:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.02)
        assert memory.resident() - before <= grown / 4
        assert len(kept) == 1000
