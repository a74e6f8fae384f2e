"""From the store to the recipient's mail host and back: over real sockets, with the true store."""

from __future__ import annotations

import asyncio
import email
import email.policy
import time
from collections.abc import Sequence
from typing import Any

import pytest

from malote_dev.mailworld.behaviour import Action, Behaviour, Stage, TlsMode
from malote_dev.mailworld.mx import SinkMx
from malote_relay.delivery.dialogue.connection import Session
from malote_relay.delivery.dialogue.envelope import Envelope
from malote_relay.delivery.peer import Timeouts
from malote_relay.delivery.queue.attempt import MAX_SESSIONS
from malote_relay.delivery.queue.lanes import Bounds
from malote_relay.delivery.reply import Answer
from malote_relay.store.model import Outcome, Result

QUICK = Timeouts(connect=1, greeting=1, command=1, tls=1, data=1, block=1, final=1, quit=0.2)


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


async def test_a_deferred_message_is_tried_again_when_its_time_has_come(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.GREYLIST)
    await world.start()
    await world.send("bia@shop.example")
    (first,) = await world.ended(1)
    assert (first.result, first.bounce_class) == (Result.DEFERRED, "greylist")
    assert 50 < first.next_attempt_at - first.at < 70
    assert mx.messages == []
    world.clock.ahead += 100
    world.scheduler.clock_changed()
    await mx.wait_for(1)
    assert [one.result for one in await world.ended(2)] == [Result.DEFERRED, Result.DELIVERED]
    assert world.outcomes[1].recipient.attempts == 1


async def test_a_clock_that_jumps_is_noticed_without_being_told(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.GREYLIST)
    await world.start()
    await world.send("bia@shop.example")
    await world.ended(1)
    world.clock.ahead += 100
    await mx.wait_for(1, timeout=3)


async def test_a_refused_recipient_is_reported_to_the_reverse_path(world: Any) -> None:
    mx = await world.domain("shop.example")
    home = await world.domain("acme.example")
    mx.behaviour = Behaviour(action=Action.REFUSE)
    await world.start()
    await world.send("bia@shop.example", "rui@shop.example")
    (report,) = await home.wait_for(1)
    assert (report.mail_from, report.recipients) == ("", ("app@acme.example",))
    document = email.message_from_bytes(report.content, policy=email.policy.SMTP)
    assert document.get_content_type() == "multipart/report"
    _, status, headers = document.iter_parts()
    groups: Any = status.get_payload()
    assert [group["Final-Recipient"] for group in groups[1:]] == [
        "rfc822; bia@shop.example",
        "rfc822; rui@shop.example",
    ]
    assert "Message-ID: <m000001@acme.example>" in headers.get_payload()
    await world.wait(lambda: len(world.outcomes) == 2)
    await asyncio.sleep(0.1)
    assert len(home.messages) == 1


@pytest.mark.parametrize("action", [Action.REFUSE, Action.ACCEPT])
async def test_what_becomes_of_a_report_is_reported_to_nobody_and_counted_nowhere(world: Any, action: Action) -> None:
    mx = await world.domain("shop.example")
    home = await world.domain("acme.example")
    mx.behaviour, home.behaviour = Behaviour(action=Action.REFUSE), Behaviour(action=action)
    scheduler = await world.start()
    await world.send("bia@shop.example")
    await world.wait(lambda: any(command.verb == "RCPT" for command in home.commands))
    await world.wait(lambda: scheduler.in_hand == 0)
    assert [one.recipient.address for one in world.outcomes] == ["bia@shop.example"]
    assert await world.store.due(world.clock() + 1e6, 10) == []


async def test_a_client_that_sends_with_the_null_reverse_path_is_counted_like_any_other(world: Any) -> None:
    await world.domain("shop.example")
    await world.start()
    await world.send("bia@shop.example", sender="")
    assert [one.result for one in await world.ended(1)] == [Result.DELIVERED]


