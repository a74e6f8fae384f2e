"""Kills under load: SIGKILL at random moments, a restart each time, and an account at the end.

Some kills come while the relay is still starting, most while it works. The load goes on meanwhile. After the last
start the queue is left to drain, and whatever was acknowledged must have arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.harness.processes import RunError
from tests.reliability import hours
from tests.reliability.ledger import Account
from tests.reliability.load import Mix
from tests.reliability.shim import UNLIMITED, Faults
from tests.reliability.site import MAX_RETRY_SECONDS
from tests.reliability.smalldisk import small_disk
from tests.reliability.stage import Settings, Stage, stage, until


@dataclass(slots=True)
class Outcome:
    """How a case ended."""

    name: str
    kills: int
    seconds: float
    account: Account
    notes: list[str] = field(default_factory=list)


async def under_load(settings: Settings, kills: int) -> Outcome:
    """The plain case: mail of every kind, kills at any moment."""
    return await _killed("kills under load", settings, kills)


async def slow_disk(settings: Settings, kills: int) -> Outcome:
    """Every sync takes 5 to 500 ms more, in a new range now and then."""

    def turn(on: Stage, faults: Faults | None) -> None:
        assert faults is not None
        least = on.random.choice((0.005, 0.02, 0.1))
        faults.slow(least, on.random.choice((0.05, 0.2, 0.5)) + least)

    return await _killed("slow disk", settings, kills, faults=True, turn=turn, works=6.0)


async def _killed(
    name: str,
    settings: Settings,
    kills: int,
    *,
    faults: bool = False,
    turn: Callable[[Stage, Faults | None], None] = lambda on, faults: None,
    works: float = 2.4,
) -> Outcome:
    began = time.monotonic()
    async with stage(name, settings) as on:
        shim = on.furnish(faults=faults)
        await on.relay.start()
        on.load.start(settings.sessions)
        while on.kills < kills:
            turn(on, shim)
            await on.kill_at_random(works)
            if on.kills % 10 == 0:
                on.say(f"{name}: {on.kills} of {kills} kills, {_taken(on)} messages acknowledged")
        await on.relay.listens()
        await _more(on, _taken, 90.0, "after the last kill nothing is taken", least=50)
        await on.load.stop()
        if shim is not None:
            shim.slow(0, 0)
        await on.drain()
        return Outcome(name, on.kills, time.monotonic() - began, on.account())


async def full_disk(settings: Settings, kills: int) -> Outcome:
    """The disk fills up under load while nothing leaves, stays full through kills, and then there is room again.

    While it is full the relay must answer 452 4.3.1, or 451 where nothing else can be said, and run on.
    """
    began = time.monotonic()
    name = "full disk"
    with small_disk(settings.directory, wanted=settings.mount) as disk:
        async with stage(name, settings) as on:
            mix = Mix(sizes=((5_000, 70), (60_000, 20), (400_000, 10)))
            shim = on.furnish(spool=disk.path / "spool" if disk else None, faults=disk is None, mix=mix)
            room = disk.room if disk else _shim_room(shim)
            # In turn with the floor of free space, which refuses early, and without, which lets writes fail.
            refused = 0
            await on.relay.start()
            on.load.start(settings.sessions)
            while on.kills < kills:
                await on.relay.listens()
                on.site.min_free_bytes = on.random.choice((0, 0, 1_000_000))
                on.site.write()
                on.internet.closed = on.random.random() < 0.7
                room(False)
                before = _refusals(on)
                await _more(on, _refusals, 60.0, "a full disk refuses nothing")
                refused += _refusals(on) - before
                if on.random.random() < 0.7:  # starts into a full disk, where it may have to wait for room
                    await on.relay.kill()
                    on.kills += 1
                    await on.relay.start()
                    await asyncio.sleep(on.random.uniform(0.2, 1.5))
                room(True)
                on.internet.closed = False
                await _again(on)
                await _more(on, _taken, 90.0, "there is room again, but nothing is taken")
                await on.kill_at_random()
                on.say(f"{name}: {on.kills} of {kills} kills, {refused} refusals")
            await on.load.stop()
            await on.drain()
            account = on.account()
            codes = sorted({message.reply[:9] for message in on.load.sent if message.reply[:1] in {"4", "5"}})
            if "452 4.3.1" not in codes:
                account.inconsistent.append(f"a full disk was answered {codes}, never 452 4.3.1")
            notes = [f"{'a tmpfs' if disk else 'by the shim'}; refusals: {', '.join(codes)}"]
            return Outcome(name, on.kills, time.monotonic() - began, account, notes)


async def clock_steps(settings: Settings, kills: int) -> Outcome:
    """The clock is moved hours ahead and back, while it runs and between two runs, with a small plan that holds mail.

    Afterwards the clock is put far ahead, so that everything held has its hour, and the hours are looked at.
    """
    began = time.monotonic()
    name = "clock steps"
    limit, tolerance = 120, 24
    async with stage(name, settings) as on:
        mix = Mix(sizes=((3_000, 1),), pause=0.01)
        on.furnish(mix=mix, messages_per_hour=limit)
        watch = hours.Watch(limit, tolerance)
        await on.relay.start()
        on.load.start(settings.sessions)
        furthest = 0
        while on.kills < kills:
            with contextlib.suppress(RunError):
                watch.look(on.site.spool)
            step = on.random.choice((3600, 3600, 7200, 900, -3600, -7200, 86_400))
            on.site.clock_offset = max(-86_400, on.site.clock_offset + step)
            furthest = max(furthest, on.site.clock_offset)
            on.site.write()
            await on.kill_at_random()
            if on.kills % 10 == 0:
                on.say(f"{name}: {on.kills} of {kills} kills, {_taken(on)} messages acknowledged")
        await on.load.stop()
        await on.relay.listens()
        watch.look(on.site.spool)
        held = hours.held(on.site.spool)
        on.site.clock_offset = furthest + 2 * 3600 + MAX_RETRY_SECONDS
        on.site.write()
        await on.drain()
        account = on.account()
        watch.look(on.site.spool)
        account.inconsistent += watch.complaints
        notes = [f"{watch.hours} hours, {watch.full} of them full, most held {watch.most_held} of {tolerance}"]
        notes.append(f"{held} recipients held at the end")
        return Outcome(name, on.kills, time.monotonic() - began, account, notes)


def _shim_room(shim: Faults | None) -> Callable[[bool], None]:
    assert shim is not None
    return lambda much: shim.room(UNLIMITED if much else 50_000)


async def _again(on: Stage) -> None:
    """A relay that found no room at its start has ended and said why: start it, as whatever runs it would."""
    assert on.relay.child is not None
    try:
        await on.relay.listens()
    except RunError:
        said = on.relay.child.tail()
        if "cannot be used" not in said and "No space left" not in said:
            raise
        await on.relay.start()
        await on.relay.listens()


async def _more(on: Stage, count: Callable[[Stage], int], seconds: float, otherwise: str, *, least: int = 0) -> None:
    """Wait until there are some more of these than now, and more than `least`."""
    wanted = max(count(on) + 5, least)
    await until(lambda: count(on) > wanted, seconds, otherwise)


def _refusals(on: Stage) -> int:
    return sum(message.reply.startswith(("452", "451")) for message in on.load.sent)


def _taken(on: Stage) -> int:
    return sum(message.acknowledged for message in on.load.sent)


Case = Callable[[Settings, int], Awaitable[Outcome]]
CASES: dict[str, Case] = {
    "kills": under_load,
    "slow-disk": slow_disk,
    "full-disk": full_disk,
    "clock-steps": clock_steps,
}
