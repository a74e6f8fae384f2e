"""A message's content on its way out: dot-stuffed once (RFC 5321 section 4.5.2), in blocks, large ones from file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from malote_relay.store.contents import StoredFile

BLOCK = 128 * 1024
END = b".\r\n"
_HEADER_LIMIT = 256 * 1024


class Stuffer:
    """Doubles every dot that begins a line, over blocks cut anywhere."""

    def __init__(self) -> None:
        self._tail = b"\r\n"

    def feed(self, block: bytes) -> bytes:
        """The stuffed form of the next block."""
        if not block:
            return b""
        before = self._tail
        # The last two octets before the block tell whether its beginning begins a line.
        joined = before + block
        self._tail = joined[-2:]
        return joined.replace(b"\r\n.", b"\r\n..")[len(before) :]

    def end(self) -> bytes:
        """What ends the content: a line end if the last line has none, and the final dot."""
        return END if self._tail == b"\r\n" else b"\r\n" + END


class Content:
    """One message's content for any number of transactions: `head`, and then what is in `source`."""

    def __init__(self, source: bytes | StoredFile, head: bytes = b""):
        self._source = source
        self._head = head
        self._stuffed: bytes | None = None

    @property
    def source(self) -> bytes | StoredFile:
        """Where it comes from."""
        return self._source

    def headers(self) -> bytes:
        """The header section with its line ends, without the empty line; reads from disk when it is a file."""
        if isinstance(self._source, bytes):
            head = self._source[:_HEADER_LIMIT]
        else:
            with self._source.path.open("rb") as file:
                head = file.read(_HEADER_LIMIT)
        return (b"\r\n" + self._head + head).partition(b"\r\n\r\n")[0].removeprefix(b"\r\n") + b"\r\n"

    def whole(self) -> bytes | None:
        """Everything to send after 354, when that is small enough to be one write; else None: use `blocks`."""
        if self._stuffed is None and isinstance(self._source, bytes) and len(self._source) <= BLOCK:
            stuffer = Stuffer()
            self._stuffed = stuffer.feed(self._head + self._source) + stuffer.end()
        return self._stuffed

    async def blocks(self) -> AsyncIterator[bytes]:
        """Everything to send after 354, in pieces. Raises OSError when the file cannot be read.

        And Damaged in place of the last piece, which has the final dot, when what was read is not what was accepted.
        """
        stuffer = Stuffer()
        if self._head:
            yield stuffer.feed(self._head)
        if isinstance(self._source, bytes):
            for block in _cut(self._source):
                yield stuffer.feed(block)
        else:
            with await asyncio.to_thread(self._source.open) as reading:
                while block := await asyncio.to_thread(reading.block, BLOCK):
                    yield stuffer.feed(block)
        yield stuffer.end()


def _cut(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), BLOCK):
        yield data[start : start + BLOCK]
