"""Contents and their checksums: what is read must be what was accepted.

A CRC-32 (zlib's) stands beside each content, in the database or in a file. It finds every bit that flipped alone, and
nearly everything else that a disk or a memory does to octets; who means harm and may write to the spool can change
both. It is reckoned while the content passes anyway, and compared while it is read: never by reading it once more.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_PIECE: Final = 5 * 1024
"""For more at once zlib gives the interpreter's lock away, and in a busy process has to wait for it afterwards."""

_SMALL: Final = 64 * 1024


class Damaged(Exception):
    """A content is not what was accepted, with words that say how. It must not be delivered."""


def checksum(content: bytes) -> int:
    """The checksum of a content in memory."""
    if len(content) > _SMALL:
        return zlib.crc32(content)
    view, found = memoryview(content), 0
    for start in range(0, len(content), _PIECE):
        found = zlib.crc32(view[start : start + _PIECE], found)
    return found


def check(message: str, found: int, kept: int | None) -> None:
    """Compare with the checksum kept at acceptance; an older release kept none. Raises Damaged."""
    if kept is not None and found != kept:
        raise Damaged(
            f"message {message}: its content has another checksum ({found:08x}) than at acceptance ({kept:08x})"
        )


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A large content where the store keeps it; the file's name is the message's id."""

    path: Path
    checksum: int | None = None

    def open(self) -> Reading:
        """Begin to read it from its start. Raises OSError."""
        return Reading(self)

    def read(self) -> bytes:
        """All of it. Raises OSError, Damaged."""
        octets = self.path.read_bytes()
        check(self.path.name, checksum(octets), self.checksum)
        return octets


class Reading:
    """A stored file being read, block by block. Close it, or use it as a context."""

    def __init__(self, stored: StoredFile) -> None:
        self._stored = stored
        self._file = stored.path.open("rb")
        self._found = 0

    def block(self, size: int) -> bytes:
        """The next octets; none at the end, where it raises Damaged unless they were those accepted. Or OSError."""
        octets = self._file.read(size)
        if octets:
            self._found = zlib.crc32(octets, self._found)
        else:
            check(self._stored.path.name, self._found, self._stored.checksum)
        return octets

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
