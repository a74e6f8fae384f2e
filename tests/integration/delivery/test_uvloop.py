"""The same on the event loop that the relay runs on: its transports and TLS are code of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvloop

from malote_dev.mailworld.behaviour import TlsMode


@pytest.mark.parametrize("mode", [TlsMode.GOOD, TlsMode.NONE, TlsMode.BROKEN])
def test_small_and_large_messages_arrive_over_one_connection(make_world: Any, mode: TlsMode) -> None:
    async def scenario() -> None:
        async with make_world() as world:
            mx = await world.domain("shop.example")
            mx.tls = mode
            await world.start(max_connections_per_destination=1)
            large = b"Subject: large\r\n\r\n" + (b"." + b"x" * 900 + b"\r\n") * 2000
            await world.send("bia@shop.example")
            await world.send("bia@shop.example", content=large)
            await world.send("bia@shop.example")
            messages = await mx.wait_for(3)
            assert messages[1].content == large
            assert {bool(message.tls) for message in messages} == {mode is TlsMode.GOOD}
            assert len({message.connection for message in messages}) == 1

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
