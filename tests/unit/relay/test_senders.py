"""What is known of senders: asked once, remembered for the right time, never more often than allowed."""

from __future__ import annotations

import asyncio
import ipaddress
import sqlite3
from pathlib import Path

import msgspec
import pytest

from malote_relay.config import Delivery, Plan, RelayConfig, SenderVerification, UnknownSender
from malote_relay.delivery.reply import Reply as RemoteReply
from malote_relay.delivery.reply import parse
from malote_relay.metrics import Metrics
from malote_relay.sender_memory import SenderMemory
from malote_relay.senders import (
    LEFT_ALONE_SECONDS,
    MAX_PROBES,
    Finding,
    Senders,
    Standing,
    judge,
    reachable,
)
from malote_relay.store.sqlite import SqliteStore
from malote_relay.submission.address import Mailbox

ANA = Mailbox("ana", "acme.example")
REPLIES = Path(__file__).with_name("delivery") / "answers" / "replies.tsv"
"""Replies of real hosts, with what a person takes them to mean."""


class Provider:
    def __init__(self) -> None:
        self.asked: list[Mailbox] = []
        self.standing = Standing.PRESENT
        self.of_domain = False
        self.gate: asyncio.Event | None = None

    async def __call__(self, sender: Mailbox) -> Finding:
        self.asked.append(sender)
        if self.gate is not None:
            await self.gate.wait()
        return Finding(self.standing, "mx says: no", self.of_domain)


class Fixture:
    def __init__(self, **verification: object) -> None:
        self.provider = Provider()
        self.now = 1000.0
        self.metrics = Metrics()
        self.config = RelayConfig(
            tenant="acme",
            hostname="h.example",
            plan=Plan(name="p", messages_per_hour=1),
            delivery=Delivery(helo_name="h.example"),
            sender_verification=msgspec.structs.replace(SenderVerification(), **verification),
        )
        self.senders = Senders(self.config, self.provider, self.metrics, lambda: self.now)


@pytest.mark.parametrize(
    ("host", "code", "text", "standing"),
    [
        ("mx.acme.example", 250, "2.1.5 ok", Standing.PRESENT),
        ("mx.acme.example", 251, "will forward", Standing.PRESENT),
        ("mx.acme.example", 550, "5.1.1 no such mailbox", Standing.ABSENT),
        ("mx.acme.example", 550, "5.1.10 recipient not found", Standing.ABSENT),
        ("mx.acme.example", 550, "5.1.11 something else", Standing.UNKNOWN),
        ("mx.acme.example", 550, "5.7.1 blocked", Standing.UNKNOWN),
        ("mx.acme.example", 550, "no such user", Standing.UNKNOWN),
        ("mx.acme.example", 450, "4.1.1 no such mailbox yet", Standing.UNKNOWN),
        ("mx.acme.example", 451, "4.7.1 greylisted", Standing.UNKNOWN),
        ("mx.acme.example", 554, "5.1.1 odd", Standing.UNKNOWN),
        ("mx.acme.example", 421, "4.3.2 busy", Standing.UNKNOWN),
        (
            "acme.mail.protection.outlook.com",
            550,
            "5.4.1 Recipient address rejected: Access denied.",
            Standing.ABSENT,
        ),
        ("mx.acme.example", 550, "5.4.1 Recipient address rejected: Access denied.", Standing.UNKNOWN),
        (
            "mail.protection.outlook.com.evil.example",
            550,
            "5.4.1 Recipient address rejected: Access denied.",
            Standing.UNKNOWN,
        ),
        ("mx.yandex.ru", 550, "5.7.1 No such user!", Standing.ABSENT),
        ("mx.yandex.ru", 550, "5.7.1 Policy rejection", Standing.UNKNOWN),
        ("mxs.mail.ru", 550, "Message was not accepted -- invalid mailbox: user not found", Standing.ABSENT),
        ("mxs.mail.ru", 550, "Message was not accepted -- invalid mailbox: account is disabled", Standing.UNKNOWN),
        ("mta6.am0.yahoodns.net", 552, "1 Requested mail action aborted, mailbox not found", Standing.ABSENT),
        ("mta6.am0.yahoodns.net", 554, "dd This user doesn't have a x.example account", Standing.ABSENT),
        ("mta6.am0.yahoodns.net", 550, "Requested action not taken: mailbox unavailable", Standing.UNKNOWN),
    ],
)
def test_only_a_clear_no_means_absent(host: str, code: int, text: str, standing: Standing) -> None:
    assert judge(host, RemoteReply(code, (text,))) is standing


