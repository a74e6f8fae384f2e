"""The port that takes bounces in: its dialogue, its limits, its end."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.relay.bounces.reports import bring, dsn, sent, told

from malote_relay.bounces import intake, server, session
from malote_relay.bounces.intake import FEEDBACK
from malote_relay.bounces.text import Kind


async def test_a_message_is_bounded_and_its_form_does_not_matter(relay: Any, site: Any, compose: Any) -> None:
    (message,) = await sent(relay, site, compose)
    assert (await bring(relay, message.mail_from, b"x" * 500_000))[0] == 552
    long = dsn("bob@dest.example") + b"y" * 300_000 + b"\r\n"
    assert (await bring(relay, message.mail_from, long))[0] == 250
    assert len(await told(relay)) == 1


async def test_a_client_that_sends_too_often_is_put_off(
    relay: Any, site: Any, compose: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_MINUTE", 1e9)  # none begins during the test
    (message,) = await sent(relay, site, compose)
    site.change(bounces={"max_messages_per_client_per_minute": 2})
    await relay.relay._watcher.look()
    codes = [(await bring(relay, message.mail_from, b"Subject: x\r\n\r\n"))[0] for _ in range(4)]
    assert codes[-1] == 450


async def test_a_client_has_only_so_many_sessions(relay: Any, site: Any) -> None:
    site.change(bounces={"max_sessions_per_client": 2})
    await relay.relay._watcher.look()
    pairs = [await asyncio.open_connection("127.0.0.1", relay.relay.bounces.port) for _ in range(3)]
    greetings = [(await reader.readline())[:3] for reader, _ in pairs]
    for _, writer in pairs:
        writer.close()
    assert greetings == [b"220", b"220", b"421"]


async def test_the_dialogue_is_pipelined_strict_and_offers_what_works(relay: Any, site: Any, compose: Any) -> None:
    (message,) = await sent(relay, site, compose)
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.relay.bounces.port)
    assert (await reader.readline()).startswith(b"220 out.acme.smtp.example ESMTP")
    commands = (
        b"MAIL FROM:<>\r\nEHLO mx.dest.example\r\nAUTH PLAIN AAAA\r\nRCPT TO:<x@y.example>\r\nMAIL FROM:<> SIZE=1\r\n"
        b"RCPT TO:<" + message.mail_from.encode() + b">\r\nDATA\r\n"
    )
    writer.write(commands + dsn("bob@dest.example") + b"\n.\nMAIL FROM:<>\n\r\n.\r\nQUIT\r\n")
    lines = (await reader.read()).decode().split("\r\n")
    codes = [line[:4] for line in lines if line]
    assert codes == ["503 ", *["250-"] * 6, "250 ", "500 ", "503 ", "250 ", "250 ", "354 ", "250 ", "221 "]
    offered = {line[4:].split(" ")[0] for line in lines[2:8]}
    assert offered == {"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "STARTTLS", "ENHANCEDSTATUSCODES"}
    assert len(await told(relay)) == 1
    writer.close()


async def test_the_port_stays_closed_unless_it_is_asked_for(start: Callable[[], Any]) -> None:
    running = await start()
    assert running.relay.bounces.port == 0


async def test_stopping_lets_a_bounce_under_way_finish(relay: Any, site: Any, compose: Any) -> None:
    (message,) = await sent(relay, site, compose)
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.relay.bounces.port)
    writer.write(b"EHLO mx\r\nMAIL FROM:<>\r\nRCPT TO:<" + message.mail_from.encode() + b">\r\nDATA\r\n")
    while b"354" not in (line := await reader.readline()):
        assert line
    stopping = asyncio.create_task(relay.relay.bounces.stop(30.0))
    await asyncio.sleep(0.05)
    writer.write(dsn("bob@dest.example") + b".\r\n")
    assert (await reader.readline()).startswith(b"250 2.0.0 taken in")
    assert (await reader.readline()).startswith(b"421 4.3.2")
    await stopping
    assert len(await told(relay)) == 1
    writer.close()


async def test_a_session_ends_after_a_while_also_with_a_transaction_open(
    relay: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.relay.bounces.port)
    writer.write(b"HELO mx.dest.example\r\nMAIL FROM:<>\r\n")
    answers = [(await reader.readline())[:3] for _ in range(3)]
    monkeypatch.setattr(session, "MAX_SECONDS", -1.0)  # the loop's clock may not have moved yet
    writer.write(b"NOOP\r\n")
    answers += [line[:3] for line in (await asyncio.wait_for(reader.read(), 30.0)).splitlines()]
    assert answers == [b"220", b"250", b"250", b"250", b"421"]
    writer.close()


async def test_a_client_that_reads_nothing_before_tls_is_not_waited_for_without_end(
    relay: Any, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_HANDSHAKE_SECONDS", 0.3)
    with socket.socket(fileno=os.dup(relay.relay.bounces._server.sockets[0].fileno())) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the loopback's takes more than a network's
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.connect(("127.0.0.1", relay.relay.bounces.port))
        client.sendall(b"EHLO a.example\r\n" * (session.MAX_COMMANDS - 1) + b"STARTTLS\r\n")
        await eventually(lambda: any(one._paused for one in relay.relay.bounces._sessions))
        await eventually(lambda: not relay.relay.bounces._sessions)


async def test_messages_are_read_one_at_a_time(relay: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of many threads that read takes its turn of the interpreter's lock from whoever serves clients."""
    lock, counts = threading.Lock(), [0]

    def understood(content: bytes) -> Kind:
        with lock:
            counts.append(counts[-1] + 1)
        time.sleep(0.02)
        with lock:
            counts.append(counts[-1] - 1)
        return Kind.UNKNOWN

    monkeypatch.setattr(intake, "understood", understood)
    await asyncio.gather(*(relay.relay._intake.take(FEEDBACK, b"Subject: x\r\n\r\n") for _ in range(8)))
    assert (len(counts), max(counts)) == (17, 1)
