"""A listener: connections accepted bare, then told apart, admitted and, where it says so, turned to TLS.

The event loop's own TLS listener begins the handshake before anybody can be asked whether there is room for one
more client, and keeps the certificate it was made with. Here a connection is accepted bare, a proxy's header is read
(`proxy`), `admit` is asked, and the handshake is done with the certificate in force (RFC 8314 section 3.3). Accepting
bare and turning to TLS in the protocol is no way: uvloop reads at once what a client sends, and a ClientHello that
came before the turn would be lost.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import structlog

from malote_relay.config import Listen
from malote_relay.submission.client import is_in
from malote_relay.submission.proxy import ProxyError, missing, source

_PAUSE_SECONDS: Final = 1.0
_HANDSHAKE_SECONDS: Final = 30.0
_PROXY_SECONDS: Final = 5.0
"""A proxy sends its header with the first packet; this leaves room for one that is lost and sent again."""

_MAX_UNHEARD: Final = 1000
"""Connections from proxies that have yet to say whose they are: nobody counts them so far."""

_NO_SUCH_FAMILY: Final = frozenset((errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL))

P = TypeVar("P", bound=asyncio.Protocol)
Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]

_log = structlog.get_logger("malote.submission")


class Listener(Generic[P]):
    """Accepts connections, over TLS when it has a `context`, until it is closed.

    `admit` is given the client's address for each connection, and gives its protocol, or None when the connection is
    to be closed at once. `failed` is given a protocol whose handshake failed: nothing else of it was called.
    Connections from `proxies` must begin with a PROXY header, which names the client.
    """

    def __init__(
        self,
        context: Callable[[], ssl.SSLContext] | None,
        admit: Callable[[str], P | None],
        failed: Callable[[P], None],
        proxies: Callable[[], Networks],
    ) -> None:
        self._context = context
        self._admit = admit
        self._failed = failed
        self._proxies = proxies
        self._tasks: set[asyncio.Task[None]] = set()
        self._unheard = 0

    def start(self, sockets: Sequence[socket.socket], backlog: int) -> None:
        """Listen on sockets that are bound. Raises OSError."""
        for one in sockets:
            one.listen(backlog)
            self._spawn(self._accept(one))

    async def close(self) -> None:
        """Stop listening, and break off the handshakes under way."""
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    connection, peer = await loop.sock_accept(listener)
                except ConnectionError:  # the client has gone already
                    continue
                except OSError as error:  # no file descriptor or memory is left: the client waits in the backlog
                    _log.error("a connection cannot be accepted", error=str(error))
                    await asyncio.sleep(_PAUSE_SECONDS)
                    continue
                proxies = self._proxies()
                if proxies and is_in(peer[0], proxies):
                    if self._unheard >= _MAX_UNHEARD:
                        connection.close()
                        continue
                    self._unheard += 1
                    self._spawn(self._hear_proxy(connection, peer[0]))
                else:
                    self._take(connection, peer[0])

    async def _hear_proxy(self, connection: socket.socket, proxy: str) -> None:
        try:
            async with asyncio.timeout(_PROXY_SECONDS):
                header = await _header(connection)
            client = source(header) or proxy if header else ""
        except ProxyError as error:
            _log.warning("a proxy's connection is refused", proxy=proxy, error=str(error))
            client = ""
        except OSError:  # it went away, or said nothing in time
            client = ""
        except BaseException:
            connection.close()
            raise
        finally:
            self._unheard -= 1
        if client:
            self._take(connection, client)
        else:
            connection.close()

    def _take(self, connection: socket.socket, client: str) -> None:
        try:
            protocol = self._admit(client)
        except Exception:  # one connection's trouble must not end the accepting of all others
            _log.exception("a connection cannot be taken", client=client)
            protocol = None
        if protocol is None:
            connection.close()
        else:
            self._spawn(self._hand_over(connection, protocol))

    async def _hand_over(self, connection: socket.socket, protocol: P) -> None:
        loop = asyncio.get_running_loop()
        try:
            if self._context is None:
                await loop.connect_accepted_socket(lambda: protocol, connection)
            else:
                await loop.connect_accepted_socket(
                    lambda: protocol,
                    connection,
                    ssl=self._context(),
                    ssl_handshake_timeout=_HANDSHAKE_SECONDS,
                )
        except BaseException as error:
            self._failed(protocol)
            if not isinstance(error, OSError):  # ssl.SSLError is one, and so is a handshake that took too long
                raise


async def _header(connection: socket.socket) -> bytes:
    """The PROXY header, and not an octet more; empty when the proxy hung up (a health check). Raises ProxyError."""
    loop = asyncio.get_running_loop()
    header = b""
    while count := missing(header):
        octets = await loop.sock_recv(connection, count)
        if not octets:
            if header:
                raise ProxyError("the PROXY header breaks off")
            return b""
        header += octets
    return header


@dataclass(frozen=True, slots=True)
class Places:
    """Sockets that are bound to where clients come: one for each family, twice."""

    submission: Sequence[socket.socket]
    submissions: Sequence[socket.socket]

    @property
    def ports(self) -> tuple[int, int]:
        """The ports of both."""
        return self.submission[0].getsockname()[1], self.submissions[0].getsockname()[1]


def bind(listen: Listen, *, shared: bool = False) -> Places:
    """The sockets of a configuration; `shared` when several processes will listen on one port.

    Raises OSError with words for people.
    """
    port = listen.submission_port
    try:
        submission = _bound(listen.address, port, shared)
        try:
            port = listen.submissions_port
            return Places(submission, _bound(listen.address, port, shared))
        except BaseException:
            for one in submission:
                one.close()
            raise
    except OSError as error:
        where = f"{listen.address or '*'}:{port}"
        raise OSError(error.errno, f"cannot listen on {where}: {error.strerror or error}") from error


def _bound(address: str, port: int, shared: bool) -> list[socket.socket]:
    """A socket for the address, or one for each family there is for "", bound to the same port."""
    found = socket.getaddrinfo(address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    for family, kind, protocol, _, where in dict.fromkeys(found):
        try:
            one = _bound_socket(family, kind, protocol, (where[0], port, *where[2:]), shared)
        except OSError as error:
            if not address and error.errno in _NO_SUCH_FAMILY:  # known to the system, and yet switched off
                absent = error
                continue
            for each in sockets:
                each.close()
            raise
        sockets.append(one)
        port = port or one.getsockname()[1]
    if absent is not None and not sockets:
        raise absent
    return sockets


def _bound_socket(family: int, kind: int, protocol: int, where: tuple[Any, ...], shared: bool) -> socket.socket:
    one = socket.socket(family, kind, protocol)
    try:
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(where)
    except OSError:
        one.close()
        raise
    return one
