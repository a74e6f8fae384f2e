"""Servers whose replies are out of step with our commands: what they say must not be taken for a delivery."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from malote_dev.mailworld.scripted import Scripted, scripted
from malote_relay.delivery.content import Content
from malote_relay.delivery.dialogue.connection import Session, open_session
from malote_relay.delivery.dialogue.envelope import Envelope
from malote_relay.delivery.peer import Identity, Peer, Timeouts
from malote_relay.delivery.reply import Failure, Reply
from malote_relay.store.contents import StoredFile

CONTENT = b"Subject: x\r\n\r\nGood day.\r\n"
PATIENT = Timeouts(connect=30, greeting=30, command=30, tls=30, data=30, block=30, final=30, quit=0.2)
BOTH = pytest.mark.parametrize("extensions", [("PIPELINING",), ()], ids=["pipelined", "one by one"])


async def session(port: int) -> Session:
    return await open_session(
        Peer("mx.example", ipaddress.ip_address("127.0.0.1"), port), Identity("relay.example"), PATIENT
    )


def envelope(*recipients: str, content: bytes | StoredFile = CONTENT) -> Envelope:
    return Envelope("app@acme.example", recipients or ("bia@shop.example",), Content(content), len(CONTENT))


def assert_out_of_step(answer: object, one: Session, *, content_sent: bool = False) -> None:
    """It is put off, over a session that is used no more."""
    assert isinstance(answer, Failure), answer
    assert (answer.permanent, answer.stale, answer.bounce_class) == (False, False, "system")
    assert answer.words.startswith("451 4.5.0 ")
    assert not one.usable
    assert one.content_sent is content_sent


@BOTH
@pytest.mark.parametrize("words", ["250 2.0.0 ok", "334 go on"])
async def test_only_354_lets_the_content_go_and_what_else_is_no_refusal_is_no_delivery(
    extensions: Sequence[str], words: str
) -> None:
    """RFC 5321 section 4.3.2: DATA is answered with 354, or refused."""

    async def script(it: Scripted) -> None:
        await it.greet(*extensions)
        for reply in ("250 ok", "250 ok", words):
            await it.hear()
            it.say(reply)
        await it.hear()

    async with scripted(script) as (port, connections):
        one = await session(port)
        (answer,) = await one.deliver(envelope())
        assert_out_of_step(answer, one)
        assert connections[0].heard[-1] == "DATA"


async def test_a_reply_too_many_before_354_delivers_nothing() -> None:
    async def script(it: Scripted) -> None:
        await it.greet("PIPELINING")
        for _ in range(3):
            await it.hear()
        it.say("250 one more than there should be", "250 2.1.0 ok", "250 2.1.5 ok", "354 go on")
        await it.hear_content()
        it.say("250 2.0.0 taken")

    async with scripted(script) as (port, _):
        one = await session(port)
        (answer,) = await one.deliver(envelope())
        assert_out_of_step(answer, one)


@BOTH
async def test_354_is_an_answer_to_data_alone(extensions: Sequence[str]) -> None:
    async def script(it: Scripted) -> None:
        await it.greet(*extensions)
        for reply in ("250 ok", "354 go on"):
            await it.hear()
            it.say(reply)
        await it.hear()

    async with scripted(script) as (port, _):
        one = await session(port)
        answers = await one.deliver(envelope("bia@shop.example", "rui@shop.example"))
        assert_out_of_step(answers[1], one)


async def test_a_refusal_of_the_sender_stands_whatever_comes_after_it() -> None:
    async def script(it: Scripted) -> None:
        await it.greet("PIPELINING")
        for _ in range(3):
            await it.hear()
        it.say("550 5.7.1 not from you", "503 5.5.1 no sender", "250 ok")
        await it.hear()

    async with scripted(script) as (port, _):
        one = await session(port)
        assert await one.deliver(envelope()) == [Reply(550, ("5.7.1 not from you",))]
        assert not one.usable


@pytest.mark.parametrize("words", ["250 2.0.0 taken", "354 go on, please", "550 5.7.1 no", "421 4.3.2 closing"])
async def test_what_is_said_before_the_content_goes_out_is_no_answer_to_it(words: str) -> None:
    async def script(it: Scripted) -> None:
        await it.greet("PIPELINING")
        for _ in range(3):
            await it.hear()
        it.say("250 2.1.0 ok", "250 2.1.5 ok", "354 go on", words)
        await it.hear_content()
        raise AssertionError("the content must not be sent")

    async with scripted(script) as (port, _):
        one = await session(port)
        (answer,) = await one.deliver(envelope())
        if words.startswith("421"):
            assert answer == Reply(421, ("4.3.2 closing",))
        else:
            assert_out_of_step(answer, one)


async def test_what_follows_a_354_to_nobodys_content_ends_the_session() -> None:
    async def script(it: Scripted) -> None:
        await it.greet("PIPELINING")
        for _ in range(3):
            await it.hear()
        it.say("250 2.1.0 ok", "550 5.1.1 gone", "354 go on", "250 2.0.0 taken")
        await it.hear()

    async with scripted(script) as (port, _):
        one = await session(port)
        assert await one.deliver(envelope()) == [Reply(550, ("5.1.1 gone",))]
        assert not one.usable


@pytest.fixture
def large(tmp_path: Path) -> StoredFile:
    path = tmp_path / "large"
    path.write_bytes(b"Subject: x\r\n\r\n" + (b"x" * 998 + b"\r\n") * 20_000)
    return StoredFile(path)


@pytest.mark.parametrize("hangs_up", [False, True])
@pytest.mark.parametrize("words", ["250 2.0.0 taken", "354 more"])
async def test_an_acceptance_of_half_a_message_is_none(large: StoredFile, words: str, hangs_up: bool) -> None:
    async def script(it: Scripted) -> None:
        await it.greet("PIPELINING")
        for _ in range(3):
            await it.hear()
        it.say("250 2.1.0 ok", "250 2.1.5 ok", "354 go on")
        await it.reader.read(100_000)
        it.say(words)
        if hangs_up:
            it.close()
        else:
            await asyncio.sleep(0.3)

    async with scripted(script) as (port, _):
        one = await session(port)
        (answer,) = await one.deliver(envelope(content=large))
        assert_out_of_step(answer, one, content_sent=True)


async def test_nor_is_one_while_the_end_of_a_small_message_has_not_left_yet() -> None:
    async def script(it: Scripted) -> None:
        await it.greet("PIPELINING")
        for _ in range(3):
            await it.hear()
        it.pause()
        it.say("250 2.1.0 ok", "250 2.1.5 ok", "354 go on")
        await it.something_came()
        it.say("250 2.0.0 taken")
        await asyncio.sleep(0.5)

    async with scripted(script) as (port, _):
        one = await session(port)
        carrier = one._wire.transport.get_extra_info("socket")
        carrier.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        (answer,) = await one.deliver(envelope(content=b"Subject: x\r\n\r\n" + b"x\r\n" * 40_000))
        assert_out_of_step(answer, one, content_sent=True)
