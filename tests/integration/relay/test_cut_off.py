"""Clients that break off, say nothing, or do not read: what was not accepted leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

# Clients that leave, or say nothing.


@pytest.mark.parametrize("content", [b"", b"From: ana@acme.example\r\n\r\nhalf", b"x" * 50 + b"\r\n"])
async def test_a_connection_that_breaks_in_data_leaves_nothing(relay: Any, compose: Any, content: bytes) -> None:
    dialogue = await relay.at_data()
    assert relay.reserved() == 1
    dialogue.send(content)
    await asyncio.sleep(0.05)
    dialogue.close()
    await relay.keeps_nothing()
    assert (await relay.send(compose())).accepted


async def test_a_large_message_cut_off_leaves_no_file(relay: Any, eventually: Any) -> None:
    dialogue = await relay.at_data()
    dialogue.send(b"From: ana@acme.example\r\n\r\n" + (b"x" * 70 + b"\r\n") * 15_000)
    await eventually(lambda: list(relay.site.spool.joinpath("incoming").iterdir()))
    dialogue.close()
    await relay.keeps_nothing()


async def test_a_message_whose_client_leaves_while_it_is_committed_is_delivered(
    relay: Any, world: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, begun, left = relay.relay._store.accept, asyncio.Event(), asyncio.Event()

    async def slowly(message: Any) -> Any:
        begun.set()
        await left.wait()
        return await accept(message)

    monkeypatch.setattr(relay.relay._store, "accept", slowly)
    dialogue = await relay.at_data()
    dialogue.send(b"From: ana@acme.example\r\n\r\nx\r\n.\r\n")
    await begun.wait()
    [session] = relay.relay.server._sessions
    dialogue.close()
    await eventually(lambda: session.transport is None)
    left.set()
    [arrived] = await world.mx.wait_for(1)
    assert arrived.recipients == ("bob@dest.example",)
    assert relay.counted("malote_messages_accepted_total", account="app") == 1


@pytest.mark.parametrize("end", ["RSET", "EHLO client.example", "QUIT"])
async def test_units_go_back_when_a_transaction_is_given_up(relay: Any, end: str) -> None:
    dialogue = await relay.signed_in()
    await dialogue.say("MAIL FROM:<ana@acme.example>")
    await dialogue.say("RCPT TO:<bob@dest.example>")
    assert relay.reserved() == 1
    await dialogue.say(end)
    await relay.keeps_nothing()


async def test_a_client_that_never_speaks_is_cut_off(start: Callable[[], Any], site: Any) -> None:
    site.change(limits={"command_timeout": 0.3})
    relay = await start()
    silent = await relay.plain()
    assert (await silent.read()).startswith("421 4.4.2")
    assert await silent.closed()
    dripping = await relay.plain()

    async def drip() -> None:
        while not dripping.writer.transport.is_closing():
            dripping.send(b"N")
            await asyncio.sleep(0.05)

    drips = asyncio.create_task(drip())
    assert (await dripping.read()).startswith("421 4.4.2")
    drips.cancel()
    site.change(limits={"command_timeout": 10.0, "data_timeout": 0.3})
    await relay.relay._watcher.look()
    sending = await relay.at_data()
    sending.send(b"From: ana@acme.example\r\n")
    assert (await sending.read()).startswith("421 4.4.2")
    await relay.keeps_nothing()


async def test_a_client_that_shuts_its_side_still_gets_its_replies(relay: Any) -> None:
    dialogue = await relay.plain()
    dialogue.send(b"EHLO client.example\r\nNOOP\r\nQUIT\r\n")
    dialogue.writer.write_eof()
    assert (await dialogue.read()).startswith("250-acme.smtp.example")
    assert await dialogue.read() == "250 2.0.0 OK"
    assert (await dialogue.read()).startswith("221 2.0.0")


async def test_a_client_that_does_not_read_its_replies_does_not_fill_the_memory(relay: Any) -> None:
    dialogue = await relay.plain()
    for _ in range(200):
        dialogue.send(b"HELP\r\n" * 2000)
    await asyncio.sleep(0.3)
    [session] = relay.relay.server._sessions or [None]
    assert session is None or len(session._incoming) < 2_000_000
