"""A large message whose file the disk has spoilt: never delivered as if whole, and its sender hears of it."""

from __future__ import annotations

import os
import sqlite3
from typing import Any

import pytest

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
    (notice,) = await home.wait_for(1, timeout=5)
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
    (notice,) = await home.wait_for(1, timeout=5)
    assert notice.content.startswith(b"From: Mail Delivery System")
    await world.ended(1)
