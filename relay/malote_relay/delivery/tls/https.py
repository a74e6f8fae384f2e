"""The small HTTPS client for policies and reports: one request a connection, to addresses that mail might go to.

What is asked for is named by whoever owns a recipient's domain, so the rules are those of delivery: names are
resolved here, internal addresses refused (`route.Policy`), the same ways out used. Redirects are not followed, and
what comes back is bounded in size and time. h11 speaks HTTP; it is loaded when first needed, which in many relays is
never.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from malote_relay.delivery.peer import Identity
from malote_relay.delivery.reach import open_socket
from malote_relay.delivery.route import Policy
from malote_relay.resolver import IPAddress, ResolverError

_READ: Final = 16 * 1024
_MAX_HEADERS: Final = 16 * 1024
_MAX_TRIES: Final = 3


class HttpsFailed(Exception):
    """No answer; `certificate` when the server's was to blame."""

    def __init__(self, words: str, *, certificate: bool = False):
        super().__init__(words)
        self.certificate = certificate


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Names(Protocol):
    """What is asked of the DNS."""

    async def addresses(self, host: str) -> tuple[IPAddress, ...]:
        """See `Resolver.addresses`."""
        ...


@dataclass(slots=True)
class Https:
    """The client. `context` gives a TLS context that verifies; all of a request takes `seconds` at most."""

    names: Names
    policy: Policy
    identity: Identity
    context: Callable[[], ssl.SSLContext]
    seconds: float = 15.0

    async def request(
        self,
        method: str,
        host: str,
        port: int,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        limit: int = 64 * 1024,
    ) -> Answer:
        """One request and its answer, whatever its status. Raises HttpsFailed."""
        try:
            async with asyncio.timeout(self.seconds):
                reader, writer = await self._connect(host, port)
                try:
                    return await _exchange(reader, writer, method, host, target, headers or {}, body, limit)
                finally:
                    writer.transport.abort()
        except TimeoutError as error:
            raise HttpsFailed(f"{host} did not answer within {self.seconds:g} s") from error
        except ssl.SSLCertVerificationError as error:
            raise HttpsFailed(
                f"{host}: its certificate is not valid: {error.verify_message}", certificate=True
            ) from error
        except OSError as error:
            raise HttpsFailed(f"{host}: {error.strerror or error}") from error

    async def _connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            found = await self.names.addresses(host)
        except ResolverError as error:
            raise HttpsFailed(str(error)) from error
        refusals = {address: self.policy.refusal(address) for address in found}
        allowed = [address for address, refusal in refusals.items() if not refusal]
        if not allowed:
            raise HttpsFailed(f"{host}: {next(iter(refusals.values()))}")
        trouble: OSError | None = None
        for address in sorted(allowed, key=lambda one: one.version)[:_MAX_TRIES]:
            try:
                async with asyncio.timeout(self.seconds / (_MAX_TRIES + 1)):
                    connection = await open_socket(address, port, self.identity)
                return await asyncio.open_connection(sock=connection, ssl=self.context(), server_hostname=host)
            except ssl.SSLError:
                raise
            except OSError as error:
                trouble = error
        raise trouble or HttpsFailed(f"{host} has no address")


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    method: str,
    host: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes,
    limit: int,
) -> Answer:
    import h11  # noqa: PLC0415  # see the module's description

    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEADERS)
    fields = [("Host", host), ("User-Agent", "malote-relay"), ("Connection", "close"), *headers.items()]
    if body:
        fields.append(("Content-Length", str(len(body))))
    try:
        request = h11.Request(method=method, target=target, headers=fields)
        writer.write(connection.send(request) or b"")
        writer.write((connection.send(h11.Data(data=body)) if body else b"") or b"")
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        await writer.drain()
        status, received, content = 0, dict[str, str](), b""
        while True:
            event: Any = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(_READ))
            elif isinstance(event, h11.Response):
                status = event.status_code
                received = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
            elif isinstance(event, h11.Data):
                content += event.data
                if len(content) > limit:
                    raise HttpsFailed(f"{host} sends more than {limit} octets")
            elif isinstance(event, h11.EndOfMessage):
                return Answer(status, received, content)
            elif isinstance(event, h11.ConnectionClosed):
                raise HttpsFailed(f"{host} closed the connection")
    except (h11.LocalProtocolError, h11.RemoteProtocolError) as error:
        raise HttpsFailed(f"{host} does not speak HTTP: {error}") from error
