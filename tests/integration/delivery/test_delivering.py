"""From the store to the recipient's mail host and back: over real sockets, with the true store."""

from __future__ import annotations

from typing import Any

import pytest

from malote_dev.mailworld.behaviour import Action, Behaviour, Stage, TlsMode
from malote_relay.delivery.queue.lanes import Bounds
from malote_relay.store.model import Outcome, Result


async def test_a_message_reaches_the_host_that_dns_names(world: Any) -> None:
    mx = await world.domain("shop.example")
    await world.start()
    await world.send("bia@shop.example")
    (message,) = await mx.wait_for(1)
    (outcome,) = await world.ended(1)
    assert message.mail_from == "app@acme.example"
    assert message.recipients == ("bia@shop.example",)
    assert message.content.endswith(b"\r\n\r\nGood day.\r\n.dot\r\n")
    assert message.helo == "out.relay.example"
    assert outcome.result is Result.DELIVERED
    assert outcome.tls.startswith("TLSv1")
    assert outcome.host.startswith("mx1.shop.example[")
    assert outcome.reply == "250 2.0.0 Taken"
    assert (await world.store.queue_state(world.clock())).ready == 0


async def test_recipients_at_one_domain_share_a_transaction_and_each_gets_its_own_result(world: Any) -> None:
    mx = await world.domain("shop.example")
    other = await world.domain("other.example")
    mx.recipients["gone@shop.example"] = Behaviour(action=Action.REFUSE)
    mx.recipients["full@shop.example"] = Behaviour(action=Action.DEFER, reply="452 4.2.2 Mailbox full")
    await world.start()
    await world.send(
        "a@shop.example", "gone@shop.example", "full@shop.example", "b@shop.example", "c@other.example", sender=""
    )
    outcomes = {one.recipient.address: one for one in await world.ended(5)}
    assert mx.messages[0].recipients == ("a@shop.example", "b@shop.example")
    assert len(mx.messages) == len(other.messages) == 1
    assert outcomes["gone@shop.example"].result is Result.FAILED
    assert outcomes["gone@shop.example"].bounce_class == "bad-mailbox"
    assert outcomes["full@shop.example"].result is Result.DEFERRED
    assert outcomes["full@shop.example"].bounce_class == "quota"


async def test_mail_already_in_the_store_is_delivered_after_a_start(world: Any) -> None:
    mx = await world.domain("shop.example")
    for _ in range(30):
        await world.send("bia@shop.example")
    await world.start(bounds=Bounds(window=8, lane=4, page=4))
    messages = await mx.wait_for(30)
    assert {message.content.split(b"Subject: ")[1][:7] for message in messages} == {
        b"m%06d" % n for n in range(1, 31)
    }
    await world.ended(30)
    assert len(mx.messages) == 30


async def test_a_client_that_sends_with_the_null_reverse_path_is_counted_like_any_other(world: Any) -> None:
    await world.domain("shop.example")
    await world.start()
    await world.send("bia@shop.example", sender="")
    assert [one.result for one in await world.ended(1)] == [Result.DELIVERED]


@pytest.mark.parametrize(
    ("mode", "secured"),
    [
        (TlsMode.GOOD, True), (TlsMode.SELF_SIGNED, True), (TlsMode.EXPIRED, True), (TlsMode.WRONG_NAME, True),
        (TlsMode.NONE, False), (TlsMode.UNAVAILABLE, False), (TlsMode.BROKEN, False),
    ],
)  # fmt: skip
async def test_tls_is_used_where_it_can_be_and_never_in_the_way(world: Any, mode: TlsMode, secured: bool) -> None:
    mx = await world.domain("shop.example")
    mx.tls = mode
    await world.start()
    await world.send("bia@shop.example")
    (message,) = await mx.wait_for(1)
    (outcome,) = await world.ended(1)
    assert bool(message.tls) is bool(outcome.tls) is secured


async def test_a_slow_destination_keeps_no_other_waiting(world: Any) -> None:
    slow = await world.domain("slow.example")
    fast = await world.domain("fast.example")
    slow.behaviour = Behaviour(action=Action.SLOW, delay=10.0)
    for _ in range(60):
        await world.send("x@slow.example")
    for _ in range(20):
        await world.send("bia@fast.example")
    bounds = Bounds(window=40, lane=10, page=10)
    await world.start(bounds=bounds, max_connections=4, max_connections_per_destination=3)
    await fast.wait_for(20, timeout=20)
    await world.send("bia@fast.example")
    await fast.wait_for(21, timeout=20)
    assert len(slow.messages) < 10
    await world.stop(grace=0)


