"""What senders hear of bounces that come after delivery."""

from __future__ import annotations

import asyncio
import email
import email.policy
from typing import Any

import pytest
from tests.integration.relay.bounces.reports import bring, dsn, gone, sent, told

from malote_dev.mailworld.behaviour import Action, Behaviour
from malote_dev.mailworld.verify import verify
from malote_relay.config import KEYS_DIRECTORY, DkimKey, Notices
from malote_relay.store.model import StoreError


async def test_the_relays_own_notices_go_to_the_sender_and_not_to_the_return_path(
    relay: Any, site: Any, compose: Any
) -> None:
    world = site.world
    world.mx.recipients["gone@dest.example"] = Behaviour(action=Action.REFUSE)
    await relay.send(compose(), to=("gone@dest.example",))
    (report,) = await world.provider.wait_for(1)
    assert (report.mail_from, report.recipients) == ("", ("ana@acme.example",))


def groups(notice: Any) -> tuple[Any, Any, Any]:
    """Of a notice: what it says of the message, what of the recipient, and what came back."""
    document: Any = email.message_from_bytes(notice.content, policy=email.policy.SMTP)
    _, status, returned = document.iter_parts()
    about, recipient = status.get_payload()
    return about, recipient, returned


async def test_the_sender_is_told_of_a_bounce_with_the_words_of_who_bounced_it(
    relay: Any, site: Any, compose: Any
) -> None:
    world = site.world
    (site.directory / KEYS_DIRECTORY / "notices.pem").write_bytes(world.key.pem)
    site.change(notices=Notices(keys=(DkimKey(selector="n1", file="notices.pem"),)))
    await relay.relay._watcher.look()
    world.dns.set("n1._domainkey.out.acme.smtp.example", "TXT", world.key.record)
    world.dns.set("out.acme.smtp.example", "TXT", "v=spf1 ip4:127.0.0.0/8 -all")
    world.dns.set("_dmarc.out.acme.smtp.example", "TXT", "v=DMARC1; p=reject; adkim=s; aspf=s")
    (message,) = await sent(relay, site, compose)
    await gone(relay, 1)
    report = dsn("bob@elsewhere.example", said="550-5.1.1 no\r\n 550 5.1.1 such user", original=message.content)
    assert (await bring(relay, message.mail_from, report))[0] == 250
    (notice,) = await world.provider.wait_for(1)
    assert (notice.mail_from, notice.recipients) == ("", ("ana@acme.example",))
    about, recipient, returned = groups(notice)
    assert about["Reporting-MTA"] == "dns; out.acme.smtp.example"
    assert recipient["Final-Recipient"] == "rfc822; bob@dest.example"
    assert (recipient["Action"], recipient["Status"]) == ("failed", "5.1.1")
    assert recipient["Remote-MTA"] == "dns; mx.dest.example"
    assert recipient["Diagnostic-Code"] == "smtp; 550-5.1.1 no 550 5.1.1 such user"
    assert returned.get_content_type() == "text/rfc822-headers"
    assert b"\r\nMessage-ID: " in message.content
    assert message.content.partition(b"\r\nMessage-ID: ")[2].split(b"\r\n")[0] in notice.content
    assert (await verify(notice.content, notice.peer, notice.helo, notice.mail_from, world.dns)).all_pass
    assert relay.counted("malote_notices_total", kind="bounced", result="sent") == 1


async def test_the_sender_is_told_once_however_often_a_bounce_is_reported(
    relay: Any, site: Any, compose: Any
) -> None:
    messages = await sent(relay, site, compose, "bob@dest.example", "eve@dest.example")
    for _ in range(2):
        replies = await asyncio.gather(  # both at the same time
            *(bring(relay, one.mail_from, dsn(one.recipients[0])) for one in messages for _ in range(2))
        )
        assert {code for code, _ in replies} == {250}
    notices = await site.world.provider.wait_for(2)
    await asyncio.sleep(0.3)
    assert len(site.world.provider.messages) == 2
    assert {groups(one)[1]["Final-Recipient"] for one in notices} == {
        "rfc822; bob@dest.example",
        "rfc822; eve@dest.example",
    }


@pytest.mark.parametrize(
    ("notify", "told"), [("NEVER", False), ("SUCCESS", False), ("FAILURE", True), ("SUCCESS,FAILURE", True)]
)
async def test_a_bounce_is_told_as_the_sender_asked_for_failures(
    relay: Any, site: Any, notify: str, told: bool
) -> None:
    session = await relay.signed_in()
    assert (await session.say("MAIL FROM:<ana@acme.example> ENVID=QQ1")).startswith("250 ")
    command = f"RCPT TO:<bob@dest.example> NOTIFY={notify} ORCPT=rfc822;bob@old.example"
    assert (await session.say(command)).startswith("250 ")
    assert (await session.say("DATA")).startswith("354 ")
    assert (await session.say(b"From: <ana@acme.example>\r\n\r\nHello\r\n.\r\n")).startswith("250 ")
    (message,) = await site.world.mx.wait_for(1)
    await gone(relay, 1)
    relayed = 1 if "SUCCESS" in notify else 0
    await site.world.provider.wait_for(relayed)
    assert (await bring(relay, message.mail_from, dsn("bob@dest.example")))[0] == 250
    notices = await site.world.provider.wait_for(relayed + told)
    assert relay.counted("malote_notices_total", kind="bounced", result="sent") == told
    if told:
        about, recipient, returned = groups(notices[-1])
        assert about["Original-Envelope-Id"] == "QQ1"
        assert recipient["Original-Recipient"] == "rfc822; bob@old.example"
        assert "no longer kept here" in returned.get_payload()  # it was delivered, and the report had nothing of it


