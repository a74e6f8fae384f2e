"""The SMTP dialogue with servers that lack something or break the rules: a script plays the server."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from malote_dev.mailworld.scripted import Scripted, scripted
from malote_relay.delivery.answers.classify import classify
from malote_relay.delivery.content import Content
from malote_relay.delivery.dialogue.connection import Session, open_session
from malote_relay.delivery.dialogue.envelope import Envelope
from malote_relay.delivery.dialogue.wire import SessionFailed
from malote_relay.delivery.peer import Identity, Login, Peer, Timeouts
from malote_relay.delivery.reply import Failure, Reply, parse
from malote_relay.delivery.tls.handshake import opportunistic_tls
from malote_relay.store.contents import Damaged, StoredFile, checksum

CONTENT = b"Subject: x\r\n\r\n.hidden dot\r\n"
QUICK = Timeouts(connect=1, greeting=1, command=1, tls=1, data=1, block=1, final=1, quit=0.2)


def at(port: int) -> Peer:
    return Peer("mx.example", ipaddress.ip_address("127.0.0.1"), port)


async def session(port: int, *, tls: bool = False) -> Session:
    return await open_session(at(port), Identity("relay.example"), QUICK, opportunistic_tls() if tls else None)


def envelope(
    *recipients: str,
    content: bytes | StoredFile = CONTENT,
    eight_bit: bool = False,
    smtputf8: bool = False,
    size: int = 0,
) -> Envelope:
    return Envelope(
        "app@acme.example",
        recipients or ("bia@shop.example",),
        Content(content),
        size or len(CONTENT),
        eight_bit,
        smtputf8,
    )


async def test_commands_go_in_one_group_where_the_server_offers_pipelining() -> None:
    async def script(it: Scripted) -> None:
        await it.greet("PIPELINING", "SIZE 1000000", "8BITMIME")
        for _ in range(4):
            await it.hear()  # nothing is said until all have come
        it.say("250 2.1.0 ok", "250 2.1.5 ok", "550 5.1.1 no such user", "354 go on")
        assert await it.hear_content() == b"Subject: x\r\n\r\n..hidden dot\r\n.\r\n"
        it.say("250 2.0.0 taken")
        await it.hear()

    async with scripted(script) as (port, heard):
        one = await session(port)
        first, second = await one.deliver(envelope("bia@shop.example", "rui@shop.example", eight_bit=True))
        assert (first, second) == (Reply(250, ("2.0.0 taken",)), Reply(550, ("5.1.1 no such user",)))
        await one.quit()
        assert heard[0].heard[1] == f"MAIL FROM:<app@acme.example> SIZE={len(CONTENT)} BODY=8BITMIME"


async def test_commands_go_one_by_one_where_it_does_not() -> None:
    async def script(it: Scripted) -> None:
        await it.greet()
        for reply in ("250 ok", "250 ok", "550 no such user", "354 go on"):
            await it.hear()
            it.say(reply)
        await it.hear_content()
        it.say("250 taken")
        await it.hear()

    async with scripted(script) as (port, heard):
        one = await session(port)
        first, second = await one.deliver(envelope("bia@shop.example", "rui@shop.example"))
        assert isinstance(first, Reply)
        assert first.accepted
        assert second == Reply(550, ("no such user",))
        assert heard[0].heard[1:] == [
            "MAIL FROM:<app@acme.example>",
            "RCPT TO:<bia@shop.example>",
            "RCPT TO:<rui@shop.example>",
            "DATA",
        ]


async def test_a_refused_mail_command_answers_for_every_recipient_and_the_session_goes_on() -> None:
    async def script(it: Scripted) -> None:
        await it.greet("PIPELINING")
        for _ in range(3):
            await it.hear()
        it.say("550 5.7.1 not from you", "503 5.5.1 no sender", "503 5.5.1 no recipient")
        for _ in range(4):
            await it.hear()
        it.say("250 reset", "250 ok", "250 ok", "354 go on")
        await it.hear_content()
        it.say("250 taken")
        await it.hear()

    async with scripted(script) as (port, heard):
        one = await session(port)
        assert await one.deliver(envelope()) == [Reply(550, ("5.7.1 not from you",))]
        assert one.usable
        (answer,) = await one.deliver(envelope())
        assert isinstance(answer, Reply)
        assert answer.accepted
        assert heard[0].heard[4] == "RSET"


@pytest.mark.parametrize("words", ["554 5.7.1 your domain is blocked here", "421 4.7.0 too much from you"])
@pytest.mark.parametrize("extensions", [("PIPELINING",), ()])
async def test_a_refused_mail_command_answers_for_every_recipient_though_the_server_hangs_up(
    words: str, extensions: Sequence[str]
) -> None:
    async def script(it: Scripted) -> None:
        await it.greet(*extensions)
        await it.hear()
        it.say(words)

    async with scripted(script) as (port, _):
        one = await session(port)
        answers = await one.deliver(envelope("a@shop.example", "b@shop.example"))
        assert [str(answer) for answer in answers] == [words] * 2
        assert not one.content_sent


@pytest.mark.parametrize(
    ("replies", "classes"),
    [
        (["550 5.1.0 <app@acme.example>: Sender address rejected"], ["bad-sender"] * 2),
        (["501 5.1.7 Invalid address"], ["bad-sender"] * 2),
        (["250 ok", "550 5.1.1 gone", "550 5.1.1 no such user"], ["bad-mailbox"] * 2),
        (["250 ok", "250 ok", "250 ok", "550 5.1.1 no such user"], ["other"] * 2),
        (["250 ok", "250 ok", "250 ok", "354 go on", "550 5.1.1 no such user"], ["other"] * 2),
        (["250 ok", "250 ok", "550 5.2.1 disabled", "354 go on", "550 5.1.1 gone"], ["bad-mailbox", "inactive"]),
    ],
)
async def test_a_recipients_mailbox_is_judged_only_by_what_can_be_about_it_alone(
    replies: Sequence[str], classes: Sequence[str]
) -> None:
    """Else a word against the sender, or against one of many, would put all of them on the suppression list."""

    async def script(it: Scripted) -> None:
        await it.greet()
        for before, reply in itertools.pairwise(["", *replies]):
            await (it.hear_content() if before.startswith("354") else it.hear())
            it.say(reply)
        await it.hear()

    async with scripted(script) as (port, _):
        one = await session(port)
        answers = await one.deliver(envelope("a@shop.example", "b@shop.example"))
        assert [classify(answer).bounce_class for answer in answers] == classes


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()])
async def test_the_421_with_which_a_server_closes_answers_for_those_who_have_none(extensions: Sequence[str]) -> None:
    async def script(it: Scripted) -> None:
        await it.greet(*extensions)
        for reply in ("250 ok", "550 5.1.1 no such user", "421 4.7.0 too much from you"):
            await it.hear()
            it.say(reply)

    async with scripted(script) as (port, _):
        one = await session(port)
        answers = await one.deliver(envelope("gone@shop.example", "b@shop.example", "c@shop.example"))
        assert [str(answer) for answer in answers] == [
            "550 5.1.1 no such user",
            "421 4.7.0 too much from you",
            "421 4.7.0 too much from you",
        ]


async def test_data_let_in_though_nobody_is_left_is_ended_empty() -> None:
    """RFC 2920 section 3.1."""

    async def script(it: Scripted) -> None:
        await it.greet("PIPELINING")
        for _ in range(3):
            await it.hear()
        it.say("250 ok", "550 5.1.1 no such user", "354 go on")
        assert await it.hear() == "."
        it.say("554 5.5.1 no recipients")
        await it.hear()

    async with scripted(script) as (port, _):
        one = await session(port)
        assert await one.deliver(envelope()) == [Reply(550, ("5.1.1 no such user",))]
        assert one.usable


async def test_a_server_without_ehlo_is_greeted_with_helo() -> None:
    async def script(it: Scripted) -> None:
        it.say("220 old")
        await it.hear()
        it.say("502 5.5.1 what?")
        await it.hear()
        it.say("250 old")
        await it.hear()

    async with scripted(script) as (port, heard):
        await (await session(port)).quit()
        assert heard[0].heard == ["EHLO relay.example", "HELO relay.example", "QUIT"]


@pytest.mark.parametrize("words", ["550 5.7.1 your address is listed", "554 no mail from you"])
async def test_why_a_server_hangs_up_at_ehlo_is_told(words: str) -> None:
    async def script(it: Scripted) -> None:
        it.say("220 mx.example")
        await it.hear()
        it.say(words)

    async with scripted(script) as (port, _):
        with pytest.raises(SessionFailed) as failed:
            await session(port)
    assert failed.value.failure.said == words
    assert not failed.value.failure.permanent


@pytest.mark.parametrize(
    ("it", "code", "bounce_class"),
    [
        (envelope(eight_bit=True), "5.6.3", "protocol"),
        (envelope("josé@shop.example", smtputf8=True), "5.6.7", "protocol"),
        (envelope(content="Subject: olá\r\n\r\n".encode(), smtputf8=True), "5.6.7", "protocol"),
        (envelope(size=1001), "5.3.4", "too-big"),
        (envelope("bia@shop.example>\r\nRSET"), "5.1.3", "bad-mailbox"),
        (dataclasses.replace(envelope(), reverse_path="app@acme.example>\r\nRSET"), "5.1.3", "bad-sender"),
    ],
)
async def test_what_the_server_cannot_take_is_refused_here_with_the_right_code(
    it: Envelope, code: str, bounce_class: str
) -> None:
    async def script(one: Scripted) -> None:
        await one.greet("PIPELINING", "SIZE 1000")
        await one.hear()

    async with scripted(script) as (port, heard):
        one = await session(port)
        (answer,) = await one.deliver(it)
        assert isinstance(answer, Failure)
        assert (answer.said, answer.permanent, answer.bounce_class) == ("", True, bounce_class)
        assert parse(answer.words).enhanced == code
        assert one.usable
        await one.quit()
        assert heard[0].heard[1:] == ["QUIT"]


async def test_a_recipient_that_the_server_cannot_take_costs_the_others_nothing() -> None:
    async def script(it: Scripted) -> None:
        await it.greet("PIPELINING")
        for _ in range(4):
            await it.hear()
        it.say("250 ok", "250 ok", "550 5.1.1 gone", "354 go on")
        await it.hear_content()
        it.say("250 taken")

    async with scripted(script) as (port, heard):
        one = await session(port)
        answers = await one.deliver(
            envelope("josé@shop.example", "a@shop.example", "x\x00@shop.example", "b@shop.example", smtputf8=True)
        )
        words = [answer.words if isinstance(answer, Failure) else str(answer) for answer in answers]
        assert [one[:9].strip() for one in words] == ["553 5.6.7", "250 taken", "553 5.1.3", "550 5.1.1"]
        assert heard[0].heard[2:4] == ["RCPT TO:<a@shop.example>", "RCPT TO:<b@shop.example>"]


async def test_the_smart_hosts_login_is_for_it_alone() -> None:
    async def script(it: Scripted) -> None:
        await it.greet("AUTH PLAIN")
        await it.hear()

    async with scripted(script) as (port, heard):
        identity = Identity("relay.example", login=Login("relay", "secret"))
        await (await open_session(at(port), identity, QUICK, opportunistic_tls())).quit()
        assert heard[0].heard == ["EHLO relay.example", "QUIT"]


async def test_smtputf8_asked_for_without_need_is_no_obstacle() -> None:
    async def script(it: Scripted) -> None:
        await it.greet("PIPELINING")
        for _ in range(3):
            await it.hear()
        it.say("250 ok", "250 ok", "354 go on")
        await it.hear_content()
        it.say("250 taken")

    async with scripted(script) as (port, heard):
        (answer,) = await (await session(port)).deliver(envelope(smtputf8=True))
        assert isinstance(answer, Reply)
        assert answer.accepted
        assert heard[0].heard[1] == "MAIL FROM:<app@acme.example>"


async def test_headers_are_looked_into_without_keeping_others_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may have to be read from a slow disk."""

    def headers(self: Content) -> bytes:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return b"Subject: x\r\n"

    monkeypatch.setattr(Content, "headers", headers)

    async def script(it: Scripted) -> None:
        await it.greet("PIPELINING")
        for _ in range(3):
            await it.hear()
        it.say("250 ok", "250 ok", "354 go on")
        await it.hear_content()
        it.say("250 taken")

    async with scripted(script) as (port, _):
        assert await (await session(port)).deliver(envelope(smtputf8=True)) == [Reply(250, ("taken",))]


