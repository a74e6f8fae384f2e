"""The load of a bench: sessions that send one message after the other over kept connections.

A process of its own, the same for every contender: one command, one reply, as clients do (no pipelining). Run as
``python -m tests.bench.load --port P --sessions S --messages N --size BYTES --from A --to B``, with ``--tls CA.pem``
for TLS and ``--user U`` for AUTH; the password comes in the environment (BENCH_PASSWORD). Connects, logs in, and only
then starts the clock. Says ``{"start": …, "end": …, "accepted": N}`` (monotonic clock), or ``{"error": …}`` with the
reply that was not expected.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import ssl
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import cast

import uvloop


class Unexpected(Exception):
    """The other side said something else than it should."""


class Session(asyncio.Protocol):
    """A client connection: `command` sends and gives the reply."""

    def __init__(self) -> None:
        self._reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._lines = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's derive from none of asyncio's

    def data_received(self, data: bytes) -> None:
        self._lines += data
        if not self._lines.endswith(b"\r\n") or self._lines[self._lines.rfind(b"\r\n", 0, -2) + 2 :][3:4] == b"-":
            return
        reply, self._lines = self._lines, b""
        if not self._reply.done():
            self._reply.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._reply.done():
            self._reply.set_exception(Unexpected("the connection was closed"))

    async def expect(self, code: bytes) -> None:
        reply = await self._reply
        self._reply = asyncio.get_running_loop().create_future()
        if not reply.startswith(code):
            raise Unexpected(f"instead of {code.decode()}: {reply.decode(errors='replace').strip()}")

    async def command(self, octets: bytes, code: bytes) -> None:
        self._transport.write(octets)
        await self.expect(code)

    def close(self) -> None:
        self._transport.write(b"QUIT\r\n")
        self._transport.close()


def content(size: int, sender: str, recipient: str) -> tuple[bytes, bytes]:
    """What comes before and after a message's number; `size` bytes in all."""
    before = b"X-Bench: "
    after = (
        f"\r\nMessage-ID: <bench@{sender}>\r\nFrom: Bench <{sender}>\r\nTo: <{recipient}>\r\n"
        "Subject: A message of ordinary size\r\n"
        f"Date: {formatdate()}\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
    ).encode()
    line = b"The quick brown fox jumps over the lazy dog, and then it rests a while.\r\n"
    missing = size - len(before) - len(after) - 6
    body = line * (missing // len(line)) + b"x" * max(0, missing % len(line) - 2) + b"\r\n"
    return before, after + body


async def sender(session: Session, numbers: Iterator[int], options: argparse.Namespace) -> int:
    before, after = content(options.size, options.sender, options.to)
    mail = f"MAIL FROM:<{options.sender}>\r\n".encode()
    rcpt = f"RCPT TO:<{options.to}>\r\n".encode()
    accepted = 0
    for number in numbers:
        await session.command(mail, b"250")
        await session.command(rcpt, b"250")
        await session.command(b"DATA\r\n", b"354")
        await session.command(b"%s%d%s.\r\n" % (before, number, after), b"250")
        accepted += 1
    return accepted


async def connect(options: argparse.Namespace) -> Session:
    context = ssl.create_default_context(cafile=options.tls) if options.tls else None
    name = options.name if context else None
    _, session = await asyncio.get_running_loop().create_connection(
        Session, "127.0.0.1", options.port, ssl=context, server_hostname=name
    )
    await session.expect(b"220")
    await session.command(b"EHLO bench.example\r\n", b"250")
    if options.user:
        secret = base64.b64encode(f"\0{options.user}\0{os.environ['BENCH_PASSWORD']}".encode())
        await session.command(b"AUTH PLAIN " + secret + b"\r\n", b"235")
    return session


async def run(options: argparse.Namespace) -> dict[str, float]:
    sessions = await asyncio.gather(*(connect(options) for _ in range(options.sessions)))
    numbers = iter(range(options.messages))
    start = time.monotonic()
    accepted = await asyncio.gather(*(sender(session, numbers, options) for session in sessions))
    end = time.monotonic()
    for session in sessions:
        session.close()
    return {"start": start, "end": end, "accepted": sum(accepted)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for number in ("port", "sessions", "messages", "size"):
        parser.add_argument(f"--{number}", type=int, required=True)
    parser.add_argument("--from", dest="sender", required=True)
    parser.add_argument("--to", required=True)
    parser.add_argument("--tls", default="", help="the file of the authority that issued the server's certificate")
    parser.add_argument("--name", default="", help="the name in the certificate")
    parser.add_argument("--user", default="")
    try:
        print(json.dumps(uvloop.run(run(parser.parse_args()))))
    except (Unexpected, OSError) as error:
        print(json.dumps({"error": str(error)}))
        sys.exit(1)
