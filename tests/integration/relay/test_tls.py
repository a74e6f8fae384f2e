"""Handshakes on both ports, on the event loop of the relay's process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from malote_relay.submission import listener
from malote_relay.submission.server import tls_context


async def test_these_tests_run_on_the_event_loop_of_the_process() -> None:
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)


async def greeted(relay: Any, port: int, address: str = "127.0.0.1") -> bool:
    """Whether a client that speaks TLS at once is greeted."""
    reader, writer = await asyncio.open_connection(
        address, port, ssl=relay.site.client_context(), server_hostname="acme.smtp.example"
    )
    greeting = await reader.readline()
    writer.transport.abort()
    return greeting.startswith(b"220 ")


async def test_no_handshake_on_the_tls_port_hangs(relay: Any) -> None:
    port = relay.relay.server.submissions_port
    async with asyncio.timeout(120):
        assert all([await greeted(relay, port) for _ in range(60)])
        assert all(await asyncio.gather(*(greeted(relay, port) for _ in range(40))))


async def test_no_handshake_with_the_process_hangs(program: Any) -> None:
    await program.start()
    async with asyncio.timeout(120):
        assert all(await asyncio.gather(*(greeted(program, program.ports["submissions"]) for _ in range(40))))


async def test_the_tls_port_answers_on_every_family(start: Callable[[], Any], site: Any) -> None:
    site.change(listen={"address": ""})
    relay = await start()
    port = relay.relay.server.submissions_port
    assert await greeted(relay, port)
    if socket.has_dualstack_ipv6():
        assert await greeted(relay, port, "::1")


async def test_accepting_goes_on_after_a_connection_that_could_not_be_taken(
    relay: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from malote_relay.submission import server

    def broken(*_: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(server, "Session", broken)
        assert await (await relay.plain(greet=False)).closed()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await greeted(relay, relay.relay.server.submissions_port)
    assert await greeted(relay, relay.relay.server.submissions_port)
    assert (await (await relay.plain()).say("NOOP")).startswith("250 ")


async def test_a_family_that_is_switched_off_is_done_without(
    start: Callable[[], Any], site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = listener._bound_socket

    def no_ipv6(family: int, *rest: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return create(family, *rest)

    monkeypatch.setattr(listener, "_bound_socket", no_ipv6)
    site.change(listen={"address": ""})
    relay = await start()
    assert await greeted(relay, relay.relay.server.submissions_port)
    assert (await (await relay.plain()).say("NOOP")).startswith("250 ")


async def test_accepting_goes_on_after_no_file_descriptor_was_left(
    start: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    accept, failures = loop.sock_accept, [errno.EMFILE, errno.ECONNABORTED, errno.ENFILE]

    async def sock_accept(listening: socket.socket) -> Any:
        if failures:
            raise OSError(failures.pop(), "no more")
        return await accept(listening)

    monkeypatch.setattr(loop, "sock_accept", sock_accept)
    monkeypatch.setattr(listener, "_PAUSE_SECONDS", 0.05)
    relay = await start()
    async with asyncio.timeout(60):
        assert await greeted(relay, relay.relay.server.submissions_port)
    assert not failures


async def test_what_comes_right_behind_the_handshake_is_read(relay: Any) -> None:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", relay.relay.server.submissions_port, ssl=relay.site.client_context(),
        server_hostname="acme.smtp.example",
    )  # fmt: skip
    writer.write(b"EHLO client.example\r\nNOOP\r\nQUIT\r\n")
    async with asyncio.timeout(60):
        answers = (await reader.read()).decode().splitlines()
    assert [line[:4] for line in answers if line[3] == " "] == ["220 ", "250 ", "250 ", "221 "]
    writer.close()


async def test_clear_text_on_the_tls_port_ends_the_connection_and_frees_its_place(
    start: Callable[[], Any], site: Any, eventually: Callable[..., Any]
) -> None:
    site.change(limits={"max_sessions_per_client": 1})
    relay = await start()
    port = relay.relay.server.submissions_port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"EHLO client.example\r\n")
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(20):
            await reader.read()
    writer.close()
    await eventually(lambda: relay.counted("malote_sessions") == 0)
    assert await greeted(relay, port)


async def test_a_client_that_never_begins_its_handshake_counts_to_the_limits(
    start: Callable[[], Any], site: Any
) -> None:
    site.change(limits={"max_sessions_per_client": 1})
    relay = await start()
    port = relay.relay.server.submissions_port
    _, silent = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.sleep(0.1)
    reader, _ = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(20):
        assert await reader.read() == b""
    silent.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_tls_is_refused(relay: Any) -> None:
    context = relay.site.client_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    dialogue = await relay.plain()
    await dialogue.say("EHLO client.example")
    await dialogue.say("STARTTLS")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await dialogue.writer.start_tls(context, server_hostname="acme.smtp.example")


@pytest.mark.parametrize(
    "suite", ["ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA"]
)
async def test_a_client_that_knows_only_cbc_suites_is_served(relay: Any, suite: str) -> None:
    assert await agreed(relay, suite) == suite


async def test_a_client_that_knows_better_suites_gets_one(relay: Any) -> None:
    assert "GCM" in await agreed(relay, "ECDHE+AES")
    assert "GCM" in await agreed(relay, "ECDHE-ECDSA-AES256-SHA:ECDHE-ECDSA-AES128-GCM-SHA256")


def test_every_suite_keeps_the_past_secret_and_the_cbc_suites_stand_last(site: Any) -> None:
    suites = [suite["name"] for suite in tls_context(site.directory).get_ciphers()]
    assert all(name.startswith(("TLS_", "ECDHE-")) for name in suites)
    modern = [any(mark in name for mark in ("GCM", "POLY1305")) for name in suites]
    assert modern == sorted(modern, reverse=True)
    assert not all(modern)


async def agreed(relay: Any, suites: str) -> str:
    """The TLS 1.2 suite used with a client that offers these."""
    context = relay.site.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(suites)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", relay.relay.server.submissions_port, ssl=context, server_hostname="acme.smtp.example"
    )
    assert (await reader.readline()).startswith(b"220 ")
    writer.transport.abort()
    return str(writer.get_extra_info("cipher")[0])


def resumed(port: int, context: ssl.SSLContext) -> bool:
    """Whether a second connection goes on with the first one's TLS session."""
    session: ssl.SSLSession | None = None
    for _ in range(2):
        with (
            socket.create_connection(("127.0.0.1", port), 60) as plain,
            context.wrap_socket(plain, server_hostname="acme.smtp.example", session=session) as secure,
        ):
            assert secure.recv(1000).startswith(b"220 ")
            session, reused = secure.session, secure.session_reused
    return bool(reused)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_that_comes_back_need_not_shake_hands_in_full(relay: Any, version: ssl.TLSVersion) -> None:
    context = relay.site.client_context()
    context.minimum_version = context.maximum_version = version
    assert await asyncio.to_thread(resumed, relay.relay.server.submissions_port, context)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_old_tls_is_refused_by_the_relay_on_the_tls_port(relay: Any, version: ssl.TLSVersion) -> None:
    context = relay.site.client_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with pytest.raises(ConnectionError):  # an SSLError would be the client's own
        await asyncio.open_connection(
            "127.0.0.1", relay.relay.server.submissions_port, ssl=context, server_hostname="acme.smtp.example"
        )
