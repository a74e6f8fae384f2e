"""Where a message's content waits while it comes in: in memory while small, on disk when large.

Memory is bounded thrice: a message above `IN_MEMORY` goes to a file, what is in flight over all sessions is capped,
and a floor of free space on the disk is kept; both of the latter are answered with 452 4.3.1.
"""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from malote_relay.config import Limits

IN_MEMORY: Final = 256 * 1024
"""Octets kept in memory; the header section must lie within them."""

_LOOK_AGAIN: Final = 0.2
"""Seconds for which free space is taken to be what it was: what comes in meanwhile is far below the floor."""

_COPY_BLOCK: Final = 1024 * 1024


class NoRoom(Exception):
    """The content cannot be taken now: `flight` when too much is in flight, else the disk is (nearly) full."""

    def __init__(self, *, flight: bool) -> None:
        super().__init__("too much in flight" if flight else "no room on disk")
        self.flight = flight


class Spool:
    """What all bodies share: the folder for large ones, how names in it begin, and the caps.

    `share` is how many processes have the cap on what is in flight between them; `largest`, in octets, is what a
    message may have.
    """

    def __init__(self, folder: Path, limits: Limits, prefix: str = "", share: int = 1) -> None:
        self.folder = folder
        self.limits = limits
        self.prefix = prefix
        self.largest = 0
        self._share = share
        self.in_flight = 0
        self._free = 0
        self._looked_at = -_LOOK_AGAIN

    @property
    def most_in_flight(self) -> int:
        """Octets that may be in flight here: a share of the cap, but room for one message where the cap has it."""
        cap = self.limits.max_body_bytes_in_flight
        return max(cap // self._share, min(cap, self.largest))

    def has_room(self, size: int) -> bool:
        """Whether the disk can take `size` octets more (beside what is coming in) above the floor."""
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_AGAIN:
            try:
                disk = os.statvfs(self.folder)
            except OSError:
                return False
            self._free, self._looked_at = disk.f_bavail * disk.f_frsize, now
        return self._free - size - self.in_flight >= self.limits.min_free_bytes


class Body:
    """The content of one message as it comes in. `discard` gives everything back; harmless after `sealed`."""

    def __init__(self, spool: Spool, name: str) -> None:
        self._spool = spool
        self._name = name
        self._head = bytearray()
        self._file: BinaryIO | None = None
        self._reserved = 0
        self.size = 0
        self.eight_bit = False

    @property
    def _path(self) -> Path:
        return self._spool.folder / self._name

    @property
    def head(self) -> bytes:
        """The first octets (all, when not `on_disk`)."""
        return bytes(self._head)

    @property
    def final(self) -> Path:
        """Where the finished message goes, when it is large: the store takes it from there."""
        return self._path.with_suffix(".final")

    @property
    def _headed(self) -> Path:
        return self._path.with_suffix(".headed")

    @property
    def on_disk(self) -> bool:
        """Whether the content has gone to a file."""
        return self._file is not None

    def write(self, content: bytes) -> None:
        """Add content. Raises NoRoom."""
        self._reserve(len(content))
        self.size += len(content)
        if not content.isascii():
            self.eight_bit = True
        if self._file is None:
            if len(self._head) + len(content) <= IN_MEMORY:
                self._head += content
                return
            if not self._spool.has_room(0):
                raise NoRoom(flight=False)
            self._write(bytes(self._head))
            take = IN_MEMORY - len(self._head)
            self._head += content[:take]
        elif not self._spool.has_room(0):
            raise NoRoom(flight=False)
        self._write(content)

    def with_header(self, header: bytes, offset: int) -> bytes | Path:
        """The content with `header` in place of its first `offset` octets: octets, or a new file (not yet synced).

        For a file this copies: call it in a thread. Raises OSError.
        """
        if self._file is None:
            return header + memoryview(self._head)[offset:]
        self._file.flush()
        target = self._headed
        copy_behind(header, self._path, offset, target)
        return target

    def discard(self) -> None:
        """Forget the content and give back what it took."""
        self._spool.in_flight -= self._reserved
        self._reserved = 0
        self._head.clear()
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            for path in (self._path, self._headed, self.final):
                with contextlib.suppress(OSError):  # the next start removes what is left
                    path.unlink(missing_ok=True)

    def _reserve(self, count: int) -> None:
        if self._spool.in_flight + count > self._spool.most_in_flight:
            raise NoRoom(flight=True)
        self._spool.in_flight += count
        self._reserved += count

    def _write(self, content: bytes) -> None:
        try:
            if self._file is None:
                self._file = self._path.open("xb")
            self._file.write(content)
        except OSError as error:
            raise NoRoom(flight=False) from error


def copy_behind(start: bytes, source: Path, offset: int, target: Path) -> None:
    """Write `start`, then `source` from `offset` on, into the new file `target`. Blocks; raises OSError."""
    with target.open("wb") as writer:
        for block in _joined(start, source, offset):
            writer.write(block)


def finish_behind(start: bytes, source: Path, target: Path) -> int:
    """Write `start`, then `source`, into the new file `target`, and sync it; its checksum, as the store wants it.

    Blocks; raises OSError.
    """
    found = 0
    with target.open("wb") as writer:
        for block in _joined(start, source, 0):
            writer.write(block)
            found = zlib.crc32(block, found)
        writer.flush()
        os.fsync(writer.fileno())
    return found


def _joined(start: bytes, source: Path, offset: int) -> Iterator[bytes]:
    yield start
    with source.open("rb") as reader:
        reader.seek(offset)
        while block := reader.read(_COPY_BLOCK):
            yield block