async def test_senders_are_told_within_their_limit_and_only_where_that_is_wanted(
    relay: Any, site: Any, compose: Any
) -> None:
    site.begin_an_hour()
    site.change(notices={"per_sender_per_hour": 1})
    await relay.relay._watcher.look()
    messages = await sent(relay, site, compose, *(f"u{number}@dest.example" for number in range(4)))
    for one in messages[:3]:
        assert (await bring(relay, one.mail_from, dsn(one.recipients[0])))[0] == 250
    assert relay.counted("malote_notices_total", kind="bounced", result="sent") == 1
    assert relay.counted("malote_notices_total", kind="bounced", result="withheld") == 2
    site.change(bounces={"tell_senders": False})
    await relay.relay._watcher.look()
    assert (await bring(relay, messages[3].mail_from, dsn(messages[3].recipients[0])))[0] == 250
    assert len(await told(relay)) == 4
    assert relay.counted("malote_notices_total", kind="bounced", result="withheld") == 2


async def test_a_bounce_whose_notice_cannot_be_kept_is_asked_for_again(
    relay: Any, site: Any, compose: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (message,) = await sent(relay, site, compose)

    async def full(notice: Any) -> Any:
        raise StoreError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(relay.relay._store, "enqueue", full)
        assert (await bring(relay, message.mail_from, dsn("bob@dest.example")))[0] == 451
    assert await told(relay) == []
    assert (await bring(relay, message.mail_from, dsn("bob@dest.example")))[0] == 250
    assert len(await site.world.provider.wait_for(1)) == 1
    assert len(await told(relay)) == 1


async def test_a_sender_is_told_again_only_when_a_kill_came_between_telling_and_writing_down(
    relay: Any, site: Any, compose: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (message,) = await sent(relay, site, compose)

    async def refuses(work: Any) -> Any:
        raise StoreError("not now")

    with monkeypatch.context() as broken:
        broken.setattr(relay.relay._store, "write", refuses)
        for _ in range(3):
            assert (await bring(relay, message.mail_from, dsn("bob@dest.example")))[0] == 451
    assert len(await site.world.provider.wait_for(1)) == 1
    relay.relay._intake._told.clear()  # what a new life of the relay does not know
    for _ in range(2):
        assert (await bring(relay, message.mail_from, dsn("bob@dest.example")))[0] == 250
    assert len(await site.world.provider.wait_for(2)) == 2
    assert len(await told(relay)) == 1


async def test_a_defect_in_telling_does_not_keep_the_bounce_out(
    relay: Any, site: Any, compose: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (message,) = await sent(relay, site, compose)

    async def defect(due: Any) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(relay.relay._intake, "_tell", defect)
    assert (await bring(relay, message.mail_from, dsn("bob@dest.example")))[0] == 250
    assert len(await told(relay)) == 1


async def test_success_is_told_by_the_relay_since_a_report_to_its_return_path_would_reach_nobody(
    relay: Any, site: Any
) -> None:
    """RFC 3461: the next server would report to the reverse-path, and that is the relay's own."""
    site.world.mx.dsn = True
    session = await relay.signed_in()
    assert (await session.say("MAIL FROM:<ana@acme.example> ENVID=QQ1")).startswith("250 ")
    assert (await session.say("RCPT TO:<bob@dest.example> NOTIFY=SUCCESS,DELAY")).startswith("250 ")
    assert (await session.say("RCPT TO:<eve@dest.example> NOTIFY=NEVER")).startswith("250 ")
    assert (await session.say("DATA")).startswith("354 ")
    assert (await session.say(b"From: <ana@acme.example>\r\n\r\nHello\r\n.\r\n")).startswith("250 ")
    messages = await site.world.mx.wait_for(2)
    asked = {message.recipients[0]: message.rcpt_options[0][0] for message in messages}
    assert asked == {"bob@dest.example": "NOTIFY=FAILURE", "eve@dest.example": "NOTIFY=NEVER"}
    (notice,) = await site.world.provider.wait_for(1)
    assert notice.recipients == ("ana@acme.example",)
    assert b"Original-Envelope-Id: QQ1" in notice.content
    assert b"Final-Recipient: rfc822; bob@dest.example\r\nAction: relayed" in notice.content
