"""Where a store keeps what, and how a directory's entries are made durable."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """The places under a store's directory; `salvaged` is there only while a damaged database is being replaced."""

    directory: Path
    database: Path = field(init=False)
    salvaged: Path = field(init=False)
    incoming: Path = field(init=False)
    spool: Path = field(init=False)
    quarantine: Path = field(init=False)
    lock: Path = field(init=False)

    def __post_init__(self) -> None:
        for name, value in (
            ("database", "relay.db"),
            ("salvaged", "relay.db.new"),
            ("incoming", "incoming"),
            ("spool", "spool"),
            ("quarantine", "quarantine"),
            ("lock", "lock"),
        ):
            object.__setattr__(self, name, self.directory / value)


def sync_directory(directory: Path) -> None:
    """Make a directory's entries durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