async def test_words_sent_ahead_of_the_tls_handshake_end_the_session() -> None:
    """CVE-2011-0411: clear text injected there would pose as protected."""

    async def script(it: Scripted) -> None:
        await it.greet("STARTTLS")
        await it.hear()
        it.say("220 go ahead", "250 injected")
        await it.hear()

    async with scripted(script) as (port, _):
        with pytest.raises(SessionFailed, match="before the TLS handshake") as caught:
            await session(port, tls=True)
        assert caught.value.tls


async def test_a_large_message_is_streamed_from_its_file_and_stops_when_refused_midway(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"Subject: x\r\n\r\n" + (b"x" * 998 + b"\r\n") * 20_000)

    async def taking(it: Scripted) -> None:
        await it.greet("PIPELINING")
        for _ in range(3):
            await it.hear()
        it.say("250 ok", "250 ok", "354 go on")
        got, tail = 0, b""
        while tail != b"\r\n.\r\n":
            block = await it.reader.read(65_536)
            got, tail = got + len(block), (tail + block)[-5:]
        it.say(f"250 2.0.0 {got}")
        await it.hear()

    async with scripted(taking) as (port, _):
        (answer,) = await (await session(port)).deliver(envelope(content=StoredFile(path)))
        assert answer == Reply(250, (f"2.0.0 {path.stat().st_size + 3}",))

    async def refusing(it: Scripted) -> None:
        await it.greet("PIPELINING")
        for _ in range(3):
            await it.hear()
        it.say("250 ok", "250 ok", "354 go on")
        await it.reader.read(100_000)
        it.say("552 5.3.4 that is enough")
        await asyncio.sleep(0.3)

    async with scripted(refusing) as (port, _):
        one = await session(port)
        (answer,) = await one.deliver(envelope(content=StoredFile(path)))
        assert answer == Reply(552, ("5.3.4 that is enough",))
        assert not one.usable


