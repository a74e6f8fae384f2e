"""The world a relay under test delivers to: DNS, and a mail host that keeps account of every final reply it gave.

One host takes the mail of all domains, the sender's own included: it answers the relay's call-outs and gets the
notifications. How it answers stands in the recipient's address (`Manner`), so that whoever sends decides it.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import random
import re
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import cast

from malote_dev.mailworld.dns import DnsServer

SENDER = "app@sender.example"
DOMAINS = tuple(f"d{number}.example" for number in range(5))

_END = b"\r\n.\r\n"
_ADDRESS = re.compile(rb"<([^>]*)>")
_NUMBER = re.compile(rb"^X-Number: (\d+)\r$", re.MULTILINE)
_DIGEST = re.compile(rb"^X-Digest: ([0-9a-f]{64})\r$", re.MULTILINE)
_QUEUE_ID = re.compile(rb"^Received: by .* id ([0-9a-f]+);\r$", re.MULTILINE)
_FAILED = re.compile(rb"^Final-Recipient: rfc822; ?(\S+)\r$", re.MULTILINE)


class Manner(enum.StrEnum):
    """How the host answers for a recipient; the first part of its address."""

    TAKE = "take"
    LATER = "later"
    """451 at the first RCPT, taken at the second."""
    TAIL = "tail"
    """451 after the first time the content was sent."""
    DROP = "drop"
    """The connection is closed instead of the first reply to the content."""
    SLOW = "slow"
    """Taken, but the final reply comes late."""
    YES = "yes"
    """The first DATA is answered with 250, and nothing is asked for or kept."""
    EARLY = "early"
    """The final 250 comes with the first 354, and nothing is kept."""
    REFUSE = "refuse"
    """550 5.1.1: the sender gets a notification."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A message that the host has said its final 250 to, for one recipient; `at` by the monotonic clock."""

    at: float
    number: int
    queue_id: str
    intact: bool


@dataclass(slots=True)
class Arrivals:
    """What has come: copies by recipient, and how often each failed recipient was told of."""

    copies: dict[str, list[Copy]] = field(default_factory=lambda: defaultdict(list))
    told: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    unreadable: int = 0


