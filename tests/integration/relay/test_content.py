"""What is refused of the content, and what is taken; no variant of its end lets a second message in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from malote_relay.submission.body import Body


async def test_international_addresses_are_taken_with_smtputf8(relay: Any, world: Any) -> None:
    world.dns.set("xn--nandu-pta.example", "MX", "10 mx.dest.example.")
    dialogue = await relay.signed_in()
    assert (await dialogue.say("MAIL FROM:<ana@acme.example> SMTPUTF8 BODY=8BITMIME")).startswith("250")
    assert (await dialogue.say("RCPT TO:<josé@ñandu.example>")).startswith("250")
    await dialogue.say("DATA")
    assert (await dialogue.say("From: Ana <ana@acme.example>\r\n\r\nolá\r\n.")).startswith("250 2.0.0")


# Content.


@pytest.mark.parametrize(
    "variant",
    [
        b"\n.\n",
        b"\r.\r",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r\n.\r",
        b"\r.\r\n",
        b"\r\n\0.\r\n",
        b"\n\n.\r\n",
        b"\r\n.\r\r\n",
        b"\n.\r\r\n",
        b"\r.\n",
        b"\r\n.\0\r\n",
        b"\r\n.\r\0\n",
        b"\r\0\n.\r\n",
        b"\r\n. \r\n\n",
        b"\n\r.\n\r",
        b"\x0b.\x0b\n",
        b"\xc2\x85.\xc2\x85\r",
    ],
)
@pytest.mark.parametrize("split", [False, True])
async def test_no_variant_of_the_end_smuggles_a_message_in(
    relay: Any, world: Any, compose: Any, variant: bytes, split: bool
) -> None:
    dialogue = await relay.at_data()
    smuggled = b"MAIL FROM:<ceo@acme.example>\r\nRCPT TO:<eve@dest.example>\r\nDATA\r\nFrom: x@y.z\r\n\r\nboo"
    octets = b"From: ana@acme.example\r\n\r\nfirst" + variant + smuggled + b"\r\n.\r\n"
    for piece in [octets[i : i + 1] for i in range(len(octets))] if split else [octets]:
        dialogue.send(piece)
        if split:
            await asyncio.sleep(0)
    reply = await dialogue.read()
    assert reply.startswith("550 5.6.0 ")
    assert (await dialogue.say("NOOP")).startswith("250 2.0.0")
    await relay.keeps_nothing()
    assert (await relay.send(compose())).accepted
    assert [one.recipients for one in await world.mx.wait_for(1)] == [("bob@dest.example",)]


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (
            b"From: ana@acme.example\r\n\r\n" + b"x" * 999 + b"\r\n",
            "550 5.6.0 the message is refused: a line is longer",
        ),
        (b"From: ana@acme.example\r\n\r\na\0b\r\n", "550 5.6.0 the message is refused: it contains a NUL"),
        (
            b"From: ana@acme.example\r\n\r\n" + b"x" * 70 * 30_000,
            "550 5.6.0 the message is refused: a line is longer",
        ),
        (b"From: ana@acme.example\r\n\r\n" + (b"x" * 70 + b"\r\n") * 30_000, "552 5.3.4"),
        (b"From: ana@acme.example\r\nSubject: a\r\nSUBJECT: b\r\n\r\nx\r\n", "550 5.6.0 the message has 2 Subject"),
        (
            "From: ana@ａcme.example\r\n\r\nx\r\n".encode(),
            "550 5.6.0 From: '?cme.example' is not a valid international",
        ),
        (b"no header at all\r\n", "550 5.6.0 line 1 is no header field"),
        (b"From : ana@acme.example\r\n\r\nx\r\n", "550 5.6.0 line 1"),
        (b" folded\r\nFrom: ana@acme.example\r\n\r\n", "550 5.6.0 the first line is a continuation"),
        (b"From: ana@acme.example\r\n \t\r\nSubject: x\r\n\r\n", "550 5.6.0 line 2 of the header consists of blanks"),
        (b"Received: x\r\n" * 51 + b"From: ana@acme.example\r\n\r\nx\r\n", "554 5.4.6"),
        (b"From: ana@acme.example\r\n" + b"X: y\r\n" * 1000, "550 5.6.0 the message has 1001 header fields"),
        (
            b"From: ana@acme.example\r\n" + (b"X: " + b"y" * 990 + b"\r\n") * 300,
            "550 5.6.0 the header section is too large",
        ),
        (
            b"From: " + b"\r\n ".join([b"a" * 900] * 5) + b" <ana@acme.example>\r\n\r\n",
            "550 5.6.0 From is too long",
        ),
    ],
)
async def test_bad_content_is_refused_and_the_session_goes_on(
    relay: Any, compose: Any, content: bytes, answer: str
) -> None:
    dialogue = await relay.at_data()
    reply = await dialogue.say(content + (b"" if content.endswith(b"\r\n") else b"\r\n") + b".\r\n")
    assert reply.startswith(answer)
    await relay.keeps_nothing()
    assert (await dialogue.say("MAIL FROM:<ana@acme.example>")).startswith("250")


async def test_lines_of_998_octets_are_taken(relay: Any) -> None:
    dialogue = await relay.at_data()
    assert (await dialogue.say(b"From: ana@acme.example\r\n\r\n" + b"x" * 998 + b"\r\n.\r\n")).startswith("250")


async def test_a_client_that_never_stops_sending_is_cut_off(start: Callable[[], Any], site: Any) -> None:
    site.change(plan={"max_message_bytes": 100_000})
    relay = await start()
    dialogue = await relay.at_data()
    for _ in range(40):
        dialogue.send(b"x" * 70 + b"\r\n" + b"y" * 65_000 + b"\r\n")
    assert (await dialogue.read())[:3] in {"550", "552"}
    assert await dialogue.closed()
    await relay.keeps_nothing()


@pytest.mark.parametrize("verb", ["DATA", "BDAT 100 LAST"])
async def test_nothing_behind_a_defect_in_the_midst_of_content_is_a_command(
    relay: Any, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    def broken(body: Body, content: bytes) -> None:
        raise MemoryError

    monkeypatch.setattr(Body, "write", broken)
    dialogue = await relay.signed_in()
    await dialogue.say("MAIL FROM:<ana@acme.example>")
    await dialogue.say("RCPT TO:<bob@dest.example>")
    dialogue.send(verb)
    if verb == "DATA":
        assert (await dialogue.read()).startswith("354 ")
    dialogue.send(b"From: ana@acme.example\r\n\r\n")
    assert (await dialogue.read()).startswith("451 4.3.0")
    assert await dialogue.closed()
    await relay.keeps_nothing()
