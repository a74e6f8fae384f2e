"""The channel between the core and a front: a pair of sockets, frames both ways, those of one turn in one write."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from malote_relay.fronts import protocol
from malote_relay.fronts.protocol import Frame, Parser


class Channel(asyncio.Protocol):
    """One end. `heard` is called with each frame, `lost` once, when the other end is gone or talks nonsense.

    `heard` says that it is nonsense by raising ValueError.
    """

    def __init__(self, heard: Callable[[protocol.Any], None], lost: Callable[[str], None]) -> None:
        self._heard = heard
        self._lost = lost
        self._parser = Parser()
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._nonsense = ""

    @classmethod
    async def over(
        cls, end: socket.socket, heard: Callable[[protocol.Any], None], lost: Callable[[str], None]
    ) -> Channel:
        """Talk over one of a pair of connected sockets."""
        end.setblocking(False)
        channel = cls(heard, lost)
        await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=end)
        return channel

    def send(self, frame: Frame) -> None:
        """Say something, by the end of this turn of the loop; into the void when the other end is gone.

        Raises BadFrame when it is too large: the other end would take it for nonsense and hang up.
        """
        if self._transport is None:
            return
        octets = protocol.encode(frame)
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(octets)

    def close(self) -> None:
        """Hang up, after what was said. `lost` is called all the same."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        if self._waiting and self._transport is not None:
            self._transport.write(b"".join(self._waiting))
        self._waiting.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        try:
            for frame in self._parser.feed(data):
                self._heard(frame)
        except ValueError as error:
            self._nonsense = str(error)
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._transport = None
        self._lost(self._nonsense or (str(exc) if exc else ""))
