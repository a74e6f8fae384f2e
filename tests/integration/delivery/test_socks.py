"""The SOCKS5 client with proxies that lack something or break the rules: a script plays the proxy."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from malote_relay.delivery.peer import Login, Proxy
from malote_relay.delivery.socks import ProxyFailed, connect

FOUR, SIX = ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("2001:db8::1")
GRANTED = b"\x05\x00\x00\x01" + bytes(6)


@asynccontextmanager
async def proxy(*answers: bytes, login: Login | None = None) -> AsyncIterator[tuple[Proxy, list[bytes]]]:
    """A proxy that gives one answer to each thing it hears, then hangs up."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            for answer in answers:
                heard.append(await reader.read(1000))
                writer.write(answer)
                await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield Proxy("127.0.0.1", listening.sockets[0].getsockname()[1], login), heard


async def test_what_is_said_follows_the_rfcs_octet_for_octet() -> None:
    async with proxy(b"\x05\x02", b"\x01\x00", GRANTED, login=Login("me", "pass")) as (one, heard):
        (await connect(one, SIX, 25)).close()
        assert heard == [
            b"\x05\x02\x00\x02",
            b"\x01\x02me\x04pass",
            b"\x05\x01\x00\x04" + SIX.packed + b"\x00\x19",
        ]
    async with proxy(b"\x05\x00", GRANTED) as (one, heard):
        (await connect(one, FOUR, 587)).close()
        assert heard == [b"\x05\x01\x00", b"\x05\x01\x00\x01\xc0\x00\x02\x01\x02\x4b"]


async def test_without_the_password_the_proxy_is_told_nothing() -> None:
    async with proxy(b"\x05\x02", b"\x01\x00", GRANTED, login=Login("me", "")) as (one, heard):
        with pytest.raises(ProxyFailed, match=r"the password for the SOCKS5 proxy .* cannot be read"):
            await connect(one, FOUR, 25)
        assert heard == [b"\x05\x02\x00\x02"]


@pytest.mark.parametrize("bound", [b"\x04" + bytes(18), b"\x03\x05proxy" + bytes(2)])
async def test_what_follows_the_answer_belongs_to_the_connection(bound: bytes) -> None:
    async with proxy(b"\x05\x00", b"\x05\x00\x00" + bound + b"220 hello") as (one, _):
        connection = await connect(one, FOUR, 25)
        assert await asyncio.get_running_loop().sock_recv(connection, 100) == b"220 hello"
        connection.close()


@pytest.mark.parametrize(
    ("code", "number"),
    [
        (2, errno.EACCES),
        (3, errno.ENETUNREACH),
        (4, errno.EHOSTUNREACH),
        (5, errno.ECONNREFUSED),
        (6, errno.ETIMEDOUT),
        (8, errno.EAFNOSUPPORT),
    ],
)
async def test_a_refusal_reads_like_the_error_of_a_direct_connection(code: int, number: int) -> None:
    async with proxy(b"\x05\x00", bytes([5, code, 0, 1]) + bytes(6)) as (one, _):
        with pytest.raises(OSError, match="says the SOCKS5 proxy") as raised:
            await connect(one, FOUR, 25)
        assert raised.value.errno == number


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "does not speak SOCKS5"),
        ([b"\x04\x00"], "does not speak SOCKS5"),
        ([b"\x05\xff"], "a way of signing in"),
        ([b"\x05\x02"], "to sign in by method 2"),
        ([b"\x05\x00", b"\x05\x01\x00\x01" + bytes(6)], "refuses with code 1"),
        ([b"\x05\x00", b"\x05\x63\x00\x01" + bytes(6)], "refuses with code 99"),
        ([b"\x05\x00", b"\x05\x00\x00"], "closed the connection"),
        ([b"\x05\x00", b""], "closed the connection"),
        ([], "closed the connection|hung up"),
    ],
)
async def test_a_proxy_that_cannot_be_used_says_nothing_about_the_destination(
    answers: list[bytes], said: str
) -> None:
    async with proxy(*answers) as (one, _):
        with pytest.raises(ProxyFailed, match=said):
            await connect(one, FOUR, 25)


async def test_a_password_that_is_refused_is_in_no_words() -> None:
    async with proxy(b"\x05\x02", b"\x01\x01", login=Login("me", "a secret")) as (one, _):
        with pytest.raises(ProxyFailed, match="refuses the user name and password") as raised:
            await connect(one, FOUR, 25)
        assert "a secret" not in str(raised.value) + repr(one)