@pytest.mark.parametrize(
    ("said", "klass"),
    [("", "timeout"), ("hello there\r\n", "connection"), ("250 ok\r\n250-a\r\n251 b\r\n", "connection")],
)
async def test_silence_and_nonsense_end_in_a_temporary_failure_within_the_limits(said: str, klass: str) -> None:
    async def script(it: Scripted) -> None:
        await it.greet("PIPELINING")
        await it.hear()
        it.writer.write(said.encode())
        await it.hear_content()

    async with scripted(script) as (port, _):
        one = await session(port)
        async with asyncio.timeout(10):
            (answer,) = await one.deliver(envelope())
        assert isinstance(answer, Failure)
        assert (answer.bounce_class, answer.permanent, answer.stale) == (klass, False, False)
        assert not one.usable


async def test_a_message_is_delivered_though_rubbish_follows_the_final_reply_in_its_packet() -> None:
    async def script(it: Scripted) -> None:
        await it.greet()
        for reply in ("250 ok", "250 ok", "354 go on"):
            await it.hear()
            it.say(reply)
        await it.hear_content()
        it.say("250 2.0.0 taken", "this is no reply")

    async with scripted(script) as (port, _):
        [only] = await (await session(port)).deliver(envelope("bia@shop.example"))
        assert only == Reply(250, ("2.0.0 taken",))


