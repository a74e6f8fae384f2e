"""A SOCKS5 proxy of the made-up Internet (RFC 1928, RFC 1929): it connects, and remembers whom it was asked for."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import struct
from dataclasses import dataclass

_LENGTHS = {1: 4, 4: 16}


@dataclass(frozen=True, slots=True)
class Asked:
    """A connection asked for, and as whom ("" for nobody)."""

    address: str
    port: int
    username: str


class SocksProxy:
    """A proxy on one address. `refuse` maps an address to a reply code other than success (RFC 1928 section 6)."""

    def __init__(self, address: str = "127.0.0.1", *, login: tuple[str, str] | None = None) -> None:
        self.address = address
        self.port = 0
        self.login = login
        self.refuse: dict[str, int] = {}
        self.asked: list[Asked] = []
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> SocksProxy:
        self._server = await asyncio.start_server(self._serve, self.address, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Hang up on everybody and listen no more."""
        if self._server is not None:
            self._server.close()
            for writer in self._open:
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await self._talk(reader, writer)
        self._open.discard(writer)
        writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        wanted = 2 if self.login else 0
        writer.write(bytes([5, wanted if wanted in methods else 0xFF]))
        if wanted not in methods:
            return
        username = ""
        if self.login:
            _, length = await reader.readexactly(2)
            username = (await reader.readexactly(length)).decode()
            (length,) = await reader.readexactly(1)
            password = (await reader.readexactly(length)).decode()
            right = (username, password) == self.login
            writer.write(bytes([1, 0 if right else 1]))
            if not right:
                return
        *_, kind = await reader.readexactly(4)
        address = str(ipaddress.ip_address(await reader.readexactly(_LENGTHS[kind])))
        (port,) = struct.unpack("!H", await reader.readexactly(2))
        self.asked.append(Asked(address, port, username))
        code = self.refuse.get(address, 0)
        there = None
        if not code:
            try:
                there = await asyncio.open_connection(address, port)
            except OSError:
                code = 5
        writer.write(struct.pack("!BBBB", 5, code, 0, 1) + bytes(6))
        if there is not None:
            self._open.add(there[1])
            await asyncio.gather(_carry(reader, there[1]), _carry(there[0], writer))
            self._open.discard(there[1])


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
