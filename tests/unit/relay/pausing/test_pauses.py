"""Accounts on a real store: counted, paused, resumed, known again after a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from malote_relay.config import Account, AccountPause
from malote_relay.metrics import Metrics, Refused
from malote_relay.pausing.pauses import Pauses
from malote_relay.pausing.telling import told_of
from malote_relay.pausing.window import Tally
from malote_relay.store.model import NewMessage, NewRecipient, Outcome, Queued, Result
from malote_relay.store.pauses import Pause
from malote_relay.store.sqlite import SqliteStore

NOW = 1_800_000_000.0
APP = Account(name="app", username="app@acme", verifier="v")
NEWS = Account(name="news", username="news@acme", verifier="v")


def ended(result: Result, bounce_class: str = "", account: str = "app", at: float = NOW) -> Outcome:
    recipient = Queued(1, "m1", "bob@dest.example", "ana@acme.example", account, 1, False, False, at, at, 0, at)
    return Outcome(recipient, result, at, "550 no", bounce_class)


class World:
    def __init__(self, directory: Path) -> None:
        self.store = SqliteStore(directory)
        self.now = NOW
        self.metrics = Metrics()
        self.pauses = self.another()

    def another(self, **config: Any) -> Pauses:
        settings = AccountPause(**{"min_recipients": 10, **config})
        self.pauses = Pauses(settings, (APP, NEWS), self.store, self.metrics, lambda: self.now)
        return self.pauses

    def shown(self, account: str = "app") -> float | None:
        return self.metrics.registry.get_sample_value("malote_account_paused", {"account": account})

    def deliver(self, count: int, **more: Any) -> None:
        for _ in range(count):
            self.pauses.observe(ended(Result.DELIVERED, **more))

    def bounce(self, count: int, bounce_class: str = "bad-mailbox", **more: Any) -> None:
        for _ in range(count):
            self.pauses.observe(ended(Result.FAILED, bounce_class, **more))

    async def restart(self, **config: Any) -> None:
        await self.pauses.stop()
        await self.another(**config).start()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    one = World(tmp_path)
    await one.store.open()
    await one.pauses.start()
    yield one
    await one.pauses.stop()
    await one.store.close()


async def test_an_account_that_bounces_too_much_is_refused_with_figures_and_the_way_back(world: World) -> None:
    world.deliver(15)
    world.bounce(1)
    reply = await world.pauses.check(APP)
    assert reply is not None
    assert (reply.code, reply.enhanced, reply.refused) == (550, "5.7.1", Refused.ACCOUNT_PAUSED)
    assert reply.text == (
        "the account app@acme is paused since 2027-01-15 08:00 UTC: 1 of 16 recipients within 24 hours bounced:"
        " 6.25 %, and 5 % is the limit; it stays so until your platform resumes it"
    )
    assert world.shown() == 1
    assert await world.pauses.check(NEWS) is None
    assert world.shown("news") == 0


async def test_the_pauses_that_stand_are_told_with_reason_and_time_and_no_others(world: World) -> None:
    assert world.pauses.standing() == []
    world.bounce(10)
    world.bounce(10, account="news")
    world.bounce(10, account="gone")
    assert told_of(world.pauses.standing()) == [
        {
            "account": account,
            "since": "2027-01-15T08:00:00Z",
            "reason": "10 of 10 recipients within 24 hours bounced: 100 %, and 5 % is the limit",
        }
        for account in ("app", "news")
    ]
    world.pauses.resume("app")
    assert [pause.account for pause in world.pauses.standing()] == ["news"]
    await world.restart()
    assert [pause.account for pause in world.pauses.standing()] == ["news"], "the store knows"
    await world.restart(enabled=False)
    assert world.pauses.standing() == ()


async def test_a_pause_with_an_end_is_told_until_then_without_being_asked_at_the_door(world: World) -> None:
    await world.restart(pause_hours=6)
    world.bounce(10)
    (told,) = told_of(world.pauses.standing())
    assert told["until"] == "2027-01-15T14:00:00Z"
    world.now += 6 * 3600
    assert world.pauses.standing() == []


def test_what_is_told_is_bounded_and_a_time_beyond_the_calendar_is_none() -> None:
    (told,) = told_of([Pause("app", NOW, 1e15, "x" * 5000)])
    assert "until" not in told
    assert len(told["reason"]) == 200


async def test_failures_that_say_nothing_about_the_account_do_not_count(world: World) -> None:
    world.deliver(15)
    world.bounce(10, "connection")
    world.bounce(10, "quota")
    world.pauses.observe(ended(Result.DEFERRED, "bad-mailbox"))
    world.bounce(10, account="")
    assert await world.pauses.check(APP) is None
    assert world.pauses.states()[0].tally == Tally(delivered=15)


async def test_complaints_pause_too(world: World) -> None:
    world.deliver(100)
    for _ in range(3):
        world.pauses.complained("app", NOW)
    assert "3 of 100 recipients within 24 hours complained" in (await world.pauses.check(APP)).text  # type: ignore[union-attr]


async def test_a_bounce_reported_later_takes_its_delivery_back(world: World) -> None:
    world.deliver(20)
    world.pauses.bounced_later("app", "bad-mailbox", NOW)
    assert world.pauses.states()[0].tally == Tally(delivered=19, bounced=1)
    world.pauses.bounced_later("app", "bad-mailbox", NOW)
    assert await world.pauses.check(APP) is not None


async def test_a_resumed_account_begins_anew(world: World) -> None:
    world.deliver(10)
    world.bounce(5)
    assert world.pauses.resume("news") is None
    assert world.pauses.resume("app") is not None
    assert await world.pauses.check(APP) is None
    assert world.shown() == 0
    world.bounce(1)
    assert await world.pauses.check(APP) is None
    world.bounce(9)
    assert await world.pauses.check(APP) is not None


async def test_a_pause_may_end_by_itself(world: World) -> None:
    await world.restart(pause_hours=6)
    world.bounce(10)
    assert "sending resumes at 2027-01-15 14:00 UTC" in (await world.pauses.check(APP)).text  # type: ignore[union-attr]
    world.now += 6 * 3600
    assert await world.pauses.check(APP) is None
    assert world.shown() == 0
    world.bounce(1, at=world.now)
    assert await world.pauses.check(APP) is None


async def test_a_pause_and_a_resumption_outlast_a_restart(world: World) -> None:
    world.bounce(10)
    await world.restart()
    assert await world.pauses.check(APP) is not None
    assert world.shown() == 1
    world.pauses.resume("app")
    await world.restart()
    assert await world.pauses.check(APP) is None
    assert world.shown() == 0


async def events(world: World, count: int, result: Result, at: float) -> None:
    recipients = [NewRecipient(f"user{number}@dest.example", 0) for number in range(count)]
    message = NewMessage(f"m{at}{result}", "app", "ana@acme.example", "", "", recipients, b"x", 1, at)
    for queued in await world.store.enqueue(message):
        await world.store.record([Outcome(queued, result, at, "550 no", "bad-mailbox" if result == "failed" else "")])


async def told_later(world: World, status: str, bounce_class: str, at: float) -> None:
    """An event as it is written when something is told of a message after its delivery."""
    await world.store.write(
        lambda connection: (
            connection.execute(
                "INSERT INTO events (at, message, account, reverse_path, header_from, recipient, domain, status,"
                " bounce_class, reply, host, tls, attempt, received_at, size, flags)"
                " VALUES (?, 'm', 'app', '', '', '', '', ?, ?, '', '', '', 1, ?, 1, 0)",
                (at, status, bounce_class, at),
            ).rowcount
        )
    )


async def test_what_happened_before_a_restart_is_counted_again(world: World, eventually: Callable[..., Any]) -> None:
    await events(world, 30, Result.DELIVERED, NOW - 3600)
    await events(world, 1, Result.FAILED, NOW - 7200)
    await events(world, 7, Result.FAILED, NOW - 30 * 3600)
    await told_later(world, "complained", "complaint", NOW - 60)
    await told_later(world, "bounced", "bad-mailbox", NOW - 60)
    await told_later(world, "bounced", "quota", NOW - 60)
    await world.restart()

    async def counted() -> bool:
        return world.pauses.states()[0].tally == Tally(delivered=29, bounced=2, complained=1)

    await eventually(counted)
    assert await world.pauses.check(APP) is None
    world.bounce(1)
    assert await world.pauses.check(APP) is not None


async def test_what_happened_before_a_resumption_is_not_counted_again(
    world: World, eventually: Callable[..., Any]
) -> None:
    await events(world, 10, Result.FAILED, NOW - 3600)
    world.bounce(10)
    world.pauses.resume("app")
    world.now += 3600
    await events(world, 2, Result.DELIVERED, world.now - 60)
    await world.restart()

    async def counted() -> bool:
        return world.pauses.states()[0].tally == Tally(delivered=2)

    await eventually(counted)


async def test_switched_off_nobody_is_paused(world: World) -> None:
    world.bounce(10)
    world.pauses.reconfigure(AccountPause(enabled=False), (APP, NEWS))
    assert await world.pauses.check(APP) is None
    assert world.shown() == 0


async def test_an_account_that_is_gone_is_shown_no_longer(world: World) -> None:
    world.pauses.reconfigure(AccountPause(), (NEWS,))
    assert world.shown() is None
    assert [state.account for state in world.pauses.states()] == ["news"]