async def test_a_session_lost_after_the_final_dot_is_a_temporary_failure_but_keeps_what_was_refused() -> None:
    async def script(it: Scripted) -> None:
        await it.greet("PIPELINING")
        for _ in range(4):
            await it.hear()
        it.say("250 ok", "250 ok", "550 5.1.1 no such user", "354 go on")
        await it.hear_content()

    async with scripted(script) as (port, _):
        first, second = await (await session(port)).deliver(envelope("bia@shop.example", "rui@shop.example"))
        assert isinstance(first, Failure)
        assert "end of data" in first.words
        assert second == Reply(550, ("5.1.1 no such user",))


@pytest.mark.parametrize("farewell", ["421 4.4.2 idle for too long", ""])
async def test_a_kept_session_that_has_gone_is_stale_and_not_a_failure_of_the_message(farewell: str) -> None:
    async def script(it: Scripted) -> None:
        await it.greet("PIPELINING")
        for _ in range(3):
            await it.hear()
        it.say("250 ok", "250 ok", "354 go on")
        await it.hear_content()
        it.say("250 taken")
        await it.hear()
        if farewell:
            it.say(farewell)

    async with scripted(script) as (port, _):
        one = await session(port)
        await one.deliver(envelope())
        (answer,) = await one.deliver(envelope())
        assert isinstance(answer, Failure)
        assert answer.stale


