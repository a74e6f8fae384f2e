"""A large message whose file the disk has spoilt: never delivered as if whole, and its sender hears of it."""

from __future__ import annotations

import os
import sqlite3
from typing import Any

import pytest
import structlog

from malote_relay.store.model import Result

BIG = b"From: <ana@acme.example>\r\nSubject: big\r\n\r\n" + b"a line of it\r\n" * 30_000


@pytest.mark.parametrize("running", [True, False], ids=["while it waits", "before a start"])
async def test_content_cut_short_fails_and_the_sender_is_told(world: Any, running: bool) -> None:
    mx = await world.domain("shop.example")
    home = await world.domain("acme.example")
    id = await world.send("bia@shop.example", content=BIG, offer=False)
    os.truncate(world.directory / "spool" / "spool" / id, 1000)
    if not running:
        await world.reopen()
        assert (world.directory / "spool" / "quarantine" / id).stat().st_size == 1000
    await world.start()
    (outcome,) = await world.ended(1)
    assert outcome.result is Result.FAILED
    (notice,) = await home.wait_for(1)
    assert b"bia@shop.example" in notice.content
    assert b"damaged" in notice.content
    assert not mx.messages


@pytest.mark.parametrize("content", [BIG, BIG[:5000]], ids=["in a file", "in the database"])
async def test_a_bit_that_flips_on_the_disk_is_never_delivered_and_all_are_told(world: Any, content: bytes) -> None:
    """Its size is right, and no part of the file system or of SQLite complains. Another message goes on its way."""
    shop, other = await world.domain("shop.example"), await world.domain("other.example")
    home = await world.domain("acme.example")
    id = await world.send("bia@shop.example", "rui@shop.example", "eva@other.example", content=content, offer=False)
    flipped = content[:3000] + bytes([content[3000] ^ 1]) + content[3001:]
    if content is BIG:
        (world.directory / "spool" / "spool" / id).write_bytes(flipped)
    else:
        update = "UPDATE messages SET content = ?"
        await world.store.write(lambda database: database.execute(update, (flipped,)).rowcount)
    await world.reopen()  # what was just accepted is kept in memory
    sound = await world.send("bia@shop.example", content=BIG, offer=False)
    lost: list[int] = []
    with structlog.testing.capture_logs() as said:
        await world.start(lost=lost.append)
        outcomes = await world.ended(4)
    assert [(one.result, one.bounce_class) for one in outcomes if one.recipient.message_id == id] == [
        (Result.FAILED, "other")
    ] * 3
    assert sum(lost) == 3
    assert (world.directory / "spool" / "quarantine" / id).read_bytes() == flipped
    (first, *_) = [one for one in said if one["event"] == "a content is damaged"]
    assert (first["log_level"], first["message"]) == ("error", id)
    assert "another checksum" in first["what"]
    addresses = (b"bia@shop.example", b"rui@shop.example", b"eva@other.example")

    def notices() -> bytes:  # one or two of them: as the ends were written down together, or not
        return b"".join(one.content for one in home.messages)

    await world.wait(lambda: all(one in notices() for one in addresses))
    assert notices().count(b"Diagnostic-Code: x-malote; 554 5.3.0") == 3
    (message,) = await shop.wait_for(1)
    assert (message.content, other.messages) == (BIG, [])
    assert sound != id


async def test_what_an_older_release_kept_is_delivered_without_a_checksum(world: Any) -> None:
    shop = await world.domain("shop.example")
    await world.send("bia@shop.example", content=BIG, offer=False)
    await world.send("bia@shop.example", offer=False)
    await world.store.write(lambda database: database.execute("UPDATE messages SET checksum = NULL").rowcount)
    await world.reopen()
    await world.start()
    assert BIG in [one.content for one in await shop.wait_for(2)]


async def test_content_that_the_database_cannot_read_keeps_no_other_mail_from_coming_to_its_end(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page spoilt while the relay runs. The notice goes without the message: what it waits for never comes."""
    shop, home = await world.domain("shop.example"), await world.domain("acme.example")
    world.dns.set("gone.example", "MX", "0 .")
    read = world.store.content

    async def content(id: str) -> Any:
        if id == "m000001":
            raise sqlite3.DatabaseError("database disk image is malformed")
        return await read(id)

    monkeypatch.setattr(world.store, "content", content)
    await world.start()
    await world.send("bia@gone.example")
    (notice,) = await home.wait_for(1)
    assert b"no longer kept" in notice.content
    await world.send("bia@shop.example")
    await shop.wait_for(1)
    await world.ended(2)
    assert world.results() == [Result.FAILED, Result.DELIVERED]


async def test_a_notice_that_cannot_be_signed_goes_unsigned(world: Any) -> None:
    home = await world.domain("acme.example")
    world.dns.set("gone.example", "MX", "0 .")

    async def sign(domain: str, content: bytes) -> bytes:
        raise ValueError("no such key")

    await world.start(sign=sign)
    await world.send("bia@gone.example")
    (notice,) = await home.wait_for(1)
    assert notice.content.startswith(b"From: Mail Delivery System")
    await world.ended(1)
