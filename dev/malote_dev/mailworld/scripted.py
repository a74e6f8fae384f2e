"""A mail host that says what a script says, word by word: for what no host built on a library would ever do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast


class Scripted:
    """One connection of it: what it hears and what it says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.heard: list[str] = []
        """The lines that were listened to, without their ends."""

    def say(self, *lines: str) -> None:
        """Send lines, in one piece."""
        self.writer.write("".join(f"{line}\r\n" for line in lines).encode())

    async def hear(self) -> str:
        """Listen to a line."""
        line = (await self.reader.readuntil(b"\r\n")).decode().strip()
        self.heard.append(line)
        return line

    async def hear_content(self) -> bytes:
        """Listen to all up to the final dot."""
        return await self.reader.readuntil(b"\r\n.\r\n")

    async def greet(self, *extensions: str) -> None:
        """Greet, and answer EHLO with these extensions."""
        self.say("220 mx.example ESMTP")
        await self.hear()
        self.offer(*extensions)

    def offer(self, *extensions: str) -> None:
        """The answer to EHLO."""
        *first, last = ["mx.example", *extensions]
        self.say(*(f"250-{one}" for one in first), f"250 {last}")

    async def secure(self, context: ssl.SSLContext) -> None:
        """Hear STARTTLS, agree to it, and shake hands."""
        await self.hear()
        self.say("220 go ahead")
        await self.writer.start_tls(context)

    def pause(self, octets: int = 4096) -> None:
        """Listen no more, and let the system take in little more than so many octets meanwhile."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, octets)
        cast(asyncio.Transport, self.writer.transport).pause_reading()

    async def something_came(self) -> None:
        """Wait, while paused, until there is something to listen to."""
        with socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno())) as carrier:
            carrier.setblocking(False)
            while True:
                with contextlib.suppress(BlockingIOError):
                    carrier.recv(1, socket.MSG_PEEK)
                    return
                await asyncio.sleep(0.01)

    def close(self) -> None:
        """Hang up."""
        self.writer.close()


Script = Callable[[Scripted], Awaitable[None]]
"""What it does with one connection. That the client has hung up ends it."""


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[tuple[int, list[Scripted]]]:
    """The host, listening on 127.0.0.1: its port, and its connections in their order."""
    connections: list[Scripted] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        one = Scripted(reader, writer)
        connections.append(one)
        try:
            await script(one)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], connections
