"""What is told after delivery reaches the list and the pauses, and is written down when the answer is given."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from malote_relay.config import Account, AccountPause, Suppression
from malote_relay.consequences import Consequences
from malote_relay.metrics import Metrics
from malote_relay.pausing.pauses import Pauses
from malote_relay.pausing.window import Tally
from malote_relay.store.model import Outcome, Queued, Result, StoreError
from malote_relay.store.sqlite import SqliteStore
from malote_relay.submission.address import Mailbox
from malote_relay.suppression.suppressions import Suppressions

NOW = 1_800_000_000.0


@dataclass(frozen=True)
class Told:
    bounce_class: str = ""
    permanent: bool = True
    address: str = "Bob@dest.example"
    at: float = NOW
    message: str = "m1"
    account: str = "app"
    words: str = "550 5.1.1 no such user"
    told_before: bool = False


class World:
    def __init__(self, directory: Path) -> None:
        self.store = SqliteStore(directory)
        metrics = Metrics()
        account = Account(name="app", username="app@acme", verifier="v")
        self.suppressions = Suppressions(Suppression(), self.store, metrics, lambda: NOW)
        self.pauses = Pauses(AccountPause(), (account,), self.store, metrics, lambda: NOW)
        self.consequences = Consequences(self.suppressions, self.pauses)

    async def refused(self) -> bool:
        return await self.suppressions.check(Mailbox("bob", "dest.example")) is not None

    @property
    def tally(self) -> Tally:
        return self.pauses.states()[0].tally


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    one = World(tmp_path)
    await one.store.open()
    yield one
    await one.store.close()


async def test_a_bounce_told_later_suppresses_and_counts(world: World) -> None:
    await world.consequences.bounced(Told("bad-mailbox"))
    assert await world.refused()
    assert world.tally == Tally(bounced=1)


async def test_what_its_host_takes_afterwards_does_not_lift_it(world: World) -> None:
    await world.consequences.bounced(Told("bad-mailbox"))
    recipient = Queued(1, "m2", "bob@dest.example", "ana@acme.example", "app", 1, False, False, NOW, NOW, 0, NOW)
    delivered = [Outcome(recipient, Result.DELIVERED, NOW + 1, "250 ok")]
    await world.store.record(delivered, alongside=world.consequences.alongside(delivered))
    assert await world.refused()


async def test_one_that_may_be_over_soon_does_neither(world: World) -> None:
    await world.consequences.bounced(Told("bad-mailbox", permanent=False))
    assert not await world.refused()
    assert world.tally == Tally()


async def test_a_complaint_suppresses_and_counts(world: World) -> None:
    await world.consequences.complained(Told())
    assert await world.refused()
    assert world.tally == Tally(complained=1)


async def test_what_is_told_twice_counts_once(world: World) -> None:
    for told_before in (False, True):
        await world.consequences.complained(Told(told_before=told_before))
        await world.consequences.bounced(Told("bad-mailbox", told_before=told_before))
    assert await world.refused()
    assert world.tally == Tally(bounced=1, complained=1)


async def test_who_tells_hears_of_it_when_it_could_not_be_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refusing(work: object) -> object:
        raise StoreError("no room")

    monkeypatch.setattr(world.store, "write", refusing)
    with pytest.raises(StoreError):
        await world.consequences.complained(Told())
