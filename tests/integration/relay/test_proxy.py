"""The PROXY protocol on both ports: from configured addresses a header must come, from others none is believed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.relay.running import plain

from malote_relay.submission import listener
from malote_relay.submission.proxy import SIGNATURE

PROXY = "127.0.0.7"
V1 = b"PROXY TCP4 192.0.2.33 127.0.0.1 40000 587\r\n"
V2 = SIGNATURE + b"\x21\x11\x00\x0c" + bytes((192, 0, 2, 33)) + bytes((127, 0, 0, 1)) + b"\x9c\x40\x02\x4b"
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"


@pytest.fixture
async def relay(start: Callable[[], Any], site: Any) -> Any:
    site.change(
        listen={"proxy_networks": (f"{PROXY}/32",)}, limits={"max_sessions_per_client": 1}, trace={"client": True}
    )
    return await start()


async def over_tls(relay: Any, header: bytes, source: str = PROXY) -> bytes:
    """The greeting on the TLS port, the header being sent in clear before the handshake."""

    def connect() -> bytes:
        import socket

        port = relay.relay.server.submissions_port
        with socket.create_connection(("127.0.0.1", port), 60, (source, 0)) as plain:
            plain.sendall(header)
            context = relay.site.client_context()
            with context.wrap_socket(plain, server_hostname="acme.smtp.example") as secure:
                greeting: bytes = secure.recv(1000)
                return greeting

    try:
        return await asyncio.to_thread(connect)
    except (ssl.SSLError, ConnectionError, TimeoutError):
        return b""


def clients(relay: Any) -> list[str]:
    return [session.client for session in relay.relay.server._sessions]


@pytest.mark.parametrize(
    ("header", "client"),
    [(V1, "192.0.2.33"), (V2, "192.0.2.33"), (LOCAL, PROXY), (b"PROXY UNKNOWN\r\n", PROXY)],
)
async def test_the_header_names_the_client_on_the_starttls_port(relay: Any, header: bytes, client: str) -> None:
    await relay.secure(source=PROXY, header=header)
    assert clients(relay) == [client]
    second = await relay.plain(source=PROXY, header=header, greet=False)
    assert (await second.read()).startswith("421 4.7.0 too many sessions are open from your address")
    other = await relay.plain(source=PROXY, header=V1.replace(b"33", b"34"))
    assert (await other.say("NOOP")).startswith("250 ")


@pytest.mark.parametrize("header", [V1, V2, LOCAL, b"PROXY UNKNOWN\r\n"])
async def test_tls_begins_right_behind_the_header(relay: Any, header: bytes) -> None:
    assert (await over_tls(relay, header)).startswith(b"220 ")


async def test_the_header_may_come_octet_by_octet_and_commands_with_it(relay: Any) -> None:
    dialogue = await relay.plain(source=PROXY, greet=False)
    for octet in V2 + b"EHLO client.example\r\nNOOP\r\n":
        dialogue.send(bytes((octet,)))
        await asyncio.sleep(0.001)
    assert (await dialogue.read()).startswith("220 ")
    assert (await dialogue.read()).startswith("250-acme.smtp.example")
    assert (await dialogue.read()).startswith("250 2.0.0")


@pytest.mark.parametrize(
    "octets", [b"EHLO client.example\r\n", b"\x16\x03\x01\x02\x00\x01", SIGNATURE + b"\x31", b"PROXY "]
)
async def test_a_proxy_that_sends_no_header_is_cut_off(
    relay: Any, monkeypatch: pytest.MonkeyPatch, octets: bytes
) -> None:
    monkeypatch.setattr(listener, "_PROXY_SECONDS", 0.3)
    dialogue = await relay.plain(source=PROXY, header=octets, greet=False)
    assert await dialogue.closed()
    assert not clients(relay)
    assert await over_tls(relay, b"") == b""


async def test_nothing_is_said_before_the_header(relay: Any) -> None:
    dialogue = await relay.plain(source=PROXY, greet=False)
    with pytest.raises(TimeoutError):
        await dialogue.read(0.2)
    dialogue.send(V1)
    assert (await dialogue.read()).startswith("220 ")


@pytest.mark.parametrize("header", [V1, V2])
async def test_from_elsewhere_a_header_is_not_believed(relay: Any, header: bytes) -> None:
    dialogue = await relay.plain(header=header)
    assert (await dialogue.read()).startswith("500 5.5.2")
    assert clients(relay) == ["127.0.0.1"]
    dialogue.close()
    assert await over_tls(relay, header, "127.0.0.8") == b""


async def test_received_names_the_client_behind_the_proxy(relay: Any, world: Any, compose: Any) -> None:
    dialogue = await relay.secure(source=PROXY, header=V2)
    token = plain("app@acme", relay.site.password)
    for command in ("EHLO c.example", f"AUTH PLAIN {token}", "MAIL FROM:<ana@acme.example>"):
        await dialogue.say(command)
    for command in ("RCPT TO:<bob@dest.example>", "DATA"):
        await dialogue.say(command)
    assert (await dialogue.say(compose() + b".\r\n")).startswith("250 ")
    [arrived] = await world.mx.wait_for(1)
    assert b"Received: from c.example ([192.0.2.33])\r\n" in arrived.content


async def test_the_networks_are_reloaded(relay: Any, site: Any) -> None:
    site.change(listen={"proxy_networks": ()})
    await relay.relay._watcher.look()
    dialogue = await relay.plain(source=PROXY)
    assert (await dialogue.say("NOOP")).startswith("250 ")


async def test_connections_that_do_not_say_whose_they_are_are_bounded(
    relay: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_MAX_UNHEARD", 2)
    silent = [await relay.plain(greet=False, source=PROXY) for _ in range(2)]
    one_more = await relay.plain(greet=False, source=PROXY)
    assert await one_more.closed(4.0), "sooner than for want of a header"
    for dialogue in silent:
        dialogue.close()
    await eventually(lambda: not any(one._unheard for one in relay.relay.server._servers))
    await relay.plain(source=PROXY, header=V1)
