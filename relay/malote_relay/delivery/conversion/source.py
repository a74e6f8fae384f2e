"""A message read in blocks, handed out in lines: one at a time, or all up to where a boundary could stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from malote_relay.delivery.conversion.fields import Unconvertible

BLOCK: Final = 64 * 1024
Read = Callable[[int], bytes]
"""Gives so many octets at most, and none at the end; a file's `read` is one. Called until it gives none."""

MAX_LINE: Final = 64 * 1024
"""Octets in a line; RFC 5321 section 4.5.3.1.6 allows 1000."""


class Source:
    """What is left of a message. Raises Unconvertible where a line, but the last one, does not end with CRLF."""

    def __init__(self, read: Read) -> None:
        self._read_block = read
        self._data = b""
        self._at = 0
        self._drained = False

    def line(self) -> bytes:
        """The next line with its end; empty at the end of the message."""
        while (end := self._data.find(b"\n", self._at)) < 0 and not self._drained:
            self._read()
        return self._take(end + 1 if end >= 0 else len(self._data))

    def text(self) -> bytes:
        """Whole lines, as many as are in hand, up to one that begins with two hyphens.

        Empty where that is the next one, or at the end of the message.
        """
        while len(self._data) - self._at < 2 and not self._drained:
            self._read()
        if self._data.startswith(b"--", self._at):
            return b""
        if (found := self._data.find(b"\n--", self._at)) >= 0:
            return self._take(found + 1)
        end = len(self._data) if self._drained else self._data.rfind(b"\n", self._at) + 1
        return self._take(end) if end > self._at else self.line()

    def unread(self, line: bytes) -> None:
        """Give the line taken last back."""
        self._at -= len(line)

    def _read(self) -> None:
        if len(self._data) - self._at > MAX_LINE:
            raise Unconvertible(f"it has a line of more than {MAX_LINE} octets")
        block = self._read_block(BLOCK)
        self._drained = not block
        self._data, self._at = self._data[self._at :] + block, 0

    def _take(self, end: int) -> bytes:
        taken = self._data[self._at : end]
        self._at = end
        if not taken.count(b"\r\n") == taken.count(b"\n") == taken.count(b"\r"):
            raise Unconvertible("it has a CR or LF that stands alone")
        return taken
