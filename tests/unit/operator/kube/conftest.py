from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable

import pytest


class _NeverWaits(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0 if timeout else timeout)
        if timeout and not found:
            self.time += timeout
        return found


class PassingTime(asyncio.SelectorEventLoop):
    """An event loop on which whatever is waited for has its time at once: seconds are exact, and take none."""

    def __init__(self) -> None:
        self._selects = _NeverWaits()
        super().__init__(self._selects)

    def time(self) -> float:
        """Seconds that have passed for those who wait."""
        return self._selects.time


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Leadership is a matter of seconds, and of nothing outside the process."""
    return {"loop": PassingTime if item.path.name == "test_lease.py" else asyncio.new_event_loop}
