"""The account of a demo: numbered steps with their timings, facts under them, and what went wrong."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TextIO, TypeVar

T = TypeVar("T")

WIDTH = 100


class StepFailed(Exception):
    """Something did not turn out as the story says; the message is for the person watching."""


class Account:
    """Prints steps as they happen and remembers how long each took, in seconds."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._started = time.monotonic()
        self.timings: list[tuple[str, float]] = []
        self.told = False
        """Whether every step has been told."""
        self._bold, self._green, self._red, self._dim, self._end = (
            ("\x1b[1m", "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[0m") if out.isatty() else ("",) * 5
        )

    @contextlib.asynccontextmanager
    async def step(self, title: str) -> AsyncIterator[None]:
        """One step: prints the title, then what happens in it, then how long it took."""
        number = len(self.timings) + 1
        self._print(f"\n{self._bold}{number:2}. {title}{self._end}")
        started = time.monotonic()
        try:
            yield
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):
                self._print(f"    {self._red}✗ {error or type(error).__name__}{self._end}")
            raise
        took = time.monotonic() - started
        self.timings.append((title, took))
        self._print(f"    {self._dim}{took:.1f} s{self._end}")

    def note(self, text: str) -> None:
        """A fact, or several lines of them."""
        for line in text.splitlines():
            self._print(f"    {line}")

    def done(self, text: str) -> None:
        """Something that turned out as it should."""
        head, *rest = text.splitlines()
        self._print(f"    {self._green}✓{self._end} {head}")
        for line in rest:
            self._print(f"      {line}")

    def expect(self, holds: bool, text: str) -> None:
        """Say `text` if it holds, else fail the step with it."""
        if not holds:
            raise StepFailed(f"this did not hold: {text}")
        self.done(text)

    def say(self, text: str) -> None:
        """Words outside the steps."""
        self._print(text)

    def summary(self) -> None:
        """The table of timings."""
        self._print(f"\n{self._bold}How long it took{self._end}")
        for number, (title, took) in enumerate(self.timings, 1):
            self._print(f"    {number:2}. {title:<{WIDTH - 20}} {took:6.1f} s")
        self._print(f"        {'in all':<{WIDTH - 20}} {time.monotonic() - self._started:6.1f} s")

    def _print(self, line: str) -> None:
        print(line, file=self._out, flush=True)


async def until(look: Callable[[], Awaitable[T | None]], what: str, *, within: float, every: float = 0.1) -> T:
    """Look again and again until there is something; StepFailed naming `what` after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        found = await look()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise StepFailed(f"waited {within:.0f} s in vain for {what}")
        await asyncio.sleep(every)
