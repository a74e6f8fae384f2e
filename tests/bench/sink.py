"""Where the mail of a bench ends: a sink that costs little, counts messages by id, and keeps a sample.

A process of its own, the same for every contender; it also answers the DNS questions a relay asks to get here. Run as
``python -m tests.bench.sink --domain DOMAIN --domain DOMAIN``; says ``{"smtp": PORT, "dns": PORT}``, then takes
commands on standard input, one JSON object a line, and answers each with one:

- ``{"take": N}``: forget everything, expect N messages; answers ``{}`` at once;
- ``{"wait": SECONDS}``: answers when N different messages have come, or when the time is over.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import re
import sys
import time
from typing import Any, cast

import uvloop

from malote_dev.mailworld.dns import DnsServer

_ID = re.compile(rb"^X-Bench: (\d+)\r$", re.MULTILINE)
_END = b"\r\n.\r\n"
_MAX_SAMPLES = 30_000_000
"""Octets of samples kept."""


class Count:
    """What has come since `take`."""

    def __init__(self) -> None:
        self.take(0)

    def take(self, expected: int, samples: int = 5) -> None:
        self.expected = expected
        self.ids: set[bytes] = set()
        self.unnumbered = 0
        self.total = 0
        self.last = 0.0
        self.samples: list[bytes] = []
        self._every = max(1, expected // samples)
        self.complete = asyncio.Event()

    def add(self, content: bytes) -> None:
        self.total += 1
        if match := _ID.search(content):
            self.ids.add(match[1])
        else:
            self.unnumbered += 1
        if self.total % self._every == 0 and sum(map(len, self.samples)) + len(content) <= _MAX_SAMPLES:
            self.samples.append(content)
        if len(self.ids) >= self.expected and not self.complete.is_set():
            self.last = time.monotonic()
            self.complete.set()

    def report(self) -> dict[str, Any]:
        return {
            "distinct": len(self.ids),
            "total": self.total,
            "unnumbered": self.unnumbered,
            "last": self.last,
            "samples": [base64.b64encode(sample).decode() for sample in self.samples],
        }


class Session(asyncio.Protocol):
    """One SMTP connection: says yes to everything, several commands at a time (RFC 2920)."""

    def __init__(self, count: Count) -> None:
        self._count = count
        self._buffer = bytearray()
        self._in_data = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's derive from none of asyncio's
        self._transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        replies = []
        while True:
            if self._in_data:
                end = self._end_of_data(len(data))
                if end == -1:
                    break
                self._count.add(bytes(self._buffer[: end + 2]))
                del self._buffer[: end + len(_END)]
                self._in_data = False
                replies.append(b"250 2.0.0 Ok\r\n")
                continue
            line, newline, rest = bytes(self._buffer).partition(b"\r\n")
            if not newline:
                break
            self._buffer[:] = rest
            replies.append(self._command(line[:4].upper()))
        if replies:
            self._transport.write(b"".join(replies))

    def _end_of_data(self, new: int) -> int:
        """Where the last line of the content ends but for its CRLF; -1 when it is not there yet."""
        if self._buffer.startswith(b".\r\n"):
            return -2
        return self._buffer.find(_END, max(0, len(self._buffer) - new - len(_END)))

    def _command(self, verb: bytes) -> bytes:
        match verb:
            case b"EHLO":
                return b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"
            case b"DATA":
                self._in_data = True
                return b"354 go ahead\r\n"
            case b"QUIT":
                asyncio.get_running_loop().call_soon(self._transport.close)
                return b"221 2.0.0 bye\r\n"
        return b"250 2.1.0 Ok\r\n"


async def serve(domains: list[str]) -> None:
    loop = asyncio.get_running_loop()
    count = Count()
    server = await loop.create_server(lambda: Session(count), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    dns = DnsServer("127.0.0.1")
    await dns.start()
    for domain in domains:
        dns.set(domain, "MX", f"10 mx.{domain}.", ttl=3600)
        dns.set(f"mx.{domain}", "A", "127.0.0.1", ttl=3600)
    say({"smtp": port, "dns": dns.port})
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        if "take" in command:
            count.take(command["take"])
            say({})
        else:
            try:
                async with asyncio.timeout(command["wait"]):
                    await count.complete.wait()
            except TimeoutError:
                pass
            say(count.report())


def say(words: dict[str, Any]) -> None:
    print(json.dumps(words), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domain", action="append", required=True)
    uvloop.run(serve(parser.parse_args().domain))
