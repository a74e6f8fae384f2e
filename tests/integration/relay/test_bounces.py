"""What comes back after delivery: return paths of the relay's own, bounces and complaints taken in."""

from __future__ import annotations

import asyncio
import email
import email.policy
import smtplib
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from malote_dev.mailworld.behaviour import Action, Behaviour
from malote_dev.mailworld.verify import verify
from malote_relay.bounces import session
from malote_relay.bounces.intake import Consequence
from malote_relay.config import KEYS_DIRECTORY, Bounces, DkimKey, Domain, Listen, Notices
from malote_relay.store.model import StoreError

HOST = "bounces.acme.example"
FEEDBACK = f"fbl@{HOST}"


class Acted:
    """Who acts on what was told; or cannot, while `broken`."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Consequence]] = []
        self.broken = False

    async def bounced(self, bounce: Consequence) -> None:
        self._note("bounced", bounce)

    async def complained(self, complaint: Consequence) -> None:
        self._note("complained", complaint)

    def _note(self, what: str, consequence: Consequence) -> None:
        if self.broken:
            raise StoreError("not now")
        self.told.append((what, consequence))


@pytest.fixture
async def relay(site: Any, start: Callable[[], Any]) -> Any:
    """A relay with return paths for acme.example, that takes bounces in."""
    (site.directory / KEYS_DIRECTORY / "bounces.key").write_bytes(b"a secret of the tenant's own")
    keys = site.config.domains[0].keys
    site.change(
        domains=(Domain(name="acme.example", sending=True, keys=keys, return_path=HOST),),
        bounces=Bounces(secrets=("bounces.key",), feedback_addresses=(FEEDBACK,), max_message_bytes=400_000),
        listen=Listen(address="127.0.0.1", submission_port=0, submissions_port=0, observe_port=0, bounce_port=0),
    )
    running = await start()
    running.acted = running.relay._intake.acts = Acted()
    return running


async def bring(relay: Any, to: str, content: bytes, *, sender: str = "", tls: bool = False) -> tuple[int, str]:
    """Bring a message to the bounce port as a remote server does: the last reply."""

    def talk() -> tuple[int, str]:
        with smtplib.SMTP("127.0.0.1", relay.relay.bounces.port, "mx.dest.example", timeout=10) as client:
            if tls:
                context = ssl._create_unverified_context()
                client.starttls(context=context)
            try:
                client.sendmail(sender or "<>", [to], content)
            except smtplib.SMTPRecipientsRefused as refused:
                code, words = next(iter(refused.recipients.values()))
                return code, words.decode()
            except smtplib.SMTPResponseException as refused:
                said = refused.smtp_error
                return refused.smtp_code, said.decode() if isinstance(said, bytes) else said
            return 250, ""

    return await asyncio.to_thread(talk)


async def events(relay: Any) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = await relay.relay._store.read(
        lambda connection: connection.execute(
            "SELECT status, recipient, bounce_class, reply, host, account, header_from FROM events ORDER BY id"
        ).fetchall()
    )
    return rows


async def told(relay: Any) -> list[tuple[Any, ...]]:
    return [row for row in await events(relay) if row[0] in ("bounced", "complained")]


async def gone(relay: Any, count: int) -> None:
    """Wait until so many deliveries are written down: what they were of is no longer kept."""
    async with asyncio.timeout(10):
        while [row[0] for row in await events(relay)].count("delivered") < count:  # noqa: ASYNC110  # it is told nowhere
            await asyncio.sleep(0.02)


async def sent(relay: Any, site: Any, compose: Any, *to: str) -> list[Any]:
    """Send a message; what the recipients' host received."""
    await relay.send(compose(), to=to or ("bob@dest.example",))
    messages: list[Any] = await site.world.mx.wait_for(len(to) or 1)
    return messages


def dsn(
    recipient: str,
    *,
    action: str = "failed",
    status: str = "5.1.1",
    said: str = "550 5.1.1 no such user",
    original: bytes = b"",
) -> bytes:
    report = (
        "From: MAILER-DAEMON@dest.example\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n\r\n--b\r\n'
        "Content-Type: text/plain\r\n\r\nSorry.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n"
        f"Reporting-MTA: dns; mx.dest.example\r\n\r\nFinal-Recipient: rfc822; {recipient}\r\nAction: {action}\r\n"
        f"Status: {status}\r\nDiagnostic-Code: smtp; {said}\r\n\r\n"
    ).encode()
    if original:
        report += b"--b\r\nContent-Type: message/rfc822\r\n\r\n" + original + b"\r\n"
    return report + b"--b--\r\n"


