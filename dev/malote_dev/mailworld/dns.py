"""The DNS server of the made-up Internet: UDP and TCP, changed while it runs.

It is authoritative for everything it holds and may be asked as a recursive resolver too (RA is set). Answers
follow from `records`; this module moves them over the network: UDP answers that do not fit what the client
takes are cut with TC set, so that the client comes back over TCP (RFC 1035 section 4.2, RFC 7766, RFC 6891).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import struct
import time
from dataclasses import dataclass
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from malote_dev.mailworld.records import Failure, Records

_UDP_WITHOUT_EDNS = 512
_BIND_ATTEMPTS = 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Query:
    """What was asked: the name in lower case without its final dot, the type, "udp" or "tcp", by whom, when."""

    name: str
    rdtype: str
    transport: str
    client: str
    at: float


class DnsServer:
    """A DNS server on one address, UDP and TCP on the same port.

    `advertise` is the address written for the name servers of its zones where it differs from the one listened on.
    """

    def __init__(self, address: str = "127.0.0.1", port: int = 0, *, advertise: str = "") -> None:
        self.address = address
        self.port = port
        self.queries: list[Query] = []
        self._advertise = advertise or address
        self._records = Records()
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.add_zone(".")

    async def start(self) -> DnsServer:
        """Listen; with port 0 the system chooses one, which `port` then tells. Returns itself."""
        loop = asyncio.get_running_loop()
        for attempt in range(1, _BIND_ATTEMPTS + 1):
            self._udp, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self), local_addr=(self.address, self.port)
            )
            port = self._udp.get_extra_info("sockname")[1]
            try:
                self._tcp = await asyncio.start_server(self._serve_stream, self.address, port)
            except OSError:  # the number is free for UDP but taken for TCP
                self._udp.close()
                if self.port or attempt == _BIND_ATTEMPTS:
                    raise
            else:
                self.port = port
                break
        return self

    async def stop(self) -> None:
        """Close the sockets; calling it twice does no harm."""
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
            for writer in self._writers:
                writer.transport.abort()
            await self._tcp.wait_closed()

    async def __aenter__(self) -> DnsServer:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def set(self, name: str, rdtype: str, *values: str, ttl: int = 5) -> None:
        """Publish exactly these values; see `Records.set`."""
        self._records.set(name, rdtype, *values, ttl=ttl)

    def delete(self, name: str, rdtype: str | None = None) -> None:
        """Take the records of this type (None: every type) away."""
        self._records.delete(name, rdtype)

    def get(self, name: str, rdtype: str) -> tuple[str, ...]:
        """The values published now."""
        return self._records.get(name, rdtype)

    def fail(self, name: str, how: str | None) -> None:
        """Answer SERVFAIL or REFUSED, or not at all (TIMEOUT), for `name` and all below; None: answer again."""
        self._records.fail(name, None if how is None else Failure(how))

    def sign(self, name: str, *, signed: bool = True, unasked: bool = False) -> None:
        """Vouch for `name` and everything below it, as a validating resolver does; see `Records.sign`.

        From now on to those too who did not ask whether it is vouched for, if `unasked`.
        """
        self._records.sign(name, signed=signed)
        self._records.vouch_unasked = unasked

    def add_zone(self, zone: str) -> None:
        """Make `zone` one of its own: SOA, NS ns.ZONE, and that name's address, which is this server's."""
        host = f"ns.{zone}".rstrip(".") + "."
        # The last number is how long a negative answer may be kept (RFC 2308): short, since records change.
        self.set(zone, "SOA", f"{host} hostmaster.{host} 1 3600 600 86400 1", ttl=1)
        self.set(zone, "NS", host)
        self.set(host, "AAAA" if ipaddress.ip_address(self._advertise).version == 6 else "A", self._advertise)

    def respond(self, wire: bytes, transport: str, client: str) -> bytes | None:
        """The response to a query's octets; None: none is given."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return _format_error(wire)
        if query.flags & dns.flags.QR:
            return None  # a response: answering it could start a loop between two servers
        for question in query.question:
            name = question.name.canonicalize().to_text(omit_final_dot=True)
            rdtype = dns.rdatatype.to_text(question.rdtype)
            self.queries.append(Query(name, rdtype, transport, client, time.time()))
        response = self._records.answer(query)
        if response is None:
            return None
        if transport == "tcp":
            return response.to_wire(max_size=65_535)
        limit = max(_UDP_WITHOUT_EDNS, query.payload) if query.edns >= 0 else _UDP_WITHOUT_EDNS
        try:
            return response.to_wire(max_size=min(limit, 1232))
        except dns.exception.TooBig:
            for section in (response.answer, response.authority, response.additional):
                section.clear()
            response.flags |= dns.flags.TC
            return response.to_wire(max_size=_UDP_WITHOUT_EDNS)

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = writer.get_extra_info("peername")[0]
        self._writers.add(writer)
        try:
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                response = self.respond(await reader.readexactly(length), "tcp", client)
                if response is not None:
                    writer.write(struct.pack("!H", len(response)) + response)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            response = self._server.respond(data, "udp", addr[0])
        except Exception:  # the server goes on whatever a query does to it, and says so
            _log.exception("no answer to a query from %s", addr[0])
            return
        if response is not None and self._transport is not None:
            self._transport.sendto(response, addr)


def _format_error(wire: bytes) -> bytes | None:
    """FORMERR with the query's number, when at least a header came (RFC 1035 section 4.1.1)."""
    if len(wire) < 12 or wire[2] & 0x80:
        return None
    return wire[:2] + struct.pack("!HHHHH", 0x8000 | dns.rcode.FORMERR, 0, 0, 0, 0)