def test_no_reply_about_something_else_means_absent_whatever_its_code() -> None:
    """Such as GoDaddy's "550 5.1.1 ... has sent to too many recipients this hour", or a mailbox that is full."""
    told = [line.split("\t") for line in REPLIES.read_text("utf-8").splitlines() if line[:1] not in ("", "#")]
    others = [(host, reply) for bounce_class, _, host, reply, *_ in told if bounce_class != "bad-mailbox"]
    assert len([reply for _, reply in others if " 5.1.1" in reply or "#5.1.1" in reply]) >= 10
    assert [reply for host, reply in others if judge(host, parse(reply)) is not Standing.UNKNOWN] == []


@pytest.mark.parametrize(
    ("standing", "seconds"), [(Standing.PRESENT, 0.9 * 7 * 86_400), (Standing.ABSENT, 300), (Standing.UNKNOWN, 600)]
)
async def test_an_answer_is_remembered_for_its_time(standing: Standing, seconds: int) -> None:
    world = Fixture()
    world.provider.standing = standing
    await world.senders.check(ANA)
    world.now += seconds - 1
    await world.senders.check(ANA)
    assert len(world.provider.asked) == 1
    world.now += 2
    await world.senders.check(ANA)
    await asyncio.sleep(0)
    assert len(world.provider.asked) == 2


DAY = 86_400


async def turns() -> None:
    """As many of the loop as a probe takes, and more."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_who_is_known_to_exist_is_asked_for_again_in_time_and_nobody_waits() -> None:
    world = Fixture()
    await world.senders.check(ANA)
    world.now += 6.5 * DAY
    world.provider.gate = asyncio.Event()
    for _ in range(3):
        assert await world.senders.check(ANA) == (None, False)
        await asyncio.sleep(0)
    assert len(world.provider.asked) == 2
    world.provider.gate.set()
    await turns()
    world.now += 6 * DAY
    assert await world.senders.check(ANA) == (None, False)
    assert len(world.provider.asked) == 2


async def test_who_was_found_to_exist_goes_on_while_nobody_can_say_but_not_for_ever() -> None:
    """Unknown is not absent: an outage of the sender's own host stops none of its mail."""
    world = Fixture(unknown=UnknownSender.DEFER)
    await world.senders.check(ANA)
    world.provider.standing = Standing.UNKNOWN
    world.now += 7 * DAY + 1
    for turn in range(3):
        assert await world.senders.check(ANA) == (None, False)
        assert await world.senders.check(ANA) == (None, False)
        assert len(world.provider.asked) == 2 + turn
        world.now += 601
        await asyncio.sleep(0)
    world.now += 7 * DAY
    reply, unknown = await world.senders.check(ANA)
    assert reply is not None
    assert (reply.code, unknown) == (451, True)


async def test_so_it_does_while_the_host_does_not_answer_in_time_or_may_not_be_asked() -> None:
    world = Fixture(unknown=UnknownSender.DEFER, probes_per_domain_per_minute=1)
    await world.senders.check(ANA)
    verification = msgspec.structs.replace(world.config.sender_verification, timeout=0.02)
    world.senders.reconfigure(msgspec.structs.replace(world.config, sender_verification=verification))
    world.now += 7 * DAY + 1
    world.provider.gate = asyncio.Event()
    assert await world.senders.check(Mailbox("new", "acme.example")) != (None, False)
    assert await world.senders.check(ANA) == (None, False)
    world.now += 60
    assert await world.senders.check(ANA) == (None, False)
    world.provider.gate.set()


