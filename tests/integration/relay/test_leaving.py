"""Clients that leave in the middle, in every way there is: nothing of theirs stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import smtplib
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.relay.running import plain

from malote_relay.submission.session import Session

MESSAGE = b"From: Ana <ana@acme.example>\r\nSubject: x\r\n\r\nHello\r\n"


def sockets() -> int:
    """Sockets that this process has open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:
            continue
    return found


class Client:
    """A blocking TLS client in a thread of its own, that can end its connection in any way."""

    def __init__(self, relay: Any) -> None:
        self._relay = relay
        self.tls: ssl.SSLSocket

    def connect(self) -> Client:
        port = self._relay.relay.server.submissions_port
        bare = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.tls = self._relay.site.client_context().wrap_socket(bare, server_hostname="acme.smtp.example")
        self.read()
        self.say(b"EHLO client.example\r\n")
        token = plain("app@acme", self._relay.site.password)
        assert self.say(f"AUTH PLAIN {token}\r\n".encode()).startswith(b"235")
        return self

    def at_data(self) -> Client:
        self.connect()
        self.say(b"MAIL FROM:<ana@acme.example>\r\n")
        self.say(b"RCPT TO:<bob@dest.example>\r\n")
        assert self.say(b"DATA\r\n").startswith(b"354")
        return self

    def read(self) -> bytes:
        return self.tls.recv(65536)

    def say(self, octets: bytes) -> bytes:
        self.tls.sendall(octets)
        return self.read()

    def leave(self, how: str) -> None:
        match how:
            case "close_notify":  # TLS ends in order; the connection stays open until the relay ends it
                self.tls.settimeout(60)
                with contextlib.suppress(ssl.SSLError):  # a reply was on its way
                    self.tls.unwrap()
                self.tls.close()
            case "FIN":
                self.tls.shutdown(socket.SHUT_WR)
                assert self.until_end()
                self.tls.close()
            case "RST":
                self.tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.tls.close()

    def until_end(self) -> bool:
        """Read until the relay has ended the connection."""
        try:
            while self.tls.recv(65536):
                pass
        except (ssl.SSLError, ConnectionError):
            pass
        return True


async def nothing_left(relay: Any, before: int, eventually: Any) -> None:
    server, incoming = relay.relay.server, relay.site.spool / "incoming"
    await eventually(lambda: relay.reserved() == 0 and relay.counted("malote_sessions") == 0)
    await eventually(lambda: not server._sessions and not server._admission._crowd._by_client)
    await eventually(lambda: relay.relay._door.spool.in_flight == 0 and not list(incoming.iterdir()))
    await eventually(lambda: sockets() <= before)


LEAVING = pytest.mark.parametrize("how", ["close_notify", "FIN", "RST"])


@LEAVING
@pytest.mark.parametrize("content", [b"", MESSAGE, MESSAGE + b"." + b"x" * 400_000])
async def test_the_end_in_the_middle_of_data_keeps_nothing(
    relay: Any, eventually: Any, how: str, content: bytes
) -> None:
    before = sockets()

    def client() -> None:
        one = Client(relay).at_data()
        one.tls.sendall(content)
        one.leave(how)

    await asyncio.to_thread(client)
    await nothing_left(relay, before, eventually)
    assert await relay.stored() == 0


@LEAVING
async def test_the_end_right_behind_a_complete_message_keeps_all_of_it_or_nothing(
    start: Callable[[], Any], site: Any, eventually: Any, world: Any, how: str
) -> None:
    site.begin_an_hour()
    relay = await start()

    def client() -> None:
        one = Client(relay).at_data()
        one.tls.sendall(MESSAGE + b".\r\nQUIT\r\n")
        one.leave(how)

    for _ in range(5):
        await asyncio.to_thread(client)
    await eventually(lambda: relay.reserved() == 0 and relay.counted("malote_sessions") == 0)
    stored = await relay.stored()
    assert len(await world.mx.wait_for(stored)) == stored
    assert relay.counted("malote_messages_accepted_total", account="app") == stored
    await eventually(lambda: not relay.relay.server._sessions)
    assert relay.relay._door.spool.in_flight == 0


@LEAVING
async def test_the_end_between_messages_frees_the_place(relay: Any, eventually: Any, how: str) -> None:
    before = sockets()
    await asyncio.to_thread(lambda: Client(relay).connect().leave(how))
    await nothing_left(relay, before, eventually)


@pytest.mark.parametrize("how", ["close_notify", "FIN", "RST", "QUIT after STARTTLS"])
async def test_an_ended_session_waits_for_no_collector_of_cycles(relay: Any, eventually: Any, how: str) -> None:
    """Its TLS state and buffers are 300 KB, and the collector's last look may be hours away."""

    def living() -> int:
        return sum(isinstance(one, Session | ssl.SSLObject) for one in gc.get_objects())

    def client() -> None:
        if how == "QUIT after STARTTLS":
            with smtplib.SMTP("127.0.0.1", relay.relay.server.submission_port, timeout=60) as one:
                one._host = "acme.smtp.example"  # type: ignore[attr-defined]  # the name in the certificate
                one.starttls(context=relay.site.client_context())
        else:
            Client(relay).connect().leave(how)

    gc.collect()
    gc.disable()
    try:
        before = living()
        await asyncio.to_thread(client)
        await eventually(lambda: relay.counted("malote_sessions") == 0 and living() == before)
    finally:
        gc.enable()


async def test_a_client_that_does_not_hang_up_after_quit_is_cut_off(relay: Any, eventually: Any) -> None:
    before = sockets()
    one = await asyncio.to_thread(Client(relay).connect)
    await asyncio.to_thread(one.say, b"QUIT\r\n")
    await eventually(lambda: sockets() == before + 1)  # the client's own
    one.tls.close()


async def test_what_was_sent_before_the_end_is_carried_out_over_tls_too(relay: Any, world: Any) -> None:
    def client() -> None:
        one = Client(relay).at_data()
        one.tls.sendall(MESSAGE + b".\r\n")
        one.leave("FIN")

    await asyncio.to_thread(client)
    assert len(await world.mx.wait_for(1)) == 1


@pytest.mark.parametrize("starttls", [True, False])
@pytest.mark.parametrize("octets", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"])
@pytest.mark.parametrize("reset", [True, False])
async def test_the_end_before_or_in_the_handshake_frees_the_place(
    relay: Any, eventually: Any, caplog: pytest.LogCaptureFixture, starttls: bool, octets: bytes, reset: bool
) -> None:
    before = sockets()
    server = relay.relay.server

    def client() -> None:
        port = server.submission_port if starttls else server.submissions_port
        bare = socket.create_connection(("127.0.0.1", port), timeout=60)
        if starttls:
            bare.recv(1000)
            bare.sendall(b"EHLO client.example\r\n")
            bare.recv(1000)
            bare.sendall(b"STARTTLS\r\n")
            assert bare.recv(1000).startswith(b"220")
        bare.sendall(octets)
        if reset:
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        bare.close()

    await asyncio.to_thread(client)
    await nothing_left(relay, before, eventually)
    gc.collect()
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


async def test_a_silent_end_of_the_tls_port_does_not_hold_up_the_relays_end(
    start: Callable[[], Any], eventually: Any
) -> None:
    relay = await start()
    port = relay.relay.server.submissions_port
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    await eventually(lambda: relay.counted("malote_sessions") == 3)
    async with asyncio.timeout(20):  # the handshake's own time is longer
        await relay.relay.server.stop(1.0)
    assert relay.counted("malote_sessions") == 0
    for reader, writer in silent:
        async with asyncio.timeout(30):
            assert await reader.read() == b""
        writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
