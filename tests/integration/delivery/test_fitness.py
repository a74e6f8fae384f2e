"""What a server cannot take is refused before it is sent, and costs nothing else: a script plays the server."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from tests.integration.delivery.sessions import envelope, session

from malote_dev.mailworld.scripted import Scripted, scripted
from malote_relay.delivery.content import Content
from malote_relay.delivery.dialogue.envelope import Envelope
from malote_relay.delivery.reply import Failure, Reply, parse


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


@pytest.mark.parametrize("address", ["josé@shop.example", "bia@shop.example>\r\nRSET"])
async def test_a_server_is_not_asked_for_an_address_that_it_cannot_be_told(address: str) -> None:
    """RFC 6531 section 3.2. What it says to octets that it does not know would be no word about the mailbox."""

    async def script(one: Scripted) -> None:
        await one.greet()
        while (await one.hear()) != "QUIT":
            one.say("550 5.1.1 no such user")

    async with scripted(script) as (port, heard):
        one = await session(port)
        mail, rcpt = await one.ask(address)
        assert (mail.code, rcpt) == (553, None)
        await one.quit()
        assert heard[0].heard[1:] == ["QUIT"]


async def test_a_server_with_smtputf8_is_asked_for_an_address_in_utf8() -> None:
    async def script(one: Scripted) -> None:
        await one.greet("SMTPUTF8")
        for _ in range(2):
            await one.hear()
            one.say("250 ok")
        await one.hear()

    async with scripted(script) as (port, heard):
        one = await session(port)
        _, rcpt = await one.ask("josé@shop.example")
        assert rcpt is not None
        assert rcpt.accepted
        await one.quit()
        assert heard[0].heard[1:3] == ["MAIL FROM:<> SMTPUTF8", "RCPT TO:<josé@shop.example>"]


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
