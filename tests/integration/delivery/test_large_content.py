"""Content that is sent from its file on disk, which may be large, or spoilt: a script plays the server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.integration.delivery.sessions import envelope, session

from malote_dev.mailworld.scripted import Scripted, scripted
from malote_relay.delivery.reply import Reply
from malote_relay.store.contents import Damaged, StoredFile, checksum


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
        await asyncio.wait_for(ended.wait(), 30)
    assert came
    assert b"\r\n.\r\n" not in came