async def test_a_clear_no_ends_what_was_known() -> None:
    world = Fixture()
    await world.senders.check(ANA)
    world.provider.standing = Standing.ABSENT
    world.now += 6.5 * DAY
    assert await world.senders.check(ANA) == (None, False)
    await turns()
    reply, _ = await world.senders.check(ANA)
    assert reply is not None
    assert reply.code == 550


async def test_many_sessions_share_one_probe_and_one_leaving_does_not_end_it() -> None:
    world = Fixture()
    world.provider.gate = asyncio.Event()
    waiting = [asyncio.create_task(world.senders.check(ANA)) for _ in range(10)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting[0].cancel()
    world.provider.gate.set()
    assert await asyncio.gather(*waiting[1:]) == [(None, False)] * 9
    assert world.provider.asked == [ANA]


async def test_a_domain_is_asked_so_many_times_a_minute_and_no_more() -> None:
    world = Fixture(probes_per_domain_per_minute=3)
    flags = [(await world.senders.check(Mailbox(f"a{n}", "acme.example")))[1] for n in range(5)]
    assert flags == [False, False, False, True, True]
    assert (await world.senders.check(Mailbox("a", "two.example"))) == (None, False)
    world.now += 60
    assert await world.senders.check(Mailbox("a4", "acme.example")) == (None, False)
    assert world.metrics.registry.get_sample_value("malote_callouts_total", {"result": "rate_limited"}) == 2


async def test_a_domain_whose_host_takes_no_call_outs_is_left_alone_for_a_minute() -> None:
    """A thousand senders must not knock a thousand times, nor each wait for a host that is down."""
    world = Fixture(unknown=UnknownSender.DEFER)
    world.provider.standing, world.provider.of_domain = Standing.UNKNOWN, True
    for number in range(5):
        reply, unknown = await world.senders.check(Mailbox(f"a{number}", "acme.example"))
        assert reply is not None
        assert (unknown, reply.code) == (True, 451)
        assert "mx says: no" in reply.text
    assert [one.local for one in world.provider.asked] == ["a0"]
    world.provider.standing, world.provider.of_domain = Standing.PRESENT, False
    assert await world.senders.check(Mailbox("a", "two.example")) == (None, False)
    world.now += LEFT_ALONE_SECONDS + 1
    assert await world.senders.check(Mailbox("a1", "acme.example")) == (None, False)


async def test_who_was_found_to_exist_is_not_asked_for_again_at_a_domain_that_is_left_alone() -> None:
    world = Fixture()
    await world.senders.check(ANA)
    world.now += 6.5 * DAY
    world.provider.standing, world.provider.of_domain = Standing.UNKNOWN, True
    assert await world.senders.check(Mailbox("new", "acme.example")) == (None, True)
    assert await world.senders.check(ANA) == (None, False)
    await turns()
    assert [one.local for one in world.provider.asked] == ["ana", "new"]


async def test_unknown_is_accepted_and_flagged_or_deferred_by_policy() -> None:
    world = Fixture()
    world.provider.standing = Standing.UNKNOWN
    assert await world.senders.check(ANA) == (None, True)
    verification = msgspec.structs.replace(world.config.sender_verification, unknown=UnknownSender.DEFER)
    world.senders.reconfigure(msgspec.structs.replace(world.config, sender_verification=verification))
    reply, unknown = await world.senders.check(ANA)
    assert reply is not None
    assert (reply.code, reply.enhanced, unknown) == (451, "4.1.8", True)


async def test_a_probe_that_breaks_leaves_the_sender_unknown() -> None:
    world = Fixture()

    async def broken(sender: Mailbox) -> Finding:
        raise RuntimeError

    world.senders._probe = broken
    assert await world.senders.check(ANA) == (None, True)
    assert not world.senders._asking


async def test_no_client_waits_longer_than_the_configured_time_and_the_answer_is_kept_for_the_next() -> None:
    world = Fixture(timeout=0.05)
    world.provider.gate = asyncio.Event()
    assert await world.senders.check(ANA) == (None, True)
    assert await world.senders.check(ANA) == (None, True)
    world.provider.gate.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await world.senders.check(ANA) == (None, False)
    assert world.provider.asked == [ANA]


async def test_the_queue_for_probes_counts_to_the_time_too() -> None:
    world = Fixture(timeout=0.05)
    world.provider.gate = asyncio.Event()
    answers = [world.senders.check(Mailbox(f"a{number}", "acme.example")) for number in range(MAX_PROBES + 5)]
    async with asyncio.timeout(60):
        assert set(await asyncio.gather(*answers)) == {(None, True)}
    assert len(world.provider.asked) == MAX_PROBES
    world.provider.gate.set()


@pytest.mark.parametrize("local", ["postmaster", "Postmaster", "POSTMASTER"])
async def test_postmaster_exists_without_being_asked_for(local: str) -> None:
    world = Fixture()
    world.provider.standing = Standing.ABSENT
    assert await world.senders.check(Mailbox(local, "acme.example")) == (None, False)
    assert not world.provider.asked


async def test_local_parts_that_differ_in_case_may_be_different_mailboxes() -> None:
    world = Fixture()
    await world.senders.check(ANA)
    await world.senders.check(Mailbox("Ana", "acme.example"))
    assert [one.local for one in world.provider.asked] == ["ana", "Ana"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", ["2001:db8::1", "192.0.2.1"]),
        ("198.51.100.1", ["192.0.2.1"]),
        ("2001:db8::9", ["2001:db8::1"]),
    ],
)
def test_only_addresses_of_the_sources_family_are_tried(source: str, expected: list[str]) -> None:
    addresses = [ipaddress.ip_address("2001:db8::1"), ipaddress.ip_address("192.0.2.1")]
    assert [str(address) for address in reachable(addresses, source)] == expected


