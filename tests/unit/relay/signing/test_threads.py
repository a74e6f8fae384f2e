from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from malote_relay.signing.threads import Threads


def held(gate: threading.Event) -> bytes:
    """Work that keeps a thread until the gate opens, so that what follows is taken together."""
    gate.wait()
    return b"held"


async def test_each_gets_the_result_of_its_own_work_however_many_there_are() -> None:
    threads = Threads(2, "test")
    results = await asyncio.gather(*(threads.run(partial(bytes, str(number), "ascii")) for number in range(100)))
    assert results == [b"%d" % number for number in range(100)]


async def test_what_fails_fails_for_the_one_who_asked_and_for_nobody_else() -> None:
    threads = Threads(1, "test")

    def broken() -> bytes:
        raise ValueError("no such key")

    hold = threading.Event()
    first = threads.run(lambda: held(hold))
    bad, good = threads.run(broken), threads.run(lambda: b"good")
    hold.set()
    await first
    with pytest.raises(ValueError, match="no such key"):
        await bad
    assert await good == b"good"


async def test_nothing_is_done_for_one_who_no_longer_waits() -> None:
    threads = Threads(1, "test")
    done: list[str] = []
    hold = threading.Event()
    first = threads.run(lambda: held(hold))

    def work() -> bytes:
        done.append("given up")
        return b""

    given_up = threads.run(work)
    last = threads.run(lambda: b"last")
    given_up.cancel()
    hold.set()
    await first
    assert await last == b"last"
    assert done == []


def test_a_loop_that_has_ended_does_not_end_the_threads() -> None:
    threads = Threads(1, "test")
    hold = threading.Event()

    async def leave() -> None:
        threads.run(lambda: held(hold))

    asyncio.run(leave())
    hold.set()

    async def stay() -> bytes:
        return await threads.run(lambda: b"still here")

    assert asyncio.run(stay()) == b"still here"
