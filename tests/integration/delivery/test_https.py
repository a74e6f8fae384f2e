"""The HTTPS client with servers of every kind: bounded in time and size, and never led elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from malote_dev.mailworld.certificates import CertificateAuthority
from malote_relay.delivery.peer import Identity
from malote_relay.delivery.reach import open_socket
from malote_relay.delivery.route import Policy
from malote_relay.delivery.tls import https
from malote_relay.delivery.tls.https import Answer, Https, HttpsFailed
from malote_relay.resolver import IPAddress, NoSuchDomain

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


class Names:
    async def addresses(self, host: str) -> tuple[IPAddress, ...]:
        if host != "web.example":
            raise NoSuchDomain(f"{host} does not exist")
        return (ipaddress.ip_address("127.0.0.1"),)


@asynccontextmanager
async def server(authority: CertificateAuthority, script: Script) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await script(reader, writer)
        writer.close()

    context = authority.server_context(["web.example"])
    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


def client(authority: CertificateAuthority, seconds: float = 30.0, policy: Policy | None = None) -> Https:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    return Https(
        Names(), policy or Policy(allow_networks=LOOPBACK), Identity("relay.example"), lambda: context, seconds
    )


def says(*parts: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return script


async def get(authority: CertificateAuthority, script: Script, seconds: float = 30.0) -> Answer:
    async with server(authority, script) as port:
        return await client(authority, seconds).request("GET", "web.example", port, "/", limit=1000)


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-TYPE: text/plain\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
    ],
    ids=["length", "chunked", "until the end", "continue"],
)
async def test_an_answer_is_read_however_it_is_framed(authority: CertificateAuthority, response: bytes) -> None:
    answer = await get(authority, says(response))
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "text/plain", b"hello")


async def test_a_redirect_is_an_answer_and_not_followed(authority: CertificateAuthority) -> None:
    redirect = b"HTTP/1.1 302 Found\r\nLocation: https://web.example/other\r\nContent-Length: 0\r\n\r\n"
    assert (await get(authority, says(redirect))).status == 302


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000, "more than 1000 octets"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000, "more than 1000 octets"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "does not speak HTTP"),
        (b"220 web.example ESMTP\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", "does not speak HTTP"),
        (b"", "does not speak HTTP|closed the connection"),
    ],
    ids=["too long", "endless", "headers", "smtp", "cut short", "nothing"],
)
async def test_what_is_no_answer_is_said_to_be_none(
    authority: CertificateAuthority, response: bytes, said: str
) -> None:
    with pytest.raises(HttpsFailed, match=said):
        await get(authority, says(response))


async def test_a_server_that_takes_its_time_is_not_waited_for(authority: CertificateAuthority) -> None:
    async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
        for _ in range(500):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    with pytest.raises(HttpsFailed, match=r"did not answer within 0\.3 s"):
        await get(authority, drips, seconds=0.3)


async def test_nobody_inside_nobody_unknown_and_nobody_with_a_bad_certificate_is_talked_to(
    authority: CertificateAuthority,
) -> None:
    heard: list[bytes] = []

    async def listens(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(b"a request")

    async with server(authority, listens) as port:
        with pytest.raises(HttpsFailed, match="not a public address"):
            await client(authority, policy=Policy()).request("GET", "web.example", port, "/")
        with pytest.raises(HttpsFailed, match="does not exist"):
            await client(authority).request("GET", "gone.example", port, "/")
        with pytest.raises(HttpsFailed) as raised:
            await client(CertificateAuthority("Another")).request("GET", "web.example", port, "/")
        assert raised.value.certificate
    with pytest.raises(HttpsFailed, match="refused"):
        await client(authority).request("GET", "web.example", port, "/")
    assert heard == []


async def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, alive = (ipaddress.ip_address(one) for one in ("127.9.9.9", "127.0.0.1"))

    async def open_or_wait(address: IPAddress, port: int, identity: Identity) -> socket.socket:
        if address == dead:
            await asyncio.Event().wait()
        return await open_socket(address, port, identity)

    async def both(self: Names, host: str) -> tuple[IPAddress, ...]:
        return dead, alive

    monkeypatch.setattr(https, "open_socket", open_or_wait)
    monkeypatch.setattr(Names, "addresses", both)
    script = says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert (await get(authority, script, seconds=10.0)).body == b"ok"
