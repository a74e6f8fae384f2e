"""A large message whose file the disk has spoilt: never delivered as if whole, and its sender hears of it."""

from __future__ import annotations

import os
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