def arf(original: bytes, kind: str = "abuse", more: str = "") -> bytes:
    return (
        b"From: fbl@provider.example\r\nSubject: abuse report\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/report; report-type=feedback-report; boundary="b"\r\n\r\n--b\r\n'
        b"Content-Type: text/plain\r\n\r\nA complaint.\r\n--b\r\nContent-Type: message/feedback-report\r\n\r\n"
        + f"Feedback-Type: {kind}\r\nUser-Agent: Provider/1\r\nVersion: 1\r\n{more}\r\n--b\r\n".encode()
        + b"Content-Type: message/rfc822\r\n\r\n"
        + original
        + b"\r\n--b--\r\n"
    )


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


async def test_a_message_is_bounded_and_its_form_does_not_matter(relay: Any, site: Any, compose: Any) -> None:
    (message,) = await sent(relay, site, compose)
    assert (await bring(relay, message.mail_from, b"x" * 500_000))[0] == 552
    long = dsn("bob@dest.example") + b"y" * 300_000 + b"\r\n"
    assert (await bring(relay, message.mail_from, long))[0] == 250
    assert len(await told(relay)) == 1


async def test_a_client_that_sends_too_often_is_put_off(relay: Any, site: Any, compose: Any) -> None:
    (message,) = await sent(relay, site, compose)
    site.change(bounces={"max_messages_per_client_per_minute": 2})
    await relay.relay._watcher.look()
    codes = [(await bring(relay, message.mail_from, b"Subject: x\r\n\r\n"))[0] for _ in range(4)]
    assert codes[-1] == 450


async def test_a_client_has_only_so_many_sessions(relay: Any, site: Any) -> None:
    site.change(bounces={"max_sessions_per_client": 2})
    await relay.relay._watcher.look()
    pairs = [await asyncio.open_connection("127.0.0.1", relay.relay.bounces.port) for _ in range(3)]
    greetings = [(await reader.readline())[:3] for reader, _ in pairs]
    for _, writer in pairs:
        writer.close()
    assert greetings == [b"220", b"220", b"421"]


async def test_the_dialogue_is_pipelined_strict_and_offers_what_works(relay: Any, site: Any, compose: Any) -> None:
    (message,) = await sent(relay, site, compose)
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.relay.bounces.port)
    assert (await reader.readline()).startswith(b"220 out.acme.smtp.example ESMTP")
    commands = (
        b"MAIL FROM:<>\r\nEHLO mx.dest.example\r\nAUTH PLAIN AAAA\r\nRCPT TO:<x@y.example>\r\nMAIL FROM:<> SIZE=1\r\n"
        b"RCPT TO:<" + message.mail_from.encode() + b">\r\nDATA\r\n"
    )
    writer.write(commands + dsn("bob@dest.example") + b"\n.\nMAIL FROM:<>\n\r\n.\r\nQUIT\r\n")
    lines = (await reader.read()).decode().split("\r\n")
    codes = [line[:4] for line in lines if line]
    assert codes == ["503 ", *["250-"] * 6, "250 ", "500 ", "503 ", "250 ", "250 ", "354 ", "250 ", "221 "]
    offered = {line[4:].split(" ")[0] for line in lines[2:8]}
    assert offered == {"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "STARTTLS", "ENHANCEDSTATUSCODES"}
    assert len(await told(relay)) == 1
    writer.close()


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
    assert len(notices) == 2
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


async def test_the_port_stays_closed_unless_it_is_asked_for(start: Callable[[], Any]) -> None:
    running = await start()
    assert running.relay.bounces.port == 0


async def test_stopping_lets_a_bounce_under_way_finish(relay: Any, site: Any, compose: Any) -> None:
    (message,) = await sent(relay, site, compose)
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.relay.bounces.port)
    writer.write(b"EHLO mx\r\nMAIL FROM:<>\r\nRCPT TO:<" + message.mail_from.encode() + b">\r\nDATA\r\n")
    while b"354" not in (line := await reader.readline()):
        assert line
    stopping = asyncio.create_task(relay.relay.bounces.stop(5.0))
    await asyncio.sleep(0.05)
    writer.write(dsn("bob@dest.example") + b".\r\n")
    assert (await reader.readline()).startswith(b"250 2.0.0 taken in")
    assert (await reader.readline()).startswith(b"421 4.3.2")
    await stopping
    assert len(await told(relay)) == 1
    writer.close()


async def test_a_session_ends_after_a_while_also_with_a_transaction_open(
    relay: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.relay.bounces.port)
    writer.write(b"HELO mx.dest.example\r\nMAIL FROM:<>\r\n")
    answers = [(await reader.readline())[:3] for _ in range(3)]
    monkeypatch.setattr(session, "MAX_SECONDS", -1.0)  # the loop's clock may not have moved yet
    writer.write(b"NOOP\r\n")
    answers += [line[:3] for line in (await asyncio.wait_for(reader.read(), 5.0)).splitlines()]
    assert answers == [b"220", b"250", b"250", b"250", b"421"]
    writer.close()
