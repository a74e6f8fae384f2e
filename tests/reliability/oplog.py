"""What `faults.c` has written down: the operations of a relay on its spool, in order, with its own log in between."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_RECORD = struct.Struct("<IBBHIIQqQ")


class Untold(Exception):
    """The log has an operation that the model does not know: what it says cannot be trusted."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation, once it was done. `kind`: see the names below; `position` is where in the log it stands.

    `number` is an offset (write), a size (cut), or the length of the log when a sync began, also one that FAILED.
    """

    position: int
    kind: str
    inode: int
    directory: bool
    number: int
    path: str
    data: bytes


CREATE, OPEN, WRITE, CUT, SYNC, FAILED, RENAME, REMOVE, LOG, _UNKNOWN = (
    "c",
    "o",
    "w",
    "t",
    "s",
    "f",
    "r",
    "u",
    "l",
    "?",
)


def operations(file: Path) -> Iterator[Operation]:
    """The operations in order. For RENAME `data` is the new path. Raises Untold."""
    with file.open("rb") as log:
        position = 0
        while head := log.read(_RECORD.size):
            length, kind, directory, first, second, _, inode, number, _ = _RECORD.unpack(head)
            path, data = log.read(first).decode(), log.read(second)
            if chr(kind) == _UNKNOWN:
                raise Untold(f"{path} on a file of the spool: teach faults.c and disk.py what it does")
            yield Operation(position, chr(kind), inode, bool(directory), number, path, data)
            position += length


def events(operation: Operation) -> Iterator[dict[str, Any]]:
    """The lines of the relay's log in a LOG operation."""
    for line in operation.data.splitlines():
        if line.startswith(b"{") and line.endswith(b"}"):
            event: dict[str, Any] = json.loads(line)
            yield event
