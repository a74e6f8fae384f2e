"""BDAT (RFC 3030): chunks make one message, and nothing of a chunk is ever a command."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

HEADER = b"From: ana@acme.example\r\nSubject: chunks\r\n\r\n"


async def begun(relay: Any) -> Any:
    """A transaction with a recipient."""
    dialogue = await relay.signed_in()
    assert (await dialogue.say("MAIL FROM:<ana@acme.example>")).startswith("250 ")
    assert (await dialogue.say("RCPT TO:<bob@dest.example>")).startswith("250 ")
    return dialogue


async def bdat(dialogue: Any, octets: bytes, *, last: bool = False) -> str:
    answer: str = await dialogue.say(b"BDAT %d%s\r\n" % (len(octets), b" LAST" if last else b"") + octets)
    return answer


async def test_chunks_cut_anywhere_make_one_message(relay: Any, world: Any) -> None:
    dialogue = await begun(relay)
    content = HEADER + b"one\r\n.\r\n..two\r\nthree\r\n"
    for start in range(0, len(content), 7):
        assert await bdat(dialogue, content[start : start + 7]) == (
            f"250 2.0.0 {len(content[start : start + 7])} octets received"
        )
    assert (await bdat(dialogue, b"", last=True)).startswith("250 2.0.0 accepted as ")
    [arrived] = await world.mx.wait_for(1)
    assert arrived.content.endswith(b"\r\n\r\none\r\n.\r\n..two\r\nthree\r\n")
    assert (await dialogue.say("MAIL FROM:<ana@acme.example>")).startswith("250 ")


async def test_a_whole_message_may_be_the_last_chunk_and_lack_its_last_line_end(relay: Any, world: Any) -> None:
    dialogue = await begun(relay)
    assert (await bdat(dialogue, HEADER + b"no line end", last=True)).startswith("250 2.0.0 accepted")
    [arrived] = await world.mx.wait_for(1)
    assert arrived.content.endswith(b"\r\n\r\nno line end\r\n")


async def test_a_whole_transaction_may_be_sent_at_once(relay: Any, world: Any) -> None:
    dialogue = await relay.signed_in()
    dialogue.send(
        b"MAIL FROM:<ana@acme.example>\r\nRCPT TO:<bob@dest.example>\r\nBDAT %d\r\n%sBDAT 6 LAST\r\nQUIT\r\n"
        b"NOOP\r\nRCPT" % (len(HEADER), HEADER)
    )
    replies = [(await dialogue.read())[:9] for _ in range(5)]
    assert replies[:4] == ["250 2.1.0", "250 2.1.5", "250 2.0.0", "250 2.0.0"]
    assert replies[4] == "250 2.0.0"  # NOOP: QUIT was content
    [arrived] = await world.mx.wait_for(1)
    assert arrived.content.endswith(b"\r\n\r\nQUIT\r\n")


@pytest.mark.parametrize(
    ("chunks", "answer"),
    [
        ([HEADER + b"a\nb\r\n"], "550 5.6.0 the message is refused: a CR or LF"),
        ([HEADER + b"a\rb\r\n"], "550 5.6.0 the message is refused: a CR or LF"),
        ([HEADER + b"a\r", b"b\r\n"], "550 5.6.0 the message is refused: a CR or LF"),
        ([HEADER + b"a\r"], "550 5.6.0 the message is refused: a CR or LF"),
        ([HEADER + b"a", b"\nb\r\n"], "550 5.6.0 the message is refused: a CR or LF"),
        ([HEADER + b"a\0\r\n"], "550 5.6.0 the message is refused: it contains a NUL"),
        ([HEADER + b"x" * 600, b"x" * 399 + b"\r\n"], "550 5.6.0 the message is refused: a line is longer"),
        ([b"From: eve@other.example\r\n\r\nx\r\n"], "550 5.7.1 the header From"),
        ([], "550 5.6.0 the message has no From"),
    ],
)
async def test_the_content_is_looked_at_as_after_data(
    relay: Any, eventually: Any, chunks: list[bytes], answer: str
) -> None:
    dialogue = await begun(relay)
    for chunk in chunks:
        await bdat(dialogue, chunk)
    assert (await bdat(dialogue, b"", last=True)).startswith(answer)
    await relay.keeps_nothing()
    assert (await dialogue.say("MAIL FROM:<ana@acme.example>")).startswith("250 ")


async def test_lines_and_line_ends_may_be_torn_apart(relay: Any) -> None:
    dialogue = await begun(relay)
    for piece in (HEADER[:-1], HEADER[-1:], b"x" * 500, b"x" * 498 + b"\r", b"\ny\r", b"\n"):
        assert (await bdat(dialogue, piece)).startswith("250 2.0.0")
    assert (await bdat(dialogue, b"", last=True)).startswith("250 2.0.0 accepted")


async def test_after_a_refused_chunk_the_others_are_dropped_until_the_last(relay: Any, eventually: Any) -> None:
    dialogue = await begun(relay)
    refusal = await bdat(dialogue, b"From: ana@acme.example\n\r\n")
    assert refusal.startswith("550 5.6.0")
    await relay.keeps_nothing()
    for verb in ("MAIL FROM:<ana@acme.example>", "RCPT TO:<eve@dest.example>", "DATA"):
        assert (await dialogue.say(verb)).startswith("503 5.5.1")
    assert await bdat(dialogue, b"RSET\r\nQUIT\r\n") == refusal
    assert await bdat(dialogue, HEADER, last=True) == refusal
    assert (await bdat(dialogue, b"QUIT\r\n", last=True)).startswith("503 5.5.1 send MAIL FROM first")
    assert relay.counted("malote_messages_refused_total", reason="malformed") == 1
    assert (await dialogue.say("MAIL FROM:<ana@acme.example>")).startswith("250 ")


@pytest.mark.parametrize("end", ["RSET", "EHLO client.example"])
async def test_rset_gives_up_what_came_in_chunks(relay: Any, eventually: Any, end: str) -> None:
    dialogue = await begun(relay)
    await bdat(dialogue, HEADER + (b"x" * 70 + b"\r\n") * 5000)
    assert list(relay.site.spool.joinpath("incoming").iterdir())
    assert (await dialogue.say(end)).startswith("250")
    await relay.keeps_nothing()
    assert (await dialogue.say("MAIL FROM:<ana@acme.example>")).startswith("250 ")


async def test_between_chunks_only_chunks_are_taken(relay: Any) -> None:
    dialogue = await begun(relay)
    await bdat(dialogue, HEADER)
    for command in ("MAIL FROM:<ana@acme.example>", "RCPT TO:<eve@dest.example>", "DATA"):
        assert (await dialogue.say(command)).startswith("503 5.5.1")
    assert (await dialogue.say("NOOP")).startswith("250 2.0.0")
    assert (await bdat(dialogue, b"x\r\n", last=True)).startswith("250 2.0.0 accepted")


async def test_chunks_out_of_place_are_refused_and_swallowed(relay: Any) -> None:
    chunk = b"QUIT\r\n" * 20_000
    plain = await relay.plain()
    assert (await bdat(plain, chunk, last=True)).startswith("530 5.7.0 send STARTTLS first")
    dialogue = await relay.secure()
    await dialogue.say("EHLO client.example")
    assert (await bdat(dialogue, chunk)).startswith("530 5.7.0 sign in first")
    dialogue = await relay.signed_in()
    assert (await bdat(dialogue, chunk)).startswith("503 5.5.1 send MAIL FROM first")
    await dialogue.say("MAIL FROM:<ana@acme.example>")
    assert (await bdat(dialogue, chunk, last=True)).startswith("503 5.5.1 no recipient")
    assert (await dialogue.say("RCPT TO:<bob@dest.example>")).startswith("250 ")
    assert (await bdat(dialogue, HEADER, last=True)).startswith("250 2.0.0 accepted")


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (b"BDAT\r\n", "501 5.5.4 write it as: BDAT bytes [LAST]"),
        (b"BDAT x\r\n", "501 5.5.4"),
        (b"BDAT -1\r\n", "501 5.5.4"),
        (b"BDAT 0x10\r\n", "501 5.5.4"),
        (b"BDAT 16 FIRST\r\n", "501 5.5.4"),
        (b"BDAT 16 LAST LAST\r\n", "501 5.5.4"),
        (b"BDAT\t16 LAST\r\n", "500 5.5.2"),
        (b"bdat 16\n", "500 5.5.2"),
        (b"BDAT 16\r\r\n", "500 5.5.2"),
        (b"BDAT 16 \xff\r\n", "500 5.5.2"),
        (b"BDAT " + b"1" * 3000 + b"\r\n", "500 5.5.2"),
        (b"BDAT " + b"1" * 300_000 + b"\r\n", "500 5.5.2"),
    ],
)
async def test_nothing_behind_a_chunk_that_cannot_be_counted_is_a_command(
    relay: Any, command: bytes, answer: str
) -> None:
    """What an attacker wrote into the content would else be: a message of its own."""
    dialogue = await begun(relay)
    dialogue.send(command + b"RSET\r\nNOOP\r\nMAIL FROM:<bia@acme.example>\r\n")
    assert (await dialogue.read()).startswith(answer)
    assert await dialogue.closed()


async def test_a_stranger_has_no_more_time_for_a_chunk_than_for_signing_in(
    start: Callable[[], Any], site: Any
) -> None:
    site.change(limits={"sign_in_timeout": 1.0, "data_timeout": 60.0})
    relay = await start()
    dialogue = await relay.plain()
    dialogue.send(b"BDAT 1000\r\nx")
    assert (await dialogue.read()).startswith("421 4.4.2")
    assert await dialogue.closed()


async def test_a_stranger_cannot_have_a_chunk_swallowed_without_end(relay: Any) -> None:
    dialogue = await relay.plain()
    dialogue.send(b"BDAT 99999999999999999999999\r\n")
    for _ in range(40):
        dialogue.send(b"x" * 65_000)
    assert (await dialogue.read()).startswith("530 5.7.0")
    assert await dialogue.closed()


async def test_too_much_is_refused_when_it_is_announced(start: Callable[[], Any], site: Any, eventually: Any) -> None:
    site.change(plan={"max_message_bytes": 100_000})
    relay = await start()
    dialogue = await begun(relay)
    assert (await bdat(dialogue, HEADER + b"x\r\n")).startswith("250 ")
    assert (await bdat(dialogue, b"x" * 100_000)).startswith("552 5.3.4")
    await relay.keeps_nothing()
    assert (await bdat(dialogue, b"", last=True)).startswith("552 5.3.4")
    await dialogue.say("MAIL FROM:<ana@acme.example>")
    await dialogue.say("RCPT TO:<bob@dest.example>")
    dialogue.send(b"BDAT 9999999999 LAST\r\n")
    for _ in range(40):
        dialogue.send(b"x" * 65_000)
    assert (await dialogue.read()).startswith("552 5.3.4")
    assert await dialogue.closed()


async def test_what_is_in_flight_is_capped(start: Callable[[], Any], site: Any, eventually: Any) -> None:
    site.change(limits={"max_body_bytes_in_flight": 50_000})
    relay = await start()
    dialogue = await begun(relay)
    assert (await bdat(dialogue, HEADER + (b"x" * 70 + b"\r\n") * 1000)).startswith("452 4.3.1 too much mail")
    assert (await bdat(dialogue, b"", last=True)).startswith("452 4.3.1 too much mail")
    await relay.keeps_nothing()


async def test_a_chunk_cut_off_leaves_nothing(relay: Any, eventually: Any) -> None:
    dialogue = await begun(relay)
    assert relay.reserved() == 1
    dialogue.send(b"BDAT 500000 LAST\r\n" + HEADER + (b"x" * 70 + b"\r\n") * 5000)
    await eventually(lambda: list(relay.site.spool.joinpath("incoming").iterdir()))
    dialogue.close()
    await relay.keeps_nothing()


async def test_a_chunk_that_does_not_come_is_not_waited_for_without_end(
    start: Callable[[], Any], site: Any, eventually: Any
) -> None:
    site.change(limits={"data_timeout": 0.3})
    relay = await start()
    dialogue = await begun(relay)
    dialogue.send(b"BDAT 100 LAST\r\n" + HEADER)
    assert (await dialogue.read()).startswith("421 4.4.2")
    await relay.keeps_nothing()


async def test_empty_chunks_lead_nowhere(relay: Any) -> None:
    dialogue = await begun(relay)
    dialogue.send(b"BDAT 0\r\n" * 150)
    async with asyncio.timeout(60):
        while (reply := await dialogue.read()).startswith("250 "):
            pass
    assert reply.startswith("421 4.7.0")
