"""Threads that sign, beside the event loop.

An RSA signature takes a third of a millisecond in which the interpreter's lock is not needed. What surrounds it is
kept short: a thread takes several messages from the queue at once, when there are, and hands all their signatures
back together, so that the event loop is woken once and not for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple

_AT_ONCE: Final = 4
"""Messages that a thread takes at once: the first of them waits for the others' signatures, a millisecond."""


class _Job(NamedTuple):
    future: asyncio.Future[bytes]
    work: Callable[[], bytes]


class Threads:
    """Carries work out in so many threads, which are started when there is some."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._queue: SimpleQueue[_Job] = SimpleQueue()
        self._started = False

    def run(self, work: Callable[[], bytes]) -> asyncio.Future[bytes]:
        """The result of `work`, or what it raised. Called on the event loop."""
        if not self._started:
            self._started = True
            for number in range(self._count):
                threading.Thread(target=self._turn, name=f"{self._name}_{number}", daemon=True).start()
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._queue.put(_Job(future, work))
        return future

    def _turn(self) -> None:
        while True:
            jobs = [self._queue.get()]
            with contextlib.suppress(Empty):
                for _ in range(min(_AT_ONCE - 1, self._queue.qsize() // self._count)):
                    jobs.append(self._queue.get_nowait())
            done: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[bytes], bytes | Exception]]] = {}
            for future, work in jobs:
                if future.done():  # who waited was cancelled
                    continue
                result: bytes | Exception
                try:
                    result = work()
                except Exception as error:  # its place is where the result is waited for
                    result = error
                done.setdefault(future.get_loop(), []).append((future, result))
            for loop, results in done.items():
                with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                    loop.call_soon_threadsafe(_resolve, results)


def _resolve(results: list[tuple[asyncio.Future[bytes], bytes | Exception]]) -> None:
    for future, result in results:
        if future.done():  # who waited was cancelled
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
