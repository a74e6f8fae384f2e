"""What is known of senders: asked once, remembered for the right time, never more often than allowed."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from malote_relay.config import Delivery, Plan, RelayConfig, SenderVerification, UnknownSender
from malote_relay.delivery.reply import Reply as RemoteReply
from malote_relay.metrics import Metrics
from malote_relay.senders import Finding, Senders, Standing, judge
from malote_relay.submission.address import Mailbox

ANA = Mailbox("ana", "acme.example")


class Provider:
    def __init__(self) -> None:
        self.asked: list[Mailbox] = []
        self.standing = Standing.PRESENT
        self.gate: asyncio.Event | None = None

    async def __call__(self, sender: Mailbox) -> Finding:
        self.asked.append(sender)
        if self.gate is not None:
            await self.gate.wait()
        return Finding(self.standing, "mx says: no")


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
    ],
)
def test_only_a_clear_no_means_absent(host: str, code: int, text: str, standing: Standing) -> None:
    assert judge(host, RemoteReply(code, (text,))) is standing


@pytest.mark.parametrize(
    ("standing", "seconds"), [(Standing.PRESENT, 7 * 86_400), (Standing.ABSENT, 300), (Standing.UNKNOWN, 600)]
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
    assert len(world.provider.asked) == 2


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