class At:
    def __init__(self, now: float) -> None:
        self.time = now

    def now(self) -> float:
        return self.time


async def test_a_memory_that_cannot_be_read_is_none() -> None:
    class Broken:
        async def read(self, query: object) -> None:
            raise sqlite3.DatabaseError("malformed")

        async def write(self, work: object) -> None:
            raise AssertionError("nothing is written at the start: it would wait for room on a full disk")

    assert await SenderMemory(Broken(), At(0.0)).load() == {}  # type: ignore[arg-type]


async def test_who_was_found_to_exist_is_known_after_a_restart_and_only_as_long_as_before(tmp_path: Path) -> None:
    clock = At(1_800_000_000.0)

    async def started() -> tuple[SqliteStore, Fixture]:
        store = SqliteStore(tmp_path / "spool")
        await store.open()
        world = Fixture()
        world.senders = Senders(
            world.config, world.provider, world.metrics, lambda: world.now, SenderMemory(store, clock)
        )
        await world.senders.recall()
        return store, world

    bia, eve = Mailbox("bia", "acme.example"), Mailbox("eve", "acme.example")
    store, world = await started()
    await world.senders.check(ANA)
    await world.senders.check(bia)
    world.provider.standing = Standing.ABSENT
    await world.senders.check(eve)
    world.now += 8 * 86_400
    clock.time += 8 * 86_400
    await world.senders.check(bia)  # gone meanwhile
    world.provider.standing = Standing.PRESENT
    await world.senders.check(ANA)
    memory = world.senders._memory
    assert memory is not None
    assert memory._writing is not None
    await memory._writing
    await store.close()

    clock.time += 86_400
    store, world = await started()
    assert await world.senders.check(ANA) == (None, False)
    assert not world.provider.asked
    await world.senders.check(bia)
    await world.senders.check(eve)
    assert world.provider.asked == [bia, eve]
    world.now += 6 * 86_400 + 1
    await world.senders.check(ANA)
    assert world.provider.asked[-1] == ANA
    await store.close()
