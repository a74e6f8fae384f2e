"""Connections through a SOCKS5 proxy: RFC 1928, with the user names and passwords of RFC 1929.

Destinations are given by address, never by name: the relay resolves names itself, so that what may be connected to
is decided here and not by whoever answers the proxy's DNS questions.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct

from malote_relay.delivery.peer import Proxy
from malote_relay.resolver import IPAddress

_VERSION = 5
_NO_LOGIN, _LOGIN, _NONE_FITS = 0x00, 0x02, 0xFF
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4

_ERRNO = {
    2: errno.EACCES,
    3: errno.ENETUNREACH,
    4: errno.EHOSTUNREACH,
    5: errno.ECONNREFUSED,
    6: errno.ETIMEDOUT,
    8: errno.EAFNOSUPPORT,
}
"""What RFC 1928 section 6 calls them, as a direct connection's errors: who reads them need not know of the proxy."""


class ProxyFailed(OSError):
    """The proxy itself cannot be used; says nothing about the destination."""


async def connect(proxy: Proxy, address: IPAddress, port: int) -> socket.socket:
    """A connection to `address`, through the proxy. Raises OSError as a direct one would, and ProxyFailed."""
    loop = asyncio.get_running_loop()
    connection = await _reach(proxy)
    try:
        try:
            await _introduce(loop, connection, proxy)
            kind = _IPV4 if address.version == 4 else _IPV6
            request = struct.pack("!BBBB", _VERSION, _CONNECT, 0, kind) + address.packed + struct.pack("!H", port)
            await loop.sock_sendall(connection, request)
            version, code, _, bound = await _exactly(loop, connection, 4)
            if version != _VERSION:
                raise ProxyFailed(f"{proxy} does not speak SOCKS5")
            if code:
                number = _ERRNO.get(code)
                if number is None:
                    raise ProxyFailed(f"{proxy} refuses with code {code}")
                raise OSError(number, f"{os.strerror(number)}, says {proxy}")
            # Where it connects from, of no use to us, but in the way.
            length = {_IPV4: 4, _IPV6: 16}.get(bound)
            if length is None:
                length = (await _exactly(loop, connection, 1))[0]
            await _exactly(loop, connection, length + 2)
        except (ConnectionResetError, BrokenPipeError) as error:
            raise ProxyFailed(f"{proxy} hung up") from error
    except BaseException:
        connection.close()
        raise
    return connection


async def _reach(proxy: Proxy) -> socket.socket:
    """A connection to the proxy. Its name is the operator's to give, so the system resolves it."""
    loop = asyncio.get_running_loop()
    trouble: OSError | None = None
    try:
        found = await loop.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ProxyFailed(f"{proxy} has no address: {error.strerror or error}") from error
    for family, kind, protocol, _, place in found:
        connection = socket.socket(family, kind, protocol)
        connection.setblocking(False)
        try:
            await loop.sock_connect(connection, place)
            return connection
        except OSError as error:
            connection.close()
            trouble = error
        except BaseException:
            connection.close()
            raise
    words = (trouble.strerror or str(trouble)) if trouble else "no address"
    raise ProxyFailed(f"{proxy} cannot be reached: {words}") from trouble


async def _introduce(loop: asyncio.AbstractEventLoop, connection: socket.socket, proxy: Proxy) -> None:
    """Agree on how to sign in (RFC 1928 section 3), and do it (RFC 1929)."""
    methods = bytes([_NO_LOGIN, _LOGIN] if proxy.login else [_NO_LOGIN])
    await loop.sock_sendall(connection, bytes([_VERSION, len(methods)]) + methods)
    version, method = await _exactly(loop, connection, 2)
    if version != _VERSION:
        raise ProxyFailed(f"{proxy} does not speak SOCKS5")
    if method == _NO_LOGIN:
        return
    if method != _LOGIN or proxy.login is None:
        wants = "a way of signing in that we have not" if method == _NONE_FITS else f"to sign in by method {method}"
        raise ProxyFailed(f"{proxy} wants {wants}")
    if not proxy.login.password:
        raise ProxyFailed(f"the password for {proxy} cannot be read: the relay's configuration error says why")
    user, password = proxy.login.username.encode(), proxy.login.password.encode()
    await loop.sock_sendall(connection, bytes([1, len(user)]) + user + bytes([len(password)]) + password)
    if (await _exactly(loop, connection, 2))[1] != 0:
        raise ProxyFailed(f"{proxy} refuses the user name and password")


async def _exactly(loop: asyncio.AbstractEventLoop, connection: socket.socket, count: int) -> bytes:
    """So many octets and not one more: what follows belongs to the connection."""
    data = b""
    while len(data) < count:
        more = await loop.sock_recv(connection, count - len(data))
        if not more:
            raise ProxyFailed("the SOCKS5 proxy closed the connection")
        data += more
    return data