class Internet:
    """DNS and the mail host, in this process. While `closed` the host answers 451 to every recipient."""

    def __init__(self, seed: int, domains: tuple[str, ...] = DOMAINS) -> None:
        self.arrivals = Arrivals()
        self.closed = False
        self.dns = DnsServer("127.0.0.1")
        self.port = 0
        self.random = random.Random(seed)
        self.put_off: set[str] = set()
        self._domains = (SENDER.partition("@")[2], *domains)
        self._server: asyncio.Server | None = None
        self.sessions: set[asyncio.Transport] = set()

    async def start(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(lambda: _Session(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        await self.dns.start()
        for domain in self._domains:
            self.dns.set(domain, "MX", f"10 mx.{domain}.", ttl=3600)
            self.dns.set(f"mx.{domain}", "A", "127.0.0.1", ttl=3600)

    async def stop(self) -> None:
        for transport in list(self.sessions):
            transport.abort()
        if self._server is not None:
            self._server.close()
        await self.dns.stop()

    async def quiet(self) -> None:
        """Wait until nobody is connected: what a relay sent before its end has been heard, and counts as its own."""
        empty = 0
        while empty < 3:  # one may still be waiting to be accepted
            empty = 0 if self.sessions else empty + 1
            await asyncio.sleep(0.01)

    def first_time(self, what: str) -> bool:
        """Whether this is asked for the first time: what is put off is put off once."""
        if what in self.put_off:
            return False
        self.put_off.add(what)
        return True

    def took(self, recipients: list[str], content: bytes) -> None:
        """The final 250 for these recipients is being sent."""
        if recipients == [SENDER]:
            for address in _FAILED.findall(content):
                self.arrivals.told[address.decode()] += 1
            return
        number, digest, queue_id = (pattern.search(content) for pattern in (_NUMBER, _DIGEST, _QUEUE_ID))
        if number is None or digest is None or queue_id is None:
            self.arrivals.unreadable += 1
            return
        body = content.partition(b"\r\n\r\n")[2].replace(b"\r\n..", b"\r\n.")
        intact = hashlib.sha256(body).hexdigest().encode() == digest[1]
        copy = Copy(time.monotonic(), int(number[1]), queue_id[1].decode(), intact)
        for recipient in recipients:
            self.arrivals.copies[recipient].append(copy)


class _Session(asyncio.Protocol):
    """One SMTP connection; commands may come several at a time (RFC 2920)."""

    def __init__(self, internet: Internet) -> None:
        self._internet = internet
        self._buffer = bytearray()
        self._searched = 0
        self._recipients: list[str] = []
        self._in_data = False
        self._early = False
        self._paused = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's derive from none of asyncio's
        self._internet.sessions.add(self._transport)
        self._transport.write(b"220 sink ESMTP\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self._internet.sessions.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._go_on()

    def _go_on(self) -> None:
        while not self._paused and not self._transport.is_closing():
            if self._in_data:
                end = self._buffer.find(_END, max(0, self._searched - len(_END)))
                if end == -1:
                    self._searched = len(self._buffer)
                    return
                content = bytes(self._buffer[: end + 2])
                del self._buffer[: end + len(_END)]
                self._in_data, self._searched = False, 0
                self._content(content)
                continue
            line, newline, rest = bytes(self._buffer).partition(b"\r\n")
            if not newline:
                return
            self._buffer[:] = rest
            self._transport.write(self._command(line))

    def _command(self, line: bytes) -> bytes:
        match line[:4].upper():
            case b"EHLO":
                return b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"
            case b"MAIL" | b"RSET":
                self._recipients = []
            case b"RCPT":
                return self._recipient(line)
            case b"DATA":
                if not self._recipients:
                    return b"554 5.5.1 no valid recipients\r\n"
                return self._data()
            case b"QUIT":
                asyncio.get_running_loop().call_soon(self._transport.close)
                return b"221 2.0.0 bye\r\n"
        return b"250 2.1.0 Ok\r\n"

    def _recipient(self, line: bytes) -> bytes:
        found = _ADDRESS.search(line)
        assert found is not None
        address = found[1].decode()
        if self._internet.closed:
            return b"451 4.3.0 closed for now\r\n"
        match address.partition("-")[0]:
            case Manner.REFUSE:
                return b"550 5.1.1 no such mailbox here\r\n"
            case Manner.LATER if self._internet.first_time(address):
                return b"451 4.7.1 come again\r\n"
        self._recipients.append(address)
        return b"250 2.1.5 Ok\r\n"

    def _data(self) -> bytes:
        manners = {address.partition("-")[0]: address for address in self._recipients}
        internet = self._internet
        if Manner.YES in manners and internet.first_time(manners[Manner.YES]):
            return b"250 2.0.0 Ok\r\n"
        self._in_data = True
        self._early = Manner.EARLY in manners and internet.first_time(manners[Manner.EARLY])
        return b"354 go ahead\r\n250 2.0.0 Ok\r\n" if self._early else b"354 go ahead\r\n"

    def _content(self, content: bytes) -> None:
        if self._early:
            return
        manners = {address.partition("-")[0]: address for address in self._recipients}
        internet = self._internet
        if Manner.DROP in manners and internet.first_time(manners[Manner.DROP]):
            self._transport.abort()
        elif Manner.TAIL in manners and internet.first_time(manners[Manner.TAIL]):
            self._transport.write(b"451 4.3.2 not now\r\n")
        elif Manner.SLOW in manners:
            self._paused = True
            delay = internet.random.uniform(0.02, 0.3)
            asyncio.get_running_loop().call_later(delay, self._late, content)
        else:
            self._take(content)

    def _late(self, content: bytes) -> None:
        self._paused = False
        if not self._transport.is_closing():
            self._take(content)
            self._go_on()

    def _take(self, content: bytes) -> None:
        self._internet.took(self._recipients, content)
        self._transport.write(b"250 2.0.0 Ok\r\n")
