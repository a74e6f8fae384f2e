"""The web server of the made-up Internet: MTA-STS policies by host name (RFC 8461), TLS reports taken (RFC 8460)."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from malote_dev.mailworld.certificates import CertificateAuthority


@dataclass(slots=True)
class Page:
    """What a host answers with."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "text/plain"})
    gate: asyncio.Event | None = None
    """Nothing is answered before it is set."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A request: "GET /path", the host asked for, its body and headers (names in lower case)."""

    request: str
    host: str
    body: bytes
    headers: dict[str, str]


class WebServer:
    """An HTTPS server on one address; `pages` by host name, in lower case. Its certificate is for `names`."""

    def __init__(self, authority: CertificateAuthority, names: list[str], address: str = "127.0.0.1") -> None:
        self.address = address
        self.port = 0
        self.pages: dict[str, Page] = {}
        self.visits: list[Visit] = []
        self.context = authority.server_context(names)
        self._server: asyncio.Server | None = None

    async def start(self) -> WebServer:
        """Listen on a port that `port` then tells; the same again after a stop. Returns itself."""
        self._server = await asyncio.start_server(self._serve, self.address, self.port, ssl=self.context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Listen no more; harmless when not listening."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            host = headers.get("host", "").lower()
            self.visits.append(Visit(head.rpartition(" ")[0], host, body, headers))
            page = self.pages.get(host, Page(status=404))
            if page.gate is not None:
                await page.gate.wait()
            fields = "".join(f"{name}: {value}\r\n" for name, value in page.headers.items())
            start = f"HTTP/1.1 {page.status} x\r\n{fields}Content-Length: {len(page.body)}\r\n\r\n"
            writer.write(start.encode() + page.body)
            await writer.drain()
        writer.close()
