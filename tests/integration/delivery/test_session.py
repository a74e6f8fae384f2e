"""The SMTP dialogue with servers that lack something or break the rules: a script plays the server."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from tests.integration.delivery.sessions import CONTENT, PATIENT, at, envelope, session

from malote_dev.mailworld.scripted import Scripted, scripted
from malote_relay.delivery.answers.classify import classify
from malote_relay.delivery.dialogue.connection import open_session
from malote_relay.delivery.dialogue.wire import SessionFailed
from malote_relay.delivery.peer import Identity, Login
from malote_relay.delivery.reply import Reply
from malote_relay.delivery.tls.handshake import opportunistic_tls


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


async def test_the_smart_hosts_login_is_for_it_alone() -> None:
    async def script(it: Scripted) -> None:
        await it.greet("AUTH PLAIN")
        await it.hear()

    async with scripted(script) as (port, heard):
        identity = Identity("relay.example", login=Login("relay", "secret"))
        await (await open_session(at(port), identity, PATIENT, opportunistic_tls())).quit()
        assert heard[0].heard == ["EHLO relay.example", "QUIT"]
