"""SQLite's write-ahead log, as far as one must know it to see that a part of it is no longer read.

Each transaction in it was synced before the next began. SQLite reads it up to the first frame whose checksum is
wrong, and takes the rest for what never came about. After a loss of power that is true of the last transaction (and,
where a sync had failed, of one before). Where more follow, the log was damaged, and what follows was acknowledged.

The format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

UNFINISHED: Final = 2
"""Transactions that may be in the log behind what is read, without any damage."""

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
_MAGIC: Final = 0x377F0682  # and one more where checksums are of big-endian words

_Salts = tuple[int, int]


def of(database: Path) -> Path:
    """The log of a database."""
    return database.with_name(database.name + "-wal")


def unread(log: Path, frames: int, page_size: int) -> int:
    """How many transactions end in the log behind its first `frames`, which are all that SQLite reads of it.

    What an earlier use of the file has left there is none of them. Raises OSError.
    """
    with log.open("rb", buffering=0) as file:
        salts = _salts(file.read(_HEADER.size))
        count = 0
        while True:
            file.seek(_HEADER.size + frames * (_FRAME.size + page_size))
            head = file.read(_FRAME.size)
            if len(head) < _FRAME.size:
                return count
            _, pages, *own, _, _ = _FRAME.unpack(head)
            if salts is None:  # the header itself is damaged
                salts = (own[0], own[1])
            count += pages > 0 and salts == tuple(own)
            frames += 1


def _salts(header: bytes) -> _Salts | None:
    """What all frames of the present use have in common; None when the header is damaged."""
    if len(header) < _HEADER.size:
        return None
    magic, *_, first, second, low, high = _HEADER.unpack(header)
    if magic & ~1 != _MAGIC:
        return None
    words = struct.unpack(f"{'>' if magic & 1 else '<'}6I", header[:24])
    one = two = 0
    for even, odd in zip(words[::2], words[1::2], strict=True):
        one = (one + even + two) & 0xFFFFFFFF
        two = (two + odd + one) & 0xFFFFFFFF
    return (first, second) if (one, two) == (low, high) else None