async def test_many_slow_destinations_keep_no_other_waiting_either(world: Any) -> None:
    bounds = Bounds(window=40, lane=10, page=10)
    many = [f"slow{number}.example" for number in range(6)]
    for name in many:
        (await world.domain(name)).behaviour = Behaviour(action=Action.SILENT, stage=Stage.RCPT)
        for _ in range(20):
            await world.send(f"x@{name}")
    fast = await world.domain("fast.example")
    await world.start(bounds=bounds, max_connections_per_destination=1)
    await world.wait(lambda: sum(len(host.commands) > 1 for host in world.hosts) >= len(many))
    for number in range(20):
        await world.send(f"r{number}@fast.example")
    await fast.wait_for(20)
    await world.stop(grace=0)


async def test_connections_are_used_again_and_bounded_per_destination(world: Any) -> None:
    mx = await world.domain("shop.example")
    also = await world.domain("also.example", host=mx)
    await world.start(max_connections_per_destination=2)
    for number in range(40):
        await world.send("bia@shop.example" if number % 2 else "bia@also.example")
    await also.wait_for(40)
    assert mx.connections <= 2


async def test_messages_of_one_connection_keep_their_order_of_arrival(world: Any) -> None:
    mx = await world.domain("shop.example")
    for _ in range(10):
        await world.send("bia@shop.example")
    await world.start(max_connections_per_destination=1, bounds=Bounds(window=16, lane=4, page=4))
    for _ in range(30):
        await world.send("bia@shop.example")
    messages = await mx.wait_for(40)
    subjects = [message.content.split(b"Subject: ")[1][:7] for message in messages]
    assert subjects == sorted(subjects)


@pytest.mark.parametrize(
    ("records", "reply", "klass"),
    [
        ({"MX": ["0 ."]}, "556 5.1.10", "bad-domain"),
        ({"A": ["10.0.0.1"]}, "550 5.4.4", "routing"),
        ({"A": ["127.0.0.1"]}, "550 5.4.4", "routing"),
        ({"AAAA": ["::ffff:169.254.169.254"]}, "550 5.4.4", "routing"),
        ({"MX": ["10 relay.example."]}, "554 5.4.6", "routing"),
        ({}, "550 5.1.2", "bad-domain"),
    ],
)
async def test_where_nothing_may_or_can_be_sent_it_fails_at_once(
    world: Any, records: Any, reply: str, klass: str
) -> None:
    for rdtype, values in records.items():
        world.dns.set("shop.example", rdtype, *values)
    await world.start()
    await world.send("bia@shop.example", sender="")
    (outcome,) = await world.ended(1)
    assert (outcome.result, outcome.reply[: len(reply)], outcome.bounce_class) == (Result.FAILED, reply, klass)


async def test_an_address_literal_follows_the_same_rule(world: Any) -> None:
    mx = await world.domain("shop.example")
    await world.start()
    await world.send(f"bia@[{mx.address}]", sender="")
    await mx.wait_for(1)
    await world.send("bia@[127.0.0.1]", sender="")
    assert (await world.ended(2))[1].result is Result.FAILED


async def test_a_large_message_goes_from_its_file(world: Any) -> None:
    mx = await world.domain("shop.example")
    await world.start()
    content = b"Subject: large\r\n\r\n" + (b"." + b"x" * 900 + b"\r\n") * 2000
    await world.send("bia@shop.example", content=content)
    (message,) = await mx.wait_for(1)
    assert message.content == content


async def test_a_new_configuration_holds_from_the_next_connection_on(world: Any) -> None:
    mx = await world.domain("shop.example")
    scheduler = await world.start()
    await world.send("bia@shop.example")
    await world.ended(1)
    scheduler.reconfigure(world.config(helo_name="new.relay.example"))
    await world.send("bia@shop.example")
    messages = await mx.wait_for(2)
    assert [message.helo for message in messages] == ["out.relay.example", "new.relay.example"]


async def test_a_source_address_is_used(world: Any) -> None:
    mx = await world.domain("shop.example")
    source = f"{world.network}.99"
    await world.start(source_address=source)
    await world.send("bia@shop.example")
    (message,) = await mx.wait_for(1)
    assert message.peer == source


async def test_what_waits_for_its_destination_says_so(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.SILENT, stage=Stage.MAIL)
    scheduler = await world.start(max_connections_per_destination=1)
    for _ in range(3):
        await world.send("bia@shop.example")
    await world.wait(lambda: any(command.verb == "MAIL" for command in mx.commands))
    words = [scheduler.why(one).words for one in await world.store.due(world.clock(), 10)]
    assert words[0] == "it is being sent right now"
    assert "waits for a connection" in words[2]
    await world.stop(grace=0)


async def test_an_outcome_that_cannot_be_counted_stops_nothing(world: Any) -> None:
    mx = await world.domain("shop.example")

    class Counter(list[Outcome]):
        def append(self, outcome: Outcome) -> None:
            super().append(outcome)
            raise RuntimeError("metrics")

    world.outcomes = Counter()
    await world.start()
    for _ in range(3):
        await world.send("bia@shop.example")
    await mx.wait_for(3)
    await world.ended(3)
