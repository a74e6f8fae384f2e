"""What senders are told, over real sockets: what was asked for with DSN (RFC 3461), reports (RFC 3464), limits."""

from __future__ import annotations

import base64
import email
import email.policy
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from typing import Any, cast

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from malote_dev.mailworld.behaviour import Action, Behaviour, Stage
from malote_dev.mailworld.received import Message
from malote_dev.mailworld.verify import verify
from malote_relay.config import Language, Notices
from malote_relay.signing.keys import SigningKey
from malote_relay.signing.signer import Signer
from malote_relay.store.model import DsnRequest, Notify, Result, Return

HOUR = 3600.0
S, F, D = Notify.SUCCESS, Notify.FAILURE, Notify.DELAY


def asked(notify: Notify, **more: Any) -> DsnRequest:
    return DsnRequest(notify, asked=True, **more)


def read(report: Message) -> tuple[EmailMessage, list[EmailMessage], EmailMessage]:
    """The words, the groups of fields, what came back; by Python's own parser."""
    document = email.message_from_bytes(report.content, policy=email.policy.SMTP)
    assert document.get_content_type() == "multipart/report"
    assert not document.defects
    words, status, returned = document.iter_parts()
    return cast(EmailMessage, words), cast(list[EmailMessage], status.get_payload()), cast(EmailMessage, returned)


async def settled(world: Any, count: int) -> None:
    """So many outcomes, and nothing in hand any more: whatever was to be told has been sent."""
    await world.ended(count)
    await world.wait(lambda: world.scheduler.in_hand == 0)


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
    await settled(world, 2)
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


async def test_a_host_that_writes_its_code_in_other_digits_is_reported_all_the_same(world: Any) -> None:
    mx = await world.domain("shop.example")
    home = await world.domain("acme.example")
    mx.behaviour = Behaviour(action=Action.REFUSE, reply="550 5.\u0661.\u0661 no such user")
    await world.start()
    await world.send("bia@shop.example")
    _, (_, group), _ = read((await home.wait_for(1))[0])
    assert group["Status"] == "5.0.0"


