"""Opening a connection, directly or through the proxy; and which address families lead anywhere.

A machine without IPv6 is common, and so is one whose IPv6 leads nowhere. Neither may cost a time-out for each
message: what the system says of a family is believed for a while, and a family whose connections time out one after
another comes last. Both are forgotten after some minutes, and at the first connection that works.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Sequence

from malote_relay.delivery import socks
from malote_relay.delivery.peer import Identity, Peer
from malote_relay.resolver import IPAddress

SHUNNED_SECONDS = 600.0
"""How long a family that leads nowhere comes last."""

_SILENT = 2
"""Time-outs in a row, with no connection in between, after which a family is taken to lead nowhere."""

_BIND_ADDRESS_NO_PORT = 24
"""IP_BIND_ADDRESS_NO_PORT of Linux, which Python names from 3.12 on."""

_NO_WAY = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETDOWN})


async def open_socket(address: IPAddress, port: int, identity: Identity) -> socket.socket:
    """A connected socket. Raises OSError. The caller bounds the time."""
    if identity.proxy is not None:
        return await socks.connect(identity.proxy, address, port)
    loop = asyncio.get_running_loop()
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        if identity.source_address:
            with contextlib.suppress(OSError):
                # The port is chosen once the destination is known: more connections fit one address so.
                connection.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
            connection.bind((identity.source_address, 0))
        await loop.sock_connect(connection, (str(address), port))
    except OSError as error:
        connection.close()
        if error.errno is None or isinstance(error, TimeoutError):
            raise
        # In the system's words: those of asyncio tell where, not why.
        raise OSError(error.errno, os.strerror(error.errno)) from error
    except BaseException:
        connection.close()
        raise
    return connection


class Families:
    """Which families lead nowhere from here. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self._shunned: dict[int, float] = {}
        self._silent: dict[int, int] = {}

    def ordered(self, peers: Sequence[Peer]) -> Sequence[Peer]:
        """Within each host's addresses, those of a shunned family last; hosts keep their order."""
        now = self._clock()
        shunned = {family for family, until in self._shunned.items() if until > now}
        if not shunned or all(peer.address.version in shunned for peer in peers):
            return peers
        hosts: dict[str, list[Peer]] = {}
        for peer in peers:
            hosts.setdefault(peer.name, []).append(peer)
        return [
            peer for group in hosts.values() for peer in sorted(group, key=lambda one: one.address.version in shunned)
        ]

    def worked(self, address: IPAddress) -> None:
        """A connection to it was made."""
        self._silent.pop(address.version, None)
        self._shunned.pop(address.version, None)

    def failed(self, address: IPAddress, error: OSError | None) -> None:
        """None was: `error` says why, None for a time-out."""
        family = address.version
        if error is None or error.errno == errno.ETIMEDOUT:
            self._silent[family] = self._silent.get(family, 0) + 1
            if self._silent[family] < _SILENT:
                return
        elif error.errno not in _NO_WAY:
            return
        self._shunned[family] = self._clock() + SHUNNED_SECONDS
