"""What an end of a delivery brings with it is on disk together with it: a kill at any moment finds all, or nothing.

A copy of the spool, made in the middle of things, is what a kill at that moment leaves behind.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from malote_dev.mailworld.behaviour import Action, Behaviour
from malote_relay.config import Suppression
from malote_relay.delivery.queue import recorder
from malote_relay.metrics import Metrics
from malote_relay.store.model import Outcome, Result
from malote_relay.store.sqlite import SqliteStore
from malote_relay.store.suppressions import Entry
from malote_relay.suppression.suppressions import Suppressions


class Left:
    """What a start finds in a copy of the spool: who waits, and who is suppressed."""

    def __init__(self, waiting: list[str], entry: Entry | None) -> None:
        self.waiting = waiting
        self.entry = entry


def killed(world: Any, name: str) -> Path:
    return Path(shutil.copytree(world.directory / "spool", world.directory / name))


async def found(directory: Path, world: Any) -> Left:
    store = SqliteStore(directory)
    await store.open()
    try:
        waiting = [one.address for one in await store.due(world.clock() + 86_400, 1000)]
        entry = await Suppressions(Suppression(), store, Metrics(), world.clock).find("bia@shop.example")
        return Left(waiting, entry)
    finally:
        await store.close()


@pytest.fixture
def bounce_list(world: Any) -> Suppressions:
    return Suppressions(Suppression(), world.store, Metrics(), world.clock)


async def test_a_kill_right_after_an_end_was_written_loses_neither_its_notice_nor_what_it_says_of_the_address(
    world: Any, bounce_list: Suppressions
) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.REFUSE, reply="550 5.1.1 no such user")
    copies: list[Path] = []

    def observer(_: Outcome) -> None:
        copies.append(killed(world, "killed"))

    await world.start(alongside=bounce_list.alongside, observer=observer)
    await world.send("bia@shop.example")
    await world.ended(1)
    left = await found(copies[0], world)
    assert left.waiting == ["app@acme.example"], "the notice, and it alone"
    assert left.entry is not None
    assert left.entry.suppressed(world.clock())


async def test_a_kill_right_before_an_end_is_written_finds_nothing_of_what_it_brings(
    world: Any, bounce_list: Suppressions, monkeypatch: pytest.MonkeyPatch
) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.REFUSE, reply="550 5.1.1 no such user")
    record = world.store.record

    async def about_to(outcomes: Sequence[Outcome], **more: Any) -> Any:
        if outcomes[0].result is Result.FAILED:
            killed(world, "killed")
        return await record(outcomes, **more)

    monkeypatch.setattr(world.store, "record", about_to)
    await world.start(alongside=bounce_list.alongside)
    await world.send("bia@shop.example")
    await world.ended(1)
    left = await found(world.directory / "killed", world)
    assert (left.waiting, left.entry) == (["bia@shop.example"], None)


async def test_many_notices_go_in_parts_and_each_end_with_its_own(
    world: Any, bounce_list: Suppressions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may bring a whole message back: they are not all in memory at once. What needs none waits for none."""
    monkeypatch.setattr(recorder, "NOTICES_AT_ONCE", 2)
    record, calls = world.store.record, []

    async def noted(outcomes: Sequence[Outcome], **more: Any) -> Any:
        calls.append((sorted(one.recipient.address for one in outcomes), len(more["notices"])))
        return await record(outcomes, **more)

    monkeypatch.setattr(world.store, "record", noted)
    home = await world.domain("acme.example")
    scheduler = await world.start(alongside=bounce_list.alongside)
    queued = []
    for number in range(5):
        await world.send(f"r{number}@shop.example", offer=False)
    await world.send("unseen@shop.example", sender="", offer=False)
    queued = await world.store.due(world.clock(), 10)
    scheduler._recorder.add(
        [Outcome(one, Result.FAILED, world.clock(), "550 5.1.1 no", "bad-mailbox", "mx") for one in queued]
    )
    await world.ended(6)
    assert calls[:3] == [
        (["r0@shop.example", "r1@shop.example", "unseen@shop.example"], 2),
        (["r2@shop.example", "r3@shop.example"], 2),
        (["r4@shop.example"], 1),
    ]
    await home.wait_for(5)
