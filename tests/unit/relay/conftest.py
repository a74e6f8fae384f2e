from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest


@pytest.fixture
def eventually() -> Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]:
    """Waits until something becomes true, for some seconds."""

    async def wait(question: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(60):
            while not await question():  # noqa: ASYNC110  # the store has no event for it
                await asyncio.sleep(0.005)

    return wait