async def test_reports_come_from_the_name_that_the_world_knows_the_relay_by(world: Any) -> None:
    mx = await world.domain("shop.example")
    home = await world.domain("acme.example")
    mx.behaviour = Behaviour(action=Action.REFUSE)
    scheduler = await world.start()
    await world.send("bia@shop.example")
    (first,) = await home.wait_for(1)
    scheduler.reconfigure(world.config(helo_name="other.relay.example"))
    await world.send("bia@shop.example")
    _, second = await home.wait_for(2)
    for report, name in ((first, b"out.relay.example"), (second, b"other.relay.example")):
        assert b"<MAILER-DAEMON@" + name + b">" in report.content
        assert b"Reporting-MTA: dns; " + name + b"\r\n" in report.content
        assert b" relay.example" not in report.content.partition(b"rfc822-headers")[0]
        assert b"@relay.example" not in report.content


@pytest.mark.parametrize("action", [Action.DROP, Action.SILENT, Action.EMPTY, Action.BUSY, Action.DEFER])
@pytest.mark.parametrize("stage", list(Stage))
async def test_trouble_at_any_stage_defers_and_the_next_attempt_delivers(
    world: Any, stage: Stage, action: Action
) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=action, stage=stage)
    await world.start(timeouts=Timeouts(1, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.1))
    await world.send("bia@shop.example")
    (outcome,) = await world.ended(1)
    assert outcome.result is Result.DEFERRED, outcome
    assert outcome.reply[:2] in {"45", "42"}
    await world.stop()
    mx.behaviour = Behaviour()
    world.clock.ahead += 100
    await world.start()
    await mx.wait_for(1)
    assert (await world.ended(2))[1].result is Result.DELIVERED


async def test_a_host_that_cannot_be_reached_defers_and_the_second_mx_is_tried(world: Any) -> None:
    mx = await world.domain("shop.example")
    dead = await world.domain("dead.example")
    await dead.stop()
    world.dns.set("shop.example", "MX", f"5 {dead.hostname}.", f"10 {mx.hostname}.")
    await world.start()
    await world.send("bia@shop.example")
    await mx.wait_for(1)
    await world.send("bia@dead.example")
    outcome = (await world.ended(2))[1]
    assert (outcome.result, outcome.bounce_class) == (Result.DEFERRED, "connection")
    assert "451 4.4.1 no connection to" in outcome.reply


TROUBLES = [
    Behaviour(action=action, stage=stage)
    for stage in (Stage.CONNECT, Stage.EHLO, Stage.MAIL, Stage.RCPT, Stage.DATA)
    for action in (Action.DEFER, Action.BUSY, Action.DROP, Action.SILENT)
]


async def with_backup(world: Any) -> tuple[SinkMx, SinkMx]:
    """shop.example with two hosts, the first one preferred."""
    first = await world.domain("shop.example")
    second = await world.domain("backup.example")
    world.dns.set("shop.example", "MX", f"10 {first.hostname}.", f"20 {second.hostname}.")
    return first, second


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda one: f"{one.action}@{one.stage}")
async def test_trouble_of_one_host_before_any_content_sends_the_message_to_the_next(
    world: Any, trouble: Behaviour
) -> None:
    """RFC 5321 section 5.1."""
    first, second = await with_backup(world)
    first.behaviour = trouble
    await world.start(timeouts=Timeouts(1, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.1), max_connections_per_destination=1)
    await world.send("bia@shop.example")
    (outcome,) = await world.ended(1)
    assert outcome.result is Result.DELIVERED
    assert outcome.host.startswith(second.hostname)
    assert (len(first.messages), len(second.messages)) == (0, 1)


async def test_a_final_word_of_the_first_host_is_final_and_only_the_rest_goes_to_the_next(world: Any) -> None:
    first, second = await with_backup(world)
    first.recipients["gone@shop.example"] = Behaviour(action=Action.REFUSE)
    first.behaviour = Behaviour(action=Action.BUSY, stage=Stage.DATA)
    await world.start()
    await world.send("gone@shop.example", "a@shop.example", "b@shop.example", sender="")
    outcomes = {one.recipient.address: one for one in await world.ended(3)}
    assert [message.recipients for message in second.messages] == [("a@shop.example", "b@shop.example")]
    assert outcomes["gone@shop.example"].result is Result.FAILED
    assert outcomes["gone@shop.example"].host.startswith(first.hostname)
    assert outcomes["a@shop.example"].host.startswith(second.hostname)


@pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.EHLO, Stage.MAIL])
async def test_a_permanent_refusal_of_the_first_host_is_not_taken_elsewhere_once_a_session_is_open(
    world: Any, stage: Stage
) -> None:
    first, second = await with_backup(world)
    first.behaviour = Behaviour(action=Action.REFUSE_POLICY, stage=stage)
    await world.start()
    await world.send("bia@shop.example", sender="")
    (outcome,) = await world.ended(1)
    if stage is Stage.MAIL:
        assert (outcome.result, outcome.bounce_class, len(second.messages)) == (Result.FAILED, "policy", 0)
    else:
        assert (outcome.result, len(second.messages)) == (Result.DELIVERED, 1)


async def test_what_a_host_may_have_taken_is_not_offered_to_the_next_at_once(world: Any) -> None:
    first, second = await with_backup(world)
    first.behaviour = Behaviour(action=Action.DROP, stage=Stage.MESSAGE)
    await world.start()
    await world.send("bia@shop.example")
    (outcome,) = await world.ended(1)
    assert outcome.result is Result.DEFERRED
    assert second.connections == 0


async def test_trouble_of_all_hosts_defers_after_a_few_sessions_with_the_last_ones_words(world: Any) -> None:
    hosts = [await world.domain(f"{name}.example") for name in ("shop", "b", "c", "d", "e")]
    records = [f"{number} {host.hostname}." for number, host in enumerate(hosts)]
    world.dns.set("shop.example", "MX", *records)
    for number, host in enumerate(hosts):
        host.behaviour = Behaviour(action=Action.BUSY, stage=Stage.MAIL, reply=f"421 4.3.2 busy {number}")
    await world.start()
    await world.send("bia@shop.example")
    (outcome,) = await world.ended(1)
    assert (outcome.result, outcome.reply) == (Result.DEFERRED, f"421 4.3.2 busy {MAX_SESSIONS - 1}")
    assert [host.connections for host in hosts] == [1] * MAX_SESSIONS + [0] * (len(hosts) - MAX_SESSIONS)


async def test_a_next_host_that_cannot_be_reached_leaves_the_first_ones_words_and_the_destination_up(
    world: Any,
) -> None:
    first, second = await with_backup(world)
    first.behaviour = Behaviour(action=Action.DEFER, stage=Stage.MAIL, times=1)
    await second.stop()
    await world.start()
    await world.send("bia@shop.example")
    (outcome,) = await world.ended(1)
    assert outcome.reply == "451 4.3.0 Try again later"
    assert outcome.host.startswith(first.hostname)
    await world.send("rui@shop.example")
    assert (await world.ended(2))[1].result is Result.DELIVERED


def crowd(mx: SinkMx, recipients: Sequence[str], limit: int) -> None:
    """Let the host take no more than `limit` of these in one transaction."""
    for number, recipient in enumerate(recipients):
        if turns := number // limit:
            words = f"452 4.5.3 Too many recipients, {recipient} not now"
            mx.recipients[recipient] = Behaviour(action=Action.DEFER, reply=words, times=turns)


async def test_a_host_that_takes_few_recipients_at_once_gets_the_others_at_once_over_the_same_connection(
    world: Any,
) -> None:
    mx = await world.domain("shop.example")
    recipients = [f"r{number:02}@shop.example" for number in range(35)]
    crowd(mx, recipients, 10)
    await world.start()
    await world.send(*recipients)
    assert [one.result for one in await world.ended(35)] == [Result.DELIVERED] * 35
    assert [message.recipients for message in mx.messages] == [
        tuple(recipients[start : start + 10]) for start in range(0, 35, 10)
    ]
    assert mx.connections == 1


