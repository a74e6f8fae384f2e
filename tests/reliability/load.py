"""The load: clients that send one message after the other over TLS, and write down what was answered.

A message counts as acknowledged only when its 250 has been read. Each is numbered, and so is each of its recipients'
addresses, so that whatever arrives can be accounted for.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import re
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TypeVar

from tests.reliability.internet import DOMAINS, SENDER, Manner
from tests.reliability.site import HOST, PASSWORD, USER

_QUEUE_ID = re.compile(r"accepted as ([0-9a-f]+)")
_REPLY_SECONDS = 90.0
_LINE = 57  # octets that make a line of base64
T = TypeVar("T")


@dataclass(slots=True)
class Sent:
    """A message that was begun. `recipients` are those that RCPT took; `reply` is the answer to its content.

    `queue_id` is "" when it was not acknowledged; `at` is when the answer had been read (monotonic).
    """

    number: int
    size: int
    recipients: list[str] = field(default_factory=list)
    refused_recipients: int = 0
    reply: str = ""
    queue_id: str = ""
    at: float = 0.0

    @property
    def acknowledged(self) -> bool:
        return bool(self.queue_id)


@dataclass(frozen=True, slots=True)
class Mix:
    """What is sent: sizes with their weights, how recipients behave, and how many a message has."""

    sizes: tuple[tuple[int, int], ...] = ((5_000, 85), (40_000, 10), (400_000, 5))
    manners: tuple[tuple[Manner, int], ...] = (
        (Manner.TAKE, 66),
        (Manner.SLOW, 8),
        (Manner.LATER, 8),
        (Manner.TAIL, 4),
        (Manner.DROP, 4),
        (Manner.YES, 2),
        (Manner.EARLY, 2),
        (Manner.REFUSE, 6),
    )
    recipients: tuple[tuple[int, int], ...] = ((1, 75), (2, 15), (5, 10))
    pause: float = 0.02


class _Refused(Exception):
    """An answer other than wanted; its text is the argument."""


class Load:
    """Some sessions, each of which goes on over a new connection whenever one is lost, until `stop`."""

    def __init__(self, port: int, context: ssl.SSLContext, seed: int, mix: Mix | None = None) -> None:
        self.sent: list[Sent] = []
        self.mix = mix or Mix()
        self._port = port
        self._context = context
        self._random = random.Random(seed)
        self._block = self._random.randbytes(300_000)
        self._numbers: Iterator[int] = iter(range(1, 10_000_000))
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, sessions: int) -> None:
        self._tasks += [asyncio.create_task(self._session()) for _ in range(sessions)]

    async def stop(self) -> None:
        """Let messages under way end, then stop."""
        self._stopping = True
        await asyncio.gather(*self._tasks)
        self._tasks.clear()
        self._stopping = False

    async def _session(self) -> None:
        while not self._stopping:
            client = _Client()
            try:
                async with asyncio.timeout(_REPLY_SECONDS):
                    await client.connect(self._port, self._context)
                while not self._stopping:
                    await self._message(client)
                    await asyncio.sleep(self._random.uniform(0, 2 * self.mix.pause))
            except (OSError, EOFError, _Refused, TimeoutError):  # killed, or not yet there
                await asyncio.sleep(0.05)
            finally:
                client.abort()

    async def _message(self, client: _Client) -> None:
        sent = Sent(next(self._numbers), self._pick(self.mix.sizes))
        self.sent.append(sent)
        async with asyncio.timeout(_REPLY_SECONDS):
            reply = await client.say(f"MAIL FROM:<{SENDER}>")
            if not reply.startswith("250"):
                sent.reply = reply
                await asyncio.sleep(0.1)
                return
            for place in range(self._pick(self.mix.recipients)):
                address = f"{self._pick(self.mix.manners)}-{sent.number}-{place}@{self._random.choice(DOMAINS)}"
                if (reply := await client.say(f"RCPT TO:<{address}>")).startswith("250"):
                    sent.recipients.append(address)
                else:
                    sent.refused_recipients += 1
            if not sent.recipients:
                sent.reply = reply
                await client.say("RSET")
                await asyncio.sleep(0.1)
                return
            if not (reply := await client.say("DATA")).startswith("354"):
                sent.reply = reply
                return
            sent.reply = await client.content(self._content(sent))
            if (found := _QUEUE_ID.search(sent.reply)) and sent.reply.startswith("250"):
                sent.queue_id, sent.at = found[1], time.monotonic()

    def _content(self, sent: Sent) -> bytes:
        start = self._random.randrange(len(self._block) - 50 * _LINE)
        encoded = base64.encodebytes(self._block[start : start + 50 * _LINE]).replace(b"\n", b"\r\n")
        lines = (encoded * (sent.size // len(encoded) + 1))[: sent.size // 78 * 78]
        body = lines + b".a line that begins with a dot\r\n"
        header = (
            f"X-Number: {sent.number}\r\nX-Digest: {hashlib.sha256(body).hexdigest()}\r\n"
            f"From: <{SENDER}>\r\nTo: <{sent.recipients[0]}>\r\nSubject: number {sent.number}\r\n"
            f"Date: {formatdate()}\r\nMessage-ID: <{sent.number}@sender.example>\r\n\r\n"
        )
        return header.encode() + body.replace(b"\r\n.", b"\r\n..") + b".\r\n"

    def _pick(self, weighted: Sequence[tuple[T, int]]) -> T:
        values, weights = [value for value, _ in weighted], [weight for _, weight in weighted]
        return self._random.choices(values, weights)[0]


class _Client:
    """An SMTP client that waits for each answer. Raises OSError and EOFError when the connection is lost."""

    def __init__(self) -> None:
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self, port: int, context: ssl.SSLContext) -> None:
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=HOST
        )
        secret = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()
        for reply, wanted in (
            (await self._read(), "220"),
            (await self.say("EHLO client.example"), "250"),
            (await self.say(f"AUTH PLAIN {secret}"), "235"),
        ):
            if not reply.startswith(wanted):
                raise _Refused(reply)

    async def say(self, line: str) -> str:
        return await self.content(line.encode() + b"\r\n")

    async def content(self, octets: bytes) -> str:
        assert self._writer is not None
        self._writer.write(octets)
        await self._writer.drain()
        return await self._read()

    async def _read(self) -> str:
        assert self._reader is not None
        while line := await self._reader.readline():
            if line[3:4] != b"-":
                return line.decode().rstrip("\r\n")
        raise EOFError

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
