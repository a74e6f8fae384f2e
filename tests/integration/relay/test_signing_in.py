"""Failed sign-ins are capped per client and per account; nobody else notices."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from typing import Any

import pytest

OTHER = "127.0.0.9"


async def sign_in(relay: Any, username: str, password: str = "", *, source: str = "127.0.0.1") -> str:
    """What AUTH is answered on a connection of its own."""
    dialogue = await relay.secure(source=source)
    await dialogue.say("EHLO client.example")
    token = base64.b64encode(f"\0{username}\0{password or relay.site.password}".encode()).decode()
    answer: str = await dialogue.say(f"AUTH PLAIN {token}")
    if answer.startswith("421 "):
        assert await dialogue.closed()
    return answer[:9]


async def test_a_client_that_failed_too_often_is_turned_away_unlooked_at(start: Callable[[], Any], site: Any) -> None:
    site.change(sign_in={"max_failures_per_client": 2})
    relay = await start()
    assert [await sign_in(relay, f"nobody{n}@acme", "wrong") for n in range(2)] == ["535 5.7.8"] * 2
    begun = time.monotonic()
    assert [await sign_in(relay, name) for name in ("app@acme", "nobody@acme")] == ["421 4.7.0"] * 2
    assert time.monotonic() - begun < 0.5
    assert await sign_in(relay, "app@acme", source=OTHER) == "235 2.7.0"
    assert relay.counted("malote_messages_refused_total", reason="auth") == 2
    assert relay.counted("malote_messages_refused_total", reason="auth_capped") == 2


async def test_a_client_that_signed_in_before_is_never_turned_away(start: Callable[[], Any], site: Any) -> None:
    site.change(sign_in={"max_failures_per_client": 1, "max_failures_per_client_and_account": 1})
    relay = await start()
    assert await sign_in(relay, "app@acme") == "235 2.7.0"
    assert await sign_in(relay, "app@acme", "wrong") == "535 5.7.8"
    assert await sign_in(relay, "news@acme") == "421 4.7.0"
    assert await sign_in(relay, "app@acme") == "235 2.7.0"


async def test_an_account_under_attack_is_open_to_its_users_and_reads_like_a_name_that_does_not_exist(
    start: Callable[[], Any], site: Any
) -> None:
    site.change(sign_in={"max_failures_per_account": 1})
    relay = await start()
    for username in ("app@acme", "nobody@acme"):
        assert await sign_in(relay, username, "wrong") == "535 5.7.8"
        assert await sign_in(relay, username, "wrong") == "421 4.7.0"
    assert await sign_in(relay, "app@acme") == "421 4.7.0"
    assert await sign_in(relay, "app@acme", source=OTHER) == "235 2.7.0"


async def test_a_suspended_account_may_sign_in_and_reads_why_it_may_not_send(relay: Any) -> None:
    dialogue = await relay.signed_in("old@acme")
    assert (await dialogue.say("MAIL FROM:<ana@acme.example>")).startswith("550 5.7.1 the account old@acme is susp")


async def test_who_does_not_sign_in_has_a_limited_time_in_all(start: Callable[[], Any], site: Any) -> None:
    site.change(limits={"sign_in_timeout": 0.5})
    relay = await start()
    stranger = await relay.plain()
    reply = ""
    async with asyncio.timeout(5):
        while not reply.startswith("421 "):
            reply = await stranger.say("NOOP")
            await asyncio.sleep(0.1)
    assert reply.startswith("421 4.4.2")
    assert await stranger.closed()
    guest = await relay.signed_in()
    await asyncio.sleep(0.7)
    assert (await guest.say("NOOP")).startswith("250 ")


async def test_connections_that_never_sign_in_are_limited(start: Callable[[], Any], site: Any) -> None:
    site.change(limits={"max_connections_without_sign_in_per_minute": 3})
    relay = await start()
    relay.relay.server._admission._monotonic = lambda: 30.0
    for _ in range(5):
        (await relay.signed_in()).close()
    for _ in range(3):
        (await relay.plain()).close()
    turned_away = await relay.plain(greet=False)
    assert (await turned_away.read()).startswith("421 4.7.0 too many connections")
    assert await turned_away.closed()
    assert relay.counted("malote_messages_refused_total", reason="sessions") == 1
    (await relay.plain(source=OTHER)).close()


@pytest.mark.parametrize("named", [False, True])
async def test_received_names_the_client_only_when_configured(
    start: Callable[[], Any], site: Any, world: Any, compose: Any, named: bool
) -> None:
    site.change(trace={"client": named})
    relay = await start()
    dialogue = await relay.signed_in()
    for command in ("MAIL FROM:<ana@acme.example>", "RCPT TO:<bob@dest.example>", "DATA"):
        await dialogue.say(command)
    assert (await dialogue.say(compose() + b".\r\n")).startswith("250 ")
    [arrived] = await world.mx.wait_for(1)
    received = next(part for part in arrived.content.split(b"\r\nFrom:")[0].split(b"\r\n") if b"eceived" in part)
    assert (received == b"Received: from client.example ([127.0.0.1])") is named
    assert (b"127.0.0.1" in arrived.content) is named
    assert b"app@acme" not in arrived.content
