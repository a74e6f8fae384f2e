"""The list on a real store: told, asked, changed by people, there again after a restart."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from malote_relay.config import Suppression
from malote_relay.delivery.answers.outcome import outcome
from malote_relay.delivery.answers.retry import Schedule
from malote_relay.delivery.reply import parse
from malote_relay.metrics import Metrics, Refused
from malote_relay.store import schema
from malote_relay.store import suppressions as table
from malote_relay.store.model import NewMessage, NewRecipient, Outcome, Queued, Result, StoreError
from malote_relay.store.sqlite import SqliteStore
from malote_relay.store.suppressions import Entry, Reason
from malote_relay.submission.address import Mailbox
from malote_relay.suppression import suppressions as module
from malote_relay.suppression.suppressions import Suppressions

DAY = 86_400.0
NOW = 1_800_000_000.0
BOB = Mailbox("bob", "dest.example")


def ended(result: Result, bounce_class: str = "", address: str = "bob@dest.example") -> Outcome:
    recipient = Queued(1, "m1", address, "ana@acme.example", "app", 1, False, False, NOW, NOW, 0, NOW)
    return Outcome(recipient, result, NOW, "550 5.1.1 no such user", bounce_class)


class World:
    def __init__(self, directory: Path) -> None:
        self.store = SqliteStore(directory)
        self.now = NOW
        self.metrics = Metrics()
        self.list: Suppressions = self.another()

    def another(self, **config: Any) -> Suppressions:
        self.list = Suppressions(Suppression(**config), self.store, self.metrics, lambda: self.now)
        return self.list

    def entered(self, reason: str) -> float | None:
        return self.metrics.registry.get_sample_value("malote_suppressed_total", {"reason": reason})

    async def end(self, outcome: Outcome) -> None:
        """As the recorder does when a delivery has ended."""
        await self.store.record([outcome], alongside=self.list.alongside([outcome]))

    async def addresses(self, **arguments: Any) -> list[str]:
        return [entry.address async for entry in self.list.entries(**arguments)]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    one = World(tmp_path)
    await one.store.open()
    one.list.start()
    await one.list._make_filter()
    yield one
    await one.list.stop()
    await one.store.close()


async def test_a_hard_bounce_refuses_the_next_recipient_with_the_reason(world: World) -> None:
    assert await world.list.check(BOB) is None
    await world.end(ended(Result.FAILED, "bad-mailbox"))
    reply = await world.list.check(BOB)
    assert reply is not None
    assert (reply.code, reply.enhanced, reply.refused) == (550, "5.7.1", Refused.RECIPIENT_SUPPRESSED)
    assert reply.text == (
        "the recipient <bob@dest.example> is on this tenant's suppression list since 2027-01-15 08:00 UTC,"
        " until 2027-02-14 08:00 UTC: mail to it bounced (bad-mailbox: 550 5.1.1 no such user); to send to it again,"
        " have your platform take it off the list"
    )
    assert world.entered("bounce") == 1
    world.now += 30 * DAY
    assert await world.list.check(BOB) is None


async def test_case_makes_no_difference(world: World) -> None:
    await world.end(ended(Result.FAILED, "bad-mailbox", "Bob@Dest.Example"))
    assert await world.list.check(Mailbox("BOB", "dest.example")) is not None
    assert await world.list.check(Mailbox("bobby", "dest.example")) is None


async def test_only_what_is_final_and_says_something_about_the_address_counts(world: World) -> None:
    await world.end(ended(Result.DEFERRED, "bad-mailbox"))
    await world.end(ended(Result.FAILED, "quota"))
    await world.end(ended(Result.FAILED, "inactive"))
    assert await world.list.check(BOB) is None
    assert (await world.list.find("bob@dest.example")).bounces == 1  # type: ignore[union-attr]


async def test_what_was_put_off_until_it_was_too_old_says_nothing_final_of_the_address(world: World) -> None:
    """450 is the code of a mailbox that is unavailable for now (RFC 5321 section 4.2.3)."""
    last = ended(Result.DEFERRED, "bad-mailbox")
    words = parse("450 Requested mail action not taken: mailbox unavailable")
    schedule = Schedule(60, 600, 5 * DAY)
    expired = outcome(last.recipient, words, host="mx", tls="", now=NOW + 5 * DAY, schedule=schedule)
    assert (expired.result, expired.bounce_class) == (Result.FAILED, "bad-mailbox")
    await world.end(expired)
    assert await world.list.find("bob@dest.example") is None


async def test_a_delivery_of_what_was_queued_takes_the_address_off(world: World) -> None:
    await world.end(ended(Result.FAILED, "bad-mailbox"))
    await world.end(ended(Result.DELIVERED))
    assert await world.list.check(BOB) is None
    assert await world.list.find("bob@dest.example") is None


async def test_deliveries_to_others_write_nothing(world: World) -> None:
    assert world.list.alongside([ended(Result.DELIVERED), ended(Result.DEFERRED, "bad-mailbox")]) is None


async def test_a_complaint_enters(world: World) -> None:
    world.list.complained("Bob@dest.example", NOW, "m1")
    await world.list.flush()
    assert "complained" in (await world.list.check(BOB)).text  # type: ignore[union-attr]
    assert world.entered("complaint") == 1


async def test_people_add_list_and_remove(world: World) -> None:
    await world.list.add("Bob@dest.example", note="asked by phone")
    await world.list.add("eva@dest.example", until=NOW + DAY)
    world.list.bounced("caio@there.example", "bad-mailbox", "550 no", NOW, "m1")
    world.list.bounced("dora@there.example", "inactive", "550 disabled", NOW, "m1")
    await world.list.flush()
    assert await world.addresses() == ["bob@dest.example", "caio@there.example", "eva@dest.example"]
    assert await world.addresses(limit=1) == ["bob@dest.example"]
    assert await world.addresses(text="THERE") == ["caio@there.example"]
    assert await world.addresses(reason="manual") == ["bob@dest.example", "eva@dest.example"]
    text = (await world.list.check(BOB)).text  # type: ignore[union-attr]
    assert "for good: it was put there by hand (asked by phone)" in text
    removed = await world.list.remove("BOB@dest.example")
    assert removed == Entry("bob@dest.example", Reason.MANUAL, NOW, None, detail="asked by phone")
    assert await world.list.remove("bob@dest.example") is None
    assert await world.list.check(BOB) is None
    world.now += DAY
    assert await world.addresses() == ["caio@there.example"]


async def test_a_long_list_comes_page_by_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAGE", 3)
    for number in range(8):
        await world.list.add(f"user{number}@dest.example")
    assert await world.addresses() == [f"user{number}@dest.example" for number in range(8)]
    assert await world.addresses(limit=4) == [f"user{number}@dest.example" for number in range(4)]
    assert await world.addresses(limit=3) == [f"user{number}@dest.example" for number in range(3)]


async def test_it_is_there_again_after_a_restart_with_what_waited_written(world: World, tmp_path: Path) -> None:
    world.list.bounced("bob@dest.example", "bad-mailbox", "550 5.1.1 no such user", NOW, "m1")
    await world.list.stop()
    again = world.another()
    assert await again.check(BOB) is not None, "before anything was loaded"
    again.start()
    assert await again.check(BOB) is not None


async def test_what_is_told_is_written_without_being_asked(world: World, eventually: Callable[..., Any]) -> None:
    world.list.bounced("bob@dest.example", "bad-mailbox", "550 5.1.1 no such user", NOW, "m1")

    async def refused() -> bool:
        return await world.list.check(BOB) is not None

    await eventually(refused)


def test_the_list_of_an_older_release_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    with monkeypatch.context() as older:
        older.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:6])
        schema.migrate(connection)
    connection.execute(
        "INSERT INTO suppressions VALUES ('bob@dest.example', 'bounce', 1.0, 2.0, 'inactive', '550', 'm1', 0, 1)"
    )
    schema.migrate(connection)
    entry = Entry("bob@dest.example", Reason.BOUNCE, 1.0, 2.0, "inactive", "550", "m1", 0, 1, after_delivery=False)
    assert table.find(connection, ["bob@dest.example"]) == {"bob@dest.example": entry}


async def test_switched_off_it_takes_nothing_in_and_refuses_nobody(world: World) -> None:
    await world.list.add("bob@dest.example")
    world.list.reconfigure(Suppression(enabled=False))
    assert await world.list.check(BOB) is None
    world.list.complained("eva@dest.example", NOW, "m1")
    assert world.list._waiting == []
    assert await world.addresses() == ["bob@dest.example"]


async def test_the_filter_is_made_larger_when_the_list_has_grown(
    world: World, eventually: Callable[..., Any]
) -> None:
    before = world.list._filter
    assert before is not None
    for number in range(5000):
        world.list.bounced(f"user{number}@dest.example", "bad-mailbox", "550 no", NOW, "m1")

    async def larger() -> bool:
        return world.list._filter is not None and world.list._filter.size > before.size

    await eventually(larger)
    assert await world.list.check(Mailbox("user4999", "dest.example")) is not None


async def test_a_list_that_cannot_be_read_stops_no_mail(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.list.add("bob@dest.example")

    async def broken(*_: object) -> Any:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(world.store, "read", broken)
    assert await world.list.check(BOB) is None


async def test_what_cannot_be_written_waits(
    world: World, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.01)
    write = world.store.write
    refusals: list[Any] = []

    async def refusing(work: Any) -> Any:
        if len(refusals) < 2:
            refusals.append(work)
            raise StoreError("no room")
        return await write(work)

    monkeypatch.setattr(world.store, "write", refusing)
    world.list.bounced("bob@dest.example", "bad-mailbox", "550 5.1.1 no such user", NOW, "m1")

    async def refused() -> bool:
        return await world.list.check(BOB) is not None

    await eventually(refused)
    assert len(refusals) == 2


async def test_what_cannot_be_written_with_the_end_of_a_delivery_does_not_keep_it_from_being_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that is damaged must not stop the mail. What was to be said in it is tried again by itself."""
    recipient = NewRecipient("bob@dest.example", int(NOW // 3600))
    (queued,) = await world.store.accept(
        NewMessage("m1", "app", "ana@acme.example", "ana@acme.example", "<1@acme.example>", [recipient], b"x", 1, NOW)
    )
    applied = module._applied

    def half(connection: sqlite3.Connection, events: Any, config: Any) -> Any:
        applied(connection, events, config)
        raise sqlite3.DatabaseError("database disk image is malformed")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_applied", half)
        await world.end(replace(ended(Result.FAILED, "bad-mailbox"), recipient=queued))
        assert await world.store.due(NOW, 10) == [], "it has ended"
        assert await world.list.find("bob@dest.example") is None
    await world.list.flush()
    assert await world.list.check(BOB) is not None


async def test_who_left_the_list_long_ago_is_forgotten(world: World) -> None:
    await world.end(ended(Result.FAILED, "bad-mailbox"))
    await world.list.add("eva@dest.example")
    await world.list.flush()
    world.now += 200 * DAY
    await world.list.forget()
    assert await world.list.find("bob@dest.example") is not None
    world.now += 30 * DAY
    await world.list.forget()
    assert await world.list.find("bob@dest.example") is None
    assert await world.list.find("eva@dest.example") is not None