@pytest.mark.parametrize(
    ("words", "permanent"),
    [
        ("421 4.3.2 busy", False),
        ("554 5.7.1 go away", False),
        ("550 5.7.1 not you", False),
        ("521 5.3.2 no mail here", True),
        ("556 5.1.10 no mail for that domain", True),
    ],
)
@pytest.mark.parametrize("greeted", [False, True], ids=["greeting", "EHLO and HELO"])
async def test_a_refused_session_is_refused_for_good_only_where_no_mail_is_taken_at_all(
    words: str, permanent: bool, greeted: bool
) -> None:
    """RFC 7504. A 554 in place of a greeting is about our address, today: nothing bounces for it."""

    async def script(it: Scripted) -> None:
        if greeted:
            it.say("220 mx.example ESMTP")
            await it.hear()
            it.say(words)
            await it.hear()
        it.say(words)

    async with scripted(script) as (port, _):
        with pytest.raises(SessionFailed) as caught:
            await session(port)
        assert caught.value.failure.permanent is permanent
        assert caught.value.failure.words.startswith(words)
        assert caught.value.host


async def test_a_message_that_the_disk_has_spoilt_is_broken_off_before_its_final_dot(tmp_path: Path) -> None:
    """What came so far is no message (RFC 5321 section 4.1.1.10): the host drops it with the connection."""
    whole = b"Subject: x\r\n\r\n" + (b"x" * 998 + b"\r\n") * 2000
    (tmp_path / "spoilt").write_bytes(whole.replace(b"Subject", b"Sabject"))
    came = b""
    ended = asyncio.Event()

    async def script(it: Scripted) -> None:
        nonlocal came
        await it.greet("PIPELINING")
        for _ in range(3):
            await it.hear()
        it.say("250 ok", "250 ok", "354 go on")
        try:
            while block := await it.reader.read(65_536):
                came += block
        finally:
            ended.set()

    async with scripted(script) as (port, _):
        one = await session(port)
        with pytest.raises(Damaged):
            await one.deliver(envelope(content=StoredFile(tmp_path / "spoilt", checksum(whole))))
        assert not one.usable
        await asyncio.wait_for(ended.wait(), 5)
    assert came
    assert b"\r\n.\r\n" not in came