async def test_a_host_that_hangs_up_after_each_of_few_recipients_gets_the_others_over_new_connections(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mx = await world.domain("shop.example")
    recipients = [f"r{number}@shop.example" for number in range(6)]
    crowd(mx, recipients, 2)
    deliver = Session.deliver

    async def once(self: Session, envelope: Envelope) -> list[Answer]:
        answers = await deliver(self, envelope)
        self.abort()
        return answers

    monkeypatch.setattr(Session, "deliver", once)
    await world.start()
    await world.send(*recipients)
    assert [one.result for one in await world.ended(6)] == [Result.DELIVERED] * 6
    assert mx.connections == 3


@pytest.mark.parametrize("trouble", [asyncio.Event, ZeroDivisionError])
async def test_what_was_delivered_or_refused_stays_so_when_a_later_transaction_is_cut_off(
    world: Any, monkeypatch: pytest.MonkeyPatch, trouble: type[Any]
) -> None:
    mx = await world.domain("shop.example")
    recipients = [f"r{number}@shop.example" for number in range(4)]
    crowd(mx, recipients, 2)
    mx.recipients["r1@shop.example"] = Behaviour(action=Action.REFUSE)
    deliver, begun = Session.deliver, asyncio.Event()

    async def first_only(self: Session, envelope: Envelope) -> list[Answer]:
        if self.transactions == 0:
            return await deliver(self, envelope)
        begun.set()
        if trouble is not asyncio.Event:
            raise trouble
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(Session, "deliver", first_only)
    await world.start()
    await world.send(*recipients, sender="")
    await begun.wait()
    await world.wait(lambda: len(world.outcomes) >= 1)
    await world.stop(grace=0.1)
    results = {one.recipient.address[:2]: one.result for one in world.outcomes if one.result is not Result.DEFERRED}
    assert results == {"r0": Result.DELIVERED, "r1": Result.FAILED}
    waiting = await world.store.due(world.clock() + 1e6, 10)
    assert [one.address for one in waiting] == recipients[2:]
    monkeypatch.undo()
    world.clock.ahead += 100
    await world.reopen()
    await world.start()
    await mx.wait_for(2)
    assert [message.recipients for message in mx.messages] == [(recipients[0],), tuple(recipients[2:])]


async def test_a_host_that_says_too_many_to_everyone_is_left_in_peace(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.DEFER, reply="452 4.5.3 Too many recipients")
    await world.start()
    await world.send("a@shop.example", "b@shop.example")
    outcomes = await world.ended(2)
    assert [(one.result, one.bounce_class) for one in outcomes] == [(Result.DEFERRED, "rate-limit")] * 2
    assert len([command for command in mx.commands if command.verb == "RCPT"]) == 2


async def test_the_deferred_recipients_of_a_message_come_back_in_one_transaction(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.GREYLIST)
    await world.start()
    recipients = tuple(f"r{number:02}@shop.example" for number in range(50))
    await world.send(*recipients)
    await world.send("other@shop.example")
    outcomes = await world.ended(51)
    assert len({one.next_attempt_at for one in outcomes}) == 2
    world.clock.ahead += 100
    world.scheduler.clock_changed()
    await world.ended(102)
    assert sorted(message.recipients for message in mx.messages) == [("other@shop.example",), recipients]


async def test_a_page_of_the_queue_cuts_no_message_in_two(world: Any) -> None:
    mx = await world.domain("shop.example")
    for _ in range(4):
        await world.send("a@shop.example", "b@shop.example", "c@shop.example")
    await world.start(bounds=Bounds(window=64, lane=64, page=5))
    await world.ended(12)
    assert [len(message.recipients) for message in mx.messages] == [3] * 4


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
    slow.behaviour = Behaviour(action=Action.SLOW, delay=2.0)
    for _ in range(60):
        await world.send("x@slow.example")
    for _ in range(20):
        await world.send("bia@fast.example")
    begun = time.monotonic()
    bounds = Bounds(window=40, lane=10, page=10)
    await world.start(bounds=bounds, max_connections=4, max_connections_per_destination=3)
    await fast.wait_for(20, timeout=5)
    await world.send("bia@fast.example")
    await fast.wait_for(21, timeout=5)
    assert time.monotonic() - begun < 1.5
    assert len(slow.messages) < 10
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


async def test_a_name_server_that_fails_only_defers(world: Any) -> None:
    mx = await world.domain("shop.example")
    world.dns.fail("shop.example", "SERVFAIL")
    await world.start()
    await world.send("bia@shop.example")
    (outcome,) = await world.ended(1)
    assert (outcome.result, outcome.bounce_class) == (Result.DEFERRED, "routing")
    world.dns.fail("shop.example", None)
    world.clock.ahead += 100
    await mx.wait_for(1)


async def test_what_is_too_old_is_given_up_and_reported(world: Any) -> None:
    mx = await world.domain("shop.example")
    home = await world.domain("acme.example")
    mx.behaviour = Behaviour(action=Action.DEFER)
    await world.start(max_age_seconds=150)
    await world.send("bia@shop.example")
    await world.ended(1)
    for count in (2, 3):
        world.clock.ahead += 100
        world.scheduler.clock_changed()
        await world.ended(count)
    expired = world.outcomes[2]
    assert expired.result is Result.FAILED
    assert expired.reply.startswith("554 5.4.7 not delivered within 2.5 minutes; the last answer was: 451 4.3.0")
    assert b"Status: 5.4.7" in (await home.wait_for(1))[0].content


async def test_held_mail_begins_when_its_hour_does(world: Any) -> None:
    mx = await world.domain("shop.example")
    await world.start()
    later = (world.clock() // 3600 + 1) * 3600
    await world.send("bia@shop.example", not_before=later, offer=False)
    await world.send("rui@shop.example")
    await mx.wait_for(1)
    await asyncio.sleep(0.2)
    assert len(mx.messages) == 1
    (held,) = await world.store.due(later + 1, 10)
    why = world.scheduler.why(held)
    assert "held" in why.words
    assert why.until == later
    world.clock.ahead += later - world.clock() + 1
    await mx.wait_for(2, timeout=3)
    assert mx.messages[1].recipients == ("bia@shop.example",)


async def test_frozen_stops_everything_at_once_and_thawed_it_goes_on(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.SLOW, delay=0.04)
    scheduler = await world.start(max_connections_per_destination=1)
    for _ in range(5):
        await world.send("bia@shop.example")
    await mx.wait_for(1)
    settings = {"max_connections_per_destination": 1}
    scheduler.reconfigure(world.config(frozen=True, **settings))
    await world.wait(lambda: scheduler.in_hand == 0)
    stopped = len(mx.messages)
    assert stopped < 5
    await world.send("bia@shop.example")
    await asyncio.sleep(1.2)
    assert len(mx.messages) == stopped
    (waiting, *_) = await world.store.due(world.clock(), 10)
    assert "frozen" in scheduler.why(waiting).words
    scheduler.reconfigure(world.config(**settings))
    await mx.wait_for(6)
    await world.ended(6)
    assert len(mx.messages) == 6


async def test_stopping_lets_transactions_end_and_keeps_the_rest_for_the_next_start(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.SLOW, delay=0.1)
    await world.start(max_connections_per_destination=2)
    for _ in range(20):
        await world.send("bia@shop.example")
    await mx.wait_for(1)
    await world.stop(grace=5)
    done = len(mx.messages)
    assert 0 < done < 20
    assert world.results() == [Result.DELIVERED] * done
    await world.wait(lambda: not mx.sessions, timeout=1)
    mx.behaviour = Behaviour()
    await world.reopen()
    await world.start()
    await world.ended(20)
    assert len(mx.messages) == 20


async def test_what_grace_cuts_off_before_its_final_dot_is_sent_once(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.SILENT, stage=Stage.RCPT)
    scheduler = await world.start()
    await world.send("bia@shop.example")
    await world.wait(lambda: any(command.verb == "RCPT" for command in mx.commands))
    begun = time.monotonic()
    await world.stop(grace=0.2)
    assert time.monotonic() - begun < 2
    assert world.outcomes == []
    assert not scheduler.running
    mx.behaviour = Behaviour()
    await world.start()
    await world.ended(1)
    assert len(mx.messages) == 1


async def test_killed_between_the_remotes_250_and_the_record_it_is_sent_twice_and_never_lost(world: Any) -> None:
    mx = await world.domain("shop.example")
    scheduler = await world.start()
    record = world.store.record

    async def never(outcomes: Any) -> None:
        await asyncio.Event().wait()

    world.store.record = never
    await world.send("bia@shop.example")
    await mx.wait_for(1)
    for task in scheduler._tasks:
        task.cancel()
    scheduler._jobs.cancel()
    world.store.record = record
    world.scheduler = None
    await world.reopen()
    await world.start()
    await mx.wait_for(2)
    await world.ended(1)
    assert [message.recipients for message in mx.messages] == [("bia@shop.example",)] * 2
    assert await world.store.due(world.clock() + 1e6, 10) == []


async def test_ends_that_cannot_be_written_are_kept_until_they_can_and_nothing_is_sent_twice(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("malote_relay.delivery.queue.recorder._RETRY_SECONDS", 0.05)
    mx = await world.domain("shop.example")
    record, failures = world.store.record, [OSError("disk"), OSError("disk")]

    async def failing(outcomes: Any) -> None:
        if failures:
            raise failures.pop()
        await record(outcomes)

    world.store.record = failing
    scheduler = await world.start()
    await world.send("bia@shop.example")
    await world.ended(1)
    scheduler.wake()
    await asyncio.sleep(0.2)
    assert len(mx.messages) == 1


async def test_an_unexpected_error_defers_and_does_not_spin(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.domain("shop.example")

    async def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("malote_relay.delivery.queue.jobs.attempt", broken)
    await world.start()
    await world.send("bia@shop.example")
    (outcome,) = await world.ended(1)
    assert (outcome.result, outcome.bounce_class) == (Result.DEFERRED, "other")
    assert "ZeroDivisionError" in outcome.reply
    await asyncio.sleep(0.3)
    assert len(world.outcomes) == 1


async def test_a_queue_that_cannot_be_read_is_asked_again(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("malote_relay.delivery.queue.window._TROUBLE_SECONDS", 0.05)
    mx = await world.domain("shop.example")
    await world.send("bia@shop.example")
    due, failures = world.store.due, [OSError("disk"), OSError("disk")]

    async def failing(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return await due(*args, **kwargs)

    world.store.due = failing
    await world.start()
    await mx.wait_for(1)


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
    mx.behaviour = Behaviour(action=Action.SLOW, delay=0.3)
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


async def test_a_kept_connection_that_the_host_gives_up_costs_the_message_nothing(world: Any) -> None:
    mx = await world.domain("shop.example")
    await world.start()
    await world.send("bia@shop.example")
    await world.ended(1)
    mx.behaviour = Behaviour(action=Action.BUSY, stage=Stage.MAIL, times=1)
    await world.send("rui@shop.example")
    await world.ended(2)
    assert world.results() == [Result.DELIVERED] * 2
    assert mx.connections == 2


async def test_what_a_page_still_shows_though_it_has_ended_meanwhile_is_not_sent_again(world: Any) -> None:
    mx = await world.domain("shop.example")
    due, read, go_on = world.store.due, asyncio.Event(), asyncio.Event()
    pages: list[Any] = []

    async def slow(*args: Any, **kwargs: Any) -> Any:
        pages.append(await due(*args, **kwargs))
        read.set()
        await go_on.wait()
        return pages[-1]

    scheduler = await world.start()
    await world.send("bia@shop.example")
    await world.ended(1)
    world.store.due = slow
    await world.send("bia@shop.example", offer=False)
    scheduler.wake()
    await read.wait()
    scheduler.offer(pages[0], await world.store.content("m000002"))
    await world.ended(2)
    go_on.set()
    await asyncio.sleep(0.3)
    assert len(pages[0]) == 1
    assert len(mx.messages) == len(world.outcomes) == 2