async def test_a_report_that_cannot_be_written_keeps_nobody_waiting(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mx = await world.domain("shop.example")
    mx.behaviour = Behaviour(action=Action.REFUSE)

    def broken(*_: Any, **__: Any) -> None:
        raise UnicodeEncodeError("ascii", "\u0661", 0, 1, "not in range")

    monkeypatch.setattr("malote_relay.delivery.notices.notifier.notice", broken)
    await world.start()
    await world.send("bia@shop.example")
    await settled(world, 1)
    mx.behaviour = Behaviour()
    await world.send("rui@shop.example")
    await settled(world, 2)
    assert [one.result for one in world.outcomes] == [Result.FAILED, Result.DELIVERED]


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


async def test_the_senders_names_for_message_and_recipient_come_back(world: Any) -> None:
    mx, home = await world.domain("shop.example"), await world.domain("acme.example")
    mx.behaviour = Behaviour(action=Action.REFUSE)
    await world.start()
    await world.send("bia@shop.example", dsn=asked(F, orcpt="rfc822;old+2Bbia@x.example", envid="QQ+3D1"))
    _, (about, first), returned = read((await home.wait_for(1))[0])
    assert about["Original-Envelope-Id"] == "QQ=1"
    assert about["Reporting-MTA"] == "dns; out.relay.example"
    assert about["Received-From-MTA"] is None
    assert first["Original-Recipient"] == "rfc822; old+bia@x.example"
    assert (first["Action"], first["Status"]) == ("failed", "5.1.1")
    assert first["Remote-MTA"] == f"dns; {mx.hostname}"
    assert returned.get_content_type() == "text/rfc822-headers"


@pytest.mark.parametrize("notify", [Notify.NEVER, S, D, S | D])
async def test_who_did_not_ask_for_failures_hears_of_none(world: Any, notify: Notify) -> None:
    mx, home = await world.domain("shop.example"), await world.domain("acme.example")
    mx.behaviour = Behaviour(action=Action.REFUSE)
    await world.start()
    await world.send("bia@shop.example", dsn=asked(notify))
    await settled(world, 1)
    assert world.results() == [Result.FAILED]
    assert (home.messages, world.noticed) == ([], [])


@pytest.mark.parametrize("size", [100, 5000])
async def test_ret_full_brings_the_message_back_up_to_a_size(world: Any, size: int) -> None:
    mx, home = await world.domain("shop.example"), await world.domain("acme.example")
    mx.behaviour = Behaviour(action=Action.REFUSE)
    await world.start(notices=Notices(max_returned_bytes=1000))
    content = b"From: <app@acme.example>\r\nSubject: all of it\r\n\r\n" + b"line\r\n" * (size // 6)
    await world.send("bia@shop.example", content=content, dsn=asked(F, ret=Return.FULL))
    (report,) = await home.wait_for(1)
    _, _, returned = read(report)
    kind = "message/rfc822" if size < 1000 else "text/rfc822-headers"
    assert returned.get_content_type() == kind
    assert (content in report.content) == (size < 1000)
    assert b"Subject: all of it" in report.content


async def test_a_large_message_on_disk_comes_back_whole_where_that_is_allowed(world: Any) -> None:
    mx, home = await world.domain("shop.example"), await world.domain("acme.example")
    mx.behaviour = Behaviour(action=Action.REFUSE)
    await world.start(notices=Notices(max_returned_bytes=10_000_000))
    content = b"Subject: large\r\n\r\n" + b"x" * 70 + b"\r\n" + b"y" * 60 + b"\r\n" + b"z\r\n" * 100_000
    await world.send("bia@shop.example", content=content, dsn=asked(F, ret=Return.FULL))
    assert content in (await home.wait_for(1))[0].content


async def test_success_is_told_as_relayed_where_the_next_server_would_tell_nobody(world: Any) -> None:
    await world.domain("shop.example")
    home = await world.domain("acme.example")
    await world.start()
    await world.send("bia@shop.example", "rui@shop.example", dsn=asked(S | F, ret=Return.FULL))
    _, (_, first, second), returned = read((await home.wait_for(1))[0])
    assert (first["Action"], first["Status"], second["Action"]) == ("relayed", "2.0.0", "relayed")
    assert returned.get_content_type() == "text/rfc822-headers"  # RFC 3461 section 4.3: RET is for failures


async def test_a_server_that_speaks_dsn_is_given_what_was_asked_for_and_tells_of_success_itself(world: Any) -> None:
    mx, home = await world.domain("shop.example"), await world.domain("acme.example")
    mx.dsn = True
    await world.start()
    dsn = asked(S | F, orcpt="rfc822;old+2B@x.example", envid="QQ+3D1", ret=Return.HEADERS)
    await world.send("bia@shop.example", dsn=dsn)
    (message,) = await mx.wait_for(1)
    assert [one for one in message.mail_options if one.startswith(("RET", "ENVID"))] == ["RET=HDRS", "ENVID=QQ+3D1"]
    assert message.rcpt_options == (("NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;old+2B@x.example"),)
    await settled(world, 1)
    assert (home.messages, world.noticed) == ([], [])


async def test_a_server_that_speaks_dsn_learns_the_recipient_and_nothing_that_was_not_asked_for(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.dsn = True
    await world.start()
    await world.send("b+ia@shop.example", "never@shop.example")
    (message,) = await mx.wait_for(1)
    assert not any(one.startswith(("RET", "ENVID")) for one in message.mail_options)
    assert message.rcpt_options == (
        ("ORCPT=rfc822;b+2Bia@shop.example",),
        ("ORCPT=rfc822;never@shop.example",),
    )


async def test_recipients_left_over_for_the_next_transaction_keep_their_own_requests(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.dsn = True
    mx.recipients["b@shop.example"] = Behaviour(action=Action.DEFER, reply="452 4.5.3 Too many recipients", times=1)
    await world.start()
    requests = {"a@shop.example": asked(S), "b@shop.example": asked(Notify.NEVER)}
    await world.send("a@shop.example", "b@shop.example", "c@shop.example", dsn=requests)
    first, second = await mx.wait_for(2)
    assert [len(first.rcpt_options), second.recipients] == [2, ("b@shop.example",)]
    assert second.rcpt_options == (("NOTIFY=NEVER", "ORCPT=rfc822;b@shop.example"),)


async def test_a_delay_is_told_once_with_until_when_it_is_tried(world: Any) -> None:
    mx, home = await world.domain("shop.example"), await world.domain("acme.example")
    mx.behaviour = Behaviour(action=Action.DEFER, reply="451 4.7.1 come again")
    await world.start()
    sent_at = world.clock()
    await world.send("bia@shop.example")
    await world.ended(1)
    assert home.messages == []
    for attempt in (2, 3):
        world.clock.ahead += 5 * HOUR
        world.scheduler.clock_changed()
        await settled(world, attempt)
    (report,) = home.messages
    words, (_, first), _ = read(report)
    assert (first["Action"], first["Status"]) == ("delayed", "4.7.1")
    until = parsedate_to_datetime(first["Will-Retry-Until"]).timestamp()
    assert abs(until - sent_at - 5 * 86_400) < 60
    assert "you need not send it again" in words.get_content()
    assert world.noticed == [("delayed", True)]


async def test_what_expires_is_told_as_failed_with_the_last_words_of_the_remote(world: Any) -> None:
    mx, home = await world.domain("shop.example"), await world.domain("acme.example")
    mx.behaviour = Behaviour(action=Action.DEFER, reply="451 4.7.1 come again")
    await world.start(notices=Notices(delay_after_seconds=0))
    await world.send("bia@shop.example")
    await world.ended(1)
    world.clock.ahead += 6 * 86_400
    world.scheduler.clock_changed()
    _, (_, first), _ = read((await home.wait_for(1))[0])
    assert (first["Action"], first["Status"]) == ("failed", "5.4.7")
    assert first["Diagnostic-Code"] == "smtp; 451 4.7.1 come again"


async def test_people_read_their_own_language(world: Any) -> None:
    mx, home = await world.domain("shop.example"), await world.domain("acme.example")
    mx.behaviour = Behaviour(action=Action.REFUSE)
    scheduler = await world.start()
    scheduler.reconfigure(world.config(Notices(language=Language.PORTUGUESE)))
    await world.send("bia@shop.example")
    words, _, _ = read((await home.wait_for(1))[0])
    assert "Esta caixa postal não existe." in words.get_content()


async def test_notices_are_signed_by_the_relays_own_name_and_pass_dmarc(world: Any) -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    der = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    record = f"v=DKIM1; k=rsa; p={base64.b64encode(private.public_key().public_bytes(*der)).decode()}"
    world.dns.set("n1._domainkey.out.relay.example", "TXT", record)
    world.dns.set("out.relay.example", "TXT", "v=spf1 ip4:127.0.0.0/8 -all")
    world.dns.set("_dmarc.out.relay.example", "TXT", "v=DMARC1; p=reject; adkim=s; aspf=s")
    signer = Signer({"out.relay.example": [SigningKey("n1", private)]})
    mx, home = await world.domain("shop.example"), await world.domain("acme.example")
    mx.behaviour = Behaviour(action=Action.REFUSE)
    await world.start(sign=signer.sign)
    await world.send("bia@shop.example")
    (report,) = await home.wait_for(1)
    assert report.mail_from == ""
    verifier = dkim.DKIM(report.content)
    assert verifier.verify(dnsfunc=lambda name, timeout=5: record.encode())
    assert verifier.domain == b"out.relay.example"
    verdict = await verify(report.content, report.peer, report.helo, "", world.dns)
    assert verdict.all_pass, verdict


async def test_a_list_full_of_dead_addresses_does_not_come_back_as_a_flood(world: Any) -> None:
    mx, home = await world.domain("shop.example"), await world.domain("acme.example")
    other = await world.domain("other.example")
    mx.behaviour = Behaviour(action=Action.REFUSE)
    await world.start(notices=Notices(per_sender_per_hour=3))
    for number in range(10):
        await world.send(f"r{number}@shop.example")
    await settled(world, 10)
    assert len(home.messages) == 3
    assert sorted(world.noticed) == [("failed", False)] * 7 + [("failed", True)] * 3
    await world.send("bia@shop.example", sender="b@other.example")
    assert len(await other.wait_for(1)) == 1  # another sender has an allowance of its own
    world.clock.ahead += HOUR + 1
    world.scheduler.clock_changed()
    summary = email.message_from_bytes((await home.wait_for(4))[3].content, policy=email.policy.SMTP)
    assert isinstance(summary, EmailMessage)
    assert " 7 notices" in " ".join(summary.get_content().split())
    assert summary["Auto-Submitted"] == "auto-generated"
    assert world.noticed[-1] == ("summary", True)


async def test_a_restart_between_a_notice_and_its_delivery_loses_neither(world: Any) -> None:
    mx, home = await world.domain("shop.example"), await world.domain("acme.example")
    mx.behaviour = Behaviour(action=Action.REFUSE)
    home.behaviour = Behaviour(action=Action.DEFER, stage=Stage.RCPT)
    await world.start()
    await world.send("bia@shop.example")
    await settled(world, 1)
    await world.stop()
    await world.reopen()
    home.behaviour = Behaviour()
    world.clock.ahead += HOUR
    await world.start()
    assert len(await home.wait_for(1)) == 1


async def test_who_refused_at_its_greeting_is_named_and_read_as_its_provider_means_it(world: Any) -> None:
    """The words come before there is a session; yet they are a host's, and one provider's have their own meaning."""
    mx = await world.domain("mail.yahoodns.net")
    await world.domain("yahoo.example", host=mx)
    home = await world.domain("acme.example")
    mx.behaviour = Behaviour(
        action=Action.REFUSE, stage=Stage.CONNECT, reply="521 5.3.2 [TS03] All messages from you permanently refused"
    )
    await world.start()
    await world.send("bia@yahoo.example")
    (outcome,) = await world.ended(1)
    assert outcome.bounce_class == "reputation"
    _, (_, first), _ = read((await home.wait_for(1))[0])
    assert first["Remote-MTA"] == f"dns; {mx.hostname}"
    assert first["Diagnostic-Code"].startswith("smtp; 521 5.3.2 [TS03]")
