"""The listener that speaks TLS from the first octet (RFC 8314 section 3.3).

The event loop's own TLS listener begins the handshake before anybody can be asked whether there is room for one
more client, and keeps the certificate it was made with. Here a connection is accepted bare, `admit` is asked, and
the handshake is done with the certificate in force. Accepting bare and turning to TLS in the protocol is no way:
uvloop reads at once what a client sends, and a ClientHello that came before the turn would be lost.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import structlog

from malote_relay.config import Listen

_PAUSE_SECONDS: Final = 1.0

P = TypeVar("P", bound=asyncio.Protocol)

_log = structlog.get_logger("malote.submission")


class TlsListener(Generic[P]):
    """Accepts connections and does their handshakes, until it is closed.

    `admit` is given the client's address for each connection, and gives its protocol, or None when the connection is
    to be closed at once. `failed` is given a protocol whose handshake failed: nothing else of it was called.
    """

    def __init__(
        self,
        context: Callable[[], ssl.SSLContext],
        admit: Callable[[str], P | None],
        failed: Callable[[P], None],
        handshake_seconds: float,
    ) -> None:
        self._context = context
        self._admit = admit
        self._failed = failed
        self._handshake_seconds = handshake_seconds
        self._tasks: set[asyncio.Task[None]] = set()

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
                protocol = self._admit(peer[0])
                if protocol is None:
                    connection.close()
                else:
                    self._spawn(self._shake_hands(connection, protocol))

    async def _shake_hands(self, connection: socket.socket, protocol: P) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol, connection, ssl=self._context(), ssl_handshake_timeout=self._handshake_seconds
            )
        except BaseException as error:
            self._failed(protocol)
            if not isinstance(error, OSError):  # ssl.SSLError is one, and so is a handshake that took too long
                raise


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
    """A socket for the address, or one for each family for "", bound to the same port."""
    found = socket.getaddrinfo(address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, where in dict.fromkeys(found):
            one = socket.socket(family, kind, protocol)
            sockets.append(one)
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((where[0], port, *where[2:]))
            port = port or one.getsockname()[1]
    except OSError:
        for one in sockets:
            one.close()
        raise
    return sockets
