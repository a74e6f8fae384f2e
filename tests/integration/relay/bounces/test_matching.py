"""Return paths of the relay's own; bounces and complaints matched to the mail that they are about."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.integration.relay.bounces.reports import FEEDBACK, HOST, arf, bring, dsn, sent, told

from malote_dev.mailworld.verify import verify


async def test_each_recipients_copy_leaves_with_a_return_path_of_its_own(relay: Any, site: Any, compose: Any) -> None:
    messages = await sent(relay, site, compose, "bob@dest.example", "eve@dest.example")
    assert len({message.mail_from for message in messages}) == 2
    assert all(message.mail_from.endswith(f"@{HOST}") for message in messages)
    assert sorted(message.recipients for message in messages) == [("bob@dest.example",), ("eve@dest.example",)]


async def test_spf_passes_for_the_return_paths_domain_and_stays_aligned(relay: Any, site: Any, compose: Any) -> None:
    world = site.world
    world.dns.set(HOST, "TXT", "v=spf1 ip4:127.0.0.0/8 -all")
    world.dns.set("_dmarc.acme.example", "TXT", "v=DMARC1; p=reject; aspf=r")
    (message,) = await sent(relay, site, compose)
    verdict = await verify(message.content, message.peer, message.helo, message.mail_from, world.dns)
    assert verdict.all_pass, verdict


async def test_a_bounce_to_the_return_path_is_matched_and_written_down_before_the_250(
    relay: Any, site: Any, compose: Any
) -> None:
    messages = await sent(relay, site, compose, "bob@dest.example", "eve@dest.example")
    about_eve = next(one for one in messages if one.recipients == ("eve@dest.example",))
    # Case is lost on some ways, and the report names an address that the sender never used.
    reply = await bring(relay, about_eve.mail_from.upper(), dsn("eve@elsewhere.example"), tls=True)
    assert reply == (250, "")
    assert await told(relay) == [
        (
            "bounced",
            "eve@dest.example",
            "bad-mailbox",
            "550 5.1.1 no such user",
            "mx.dest.example",
            "app",
            "ana@acme.example",
        )
    ]
    ((what, consequence),) = relay.acted.told
    assert (what, consequence.address, consequence.bounce_class) == ("bounced", "eve@dest.example", "bad-mailbox")
    assert consequence.permanent
    assert relay.counted("malote_async_bounces_total", bounce_class="bad-mailbox") == 1


async def test_a_bounce_that_is_quicker_than_the_delivery_s_event_is_matched_all_the_same(
    relay: Any, site: Any, compose: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = asyncio.Event()
    record = relay.relay._store.record

    async def slow(outcomes: Any, **more: Any) -> Any:
        await late.wait()
        return await record(outcomes, **more)

    monkeypatch.setattr(relay.relay._store, "record", slow)
    (message,) = await sent(relay, site, compose)
    assert await bring(relay, message.mail_from, dsn("bob@dest.example")) == (250, "")
    late.set()
    assert [row[:2] for row in await told(relay)] == [("bounced", "bob@dest.example")]


async def test_what_is_told_twice_is_one_event_and_counts_once(relay: Any, site: Any, compose: Any) -> None:
    (message,) = await sent(relay, site, compose)
    for _ in range(2):
        assert (await bring(relay, message.mail_from, dsn("bob@dest.example")))[0] == 250
    assert len(await told(relay)) == 1
    assert [consequence.told_before for _, consequence in relay.acted.told] == [False, True]
    assert relay.counted("malote_async_bounces_total", bounce_class="bad-mailbox") == 1
    assert relay.counted("malote_bounce_mail_total", kind="known") == 1


async def test_what_cannot_be_acted_on_now_is_asked_for_again(relay: Any, site: Any, compose: Any) -> None:
    (message,) = await sent(relay, site, compose)
    relay.acted.broken = True
    assert (await bring(relay, message.mail_from, dsn("bob@dest.example")))[0] == 451
    relay.acted.broken = False
    assert (await bring(relay, message.mail_from, dsn("bob@dest.example")))[0] == 250
    assert len(relay.acted.told) == len(await told(relay)) == 1


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (dsn("bob@dest.example", action="delayed", status="4.4.1"), "no_failure"),
        (b"From: Bob <bob@dest.example>\r\nSubject: Automatic reply: Hello\r\n\r\nI am away.\r\n", "automatic_reply"),
        (b"From: Bob <bob@dest.example>\r\nSubject: Please confirm your email\r\n\r\nClick.\r\n", "challenge"),
        (b"From: Bob <bob@dest.example>\r\nSubject: Re: Hello\r\n\r\nThank you.\r\n", "unknown"),
        (b"", "unknown"),
    ],
)
async def test_what_is_no_failure_is_taken_and_counted_but_is_no_bounce(
    relay: Any, site: Any, compose: Any, content: bytes, kind: str
) -> None:
    (message,) = await sent(relay, site, compose)
    assert (await bring(relay, message.mail_from, content))[0] == 250
    assert await told(relay) == []
    assert relay.acted.told == []
    assert relay.counted("malote_bounce_mail_total", kind=kind) == 1


async def test_nobody_but_a_bounce_gets_in(relay: Any, site: Any, compose: Any) -> None:
    (message,) = await sent(relay, site, compose)
    path = message.mail_from
    forged = path.replace(path[40], "3" if path[40] != "3" else "4", 1)
    for to in (forged, f"postmaster@{HOST}", "bob@dest.example", "ana@acme.example"):
        code, words = await bring(relay, to, dsn("bob@dest.example"))
        assert (code, words[:6]) == (550, "5.1.1 ")
    assert await bring(relay, path, dsn("bob@dest.example"), sender="bob@dest.example") == (
        550,
        "5.7.1 only bounces, which have the null sender, are taken here",
    )
    assert await told(relay) == []


async def test_a_return_path_ends_with_its_time(relay: Any, site: Any, compose: Any) -> None:
    (message,) = await sent(relay, site, compose)
    relay.relay._clock.offset += 16 * 86_400
    code, words = await bring(relay, message.mail_from, dsn("bob@dest.example"))
    assert (code, words) == (550, "5.1.1 this return path has expired")


async def test_a_complaint_is_matched_by_the_return_path_in_it(relay: Any, site: Any, compose: Any) -> None:
    messages = await sent(relay, site, compose, "bob@dest.example", "eve@dest.example")
    about_eve = next(one for one in messages if one.recipients == ("eve@dest.example",))
    original = f"Return-Path: <{about_eve.mail_from}>\r\n".encode() + about_eve.content
    assert (await bring(relay, FEEDBACK, arf(original), sender="fbl@provider.example"))[0] == 250
    ((status, recipient, bounce_class, reply, *_),) = await told(relay)
    assert (status, recipient, bounce_class, reply) == (
        "complained",
        "eve@dest.example",
        "complaint",
        "feedback: abuse",
    )
    assert [what for what, _ in relay.acted.told] == ["complained"]
    assert relay.counted("malote_complaints_total") == 1


@pytest.mark.parametrize("complains", [False, True])
async def test_a_bounce_and_a_complaint_suppress_the_recipient(
    relay: Any, site: Any, compose: Any, complains: bool
) -> None:
    relay.relay._intake.acts = relay.relay.consequences
    (message,) = await sent(relay, site, compose)
    if complains:
        assert (await bring(relay, FEEDBACK, arf(b"Return-Path: <%s>\r\n" % message.mail_from.encode())))[0] == 250
    else:
        assert (await bring(relay, message.mail_from, dsn("bob@dest.example")))[0] == 250
    dialogue = await relay.signed_in()
    await dialogue.say("MAIL FROM:<ana@acme.example>")
    answer = await dialogue.say("RCPT TO:<bob@dest.example>")
    assert answer.startswith("550")
    assert ("its owner complained" if complains else "bad-mailbox: 550 5.1.1 no such user") in answer
    tally = relay.relay.pauses.states()[0].tally
    assert (tally.bounced, tally.complained) == (not complains, complains)


async def test_who_knows_a_messages_id_cannot_make_up_a_complaint(relay: Any, site: Any, compose: Any) -> None:
    """The id is in the Received field, and so with all whom the message was forwarded to."""
    relay.relay._intake.acts = relay.relay.consequences
    (message,) = await sent(relay, site, compose)
    forged = arf(message.content, more="Original-Rcpt-To: bob@dest.example\r\n")
    site.change(bounces={"feedback_networks": ("192.0.2.0/24", "2001:db8::/32")})
    await relay.relay._watcher.look()
    with capture_logs() as log:
        assert (await bring(relay, FEEDBACK, forged, sender="fbl@provider.example"))[0] == 250
    assert await told(relay) == []
    assert await relay.relay.suppressions.find("bob@dest.example") is None
    assert relay.relay.pauses.states()[0].tally.complained == 0
    assert relay.counted("malote_bounce_mail_total", kind="unbelieved") == 1
    (said,) = [entry for entry in log if entry["event"].startswith("a complaint is not believed")]
    assert said["client"] == "127.0.0.1"
    assert said["message"].encode() in message.content
    # Nor with a return path that is made up.
    guessed = message.mail_from.replace(message.mail_from[40], "3" if message.mail_from[40] != "3" else "4", 1)
    again = arf(b"Return-Path: <%s>\r\n" % guessed.encode() + message.content)
    assert (await bring(relay, FEEDBACK, again, sender="fbl@provider.example"))[0] == 250
    assert await told(relay) == []


async def test_a_complaint_without_a_return_path_is_matched_by_our_received_field_where_its_client_is_believed(
    relay: Any, site: Any, compose: Any
) -> None:
    site.change(bounces={"feedback_networks": ("127.0.0.0/8",)})
    await relay.relay._watcher.look()
    messages = await sent(relay, site, compose, "bob@dest.example", "eve@dest.example")
    hidden = messages[0].content  # a provider that leaves the envelope out
    unnamed = arf(hidden)
    named = arf(hidden, more="Original-Rcpt-To: eve@dest.example\r\n")
    assert (await bring(relay, FEEDBACK, unnamed, sender="fbl@provider.example"))[0] == 250
    assert await told(relay) == []  # whose it is cannot be told
    assert relay.counted("malote_bounce_mail_total", kind="unmatched") == 1
    assert (await bring(relay, FEEDBACK, named, sender="fbl@provider.example"))[0] == 250
    assert [row[:2] for row in await told(relay)] == [("complained", "eve@dest.example")]


async def test_feedback_that_is_no_complaint_and_complaints_about_others_mail_change_nothing(
    relay: Any, site: Any, compose: Any
) -> None:
    site.change(bounces={"feedback_networks": ("127.0.0.0/8",)})
    await relay.relay._watcher.look()
    (message,) = await sent(relay, site, compose)
    for content in (
        arf(message.content, "not-spam"),
        arf(b"Received: by out.other.example id 06611830ded15f554fbcd0\r\nSubject: x\r\n\r\nx\r\n"),
    ):
        assert (await bring(relay, FEEDBACK, content, sender="fbl@provider.example"))[0] == 250
    assert await told(relay) == []
