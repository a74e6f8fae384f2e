"""What arrived at the other end: the suite asks for messages by a token that stands in their content."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Arrived:
    """A message as it arrived, lines ended by CRLF. `recipients` and `sender` are None where no envelope is known."""

    content: bytes
    sender: str | None = None
    recipients: tuple[str, ...] | None = None

    @property
    def header(self) -> list[tuple[str, str]]:
        """The header fields, unfolded, in order; names in lower case."""
        fields: list[tuple[str, str]] = []
        for line in self.content.partition(b"\r\n\r\n")[0].decode("utf-8", "surrogateescape").split("\r\n"):
            if line[:1] in {" ", "\t"} and fields:
                fields[-1] = fields[-1][0], fields[-1][1] + line
            else:
                name, _, value = line.partition(":")
                fields.append((name.lower(), value.strip()))
        return fields

    @property
    def body(self) -> bytes:
        return self.content.partition(b"\r\n\r\n")[2]

    def named(self, name: str) -> list[str]:
        """The values of the fields of that name."""
        return [value for found, value in self.header if found == name.lower()]


class Delivered(Protocol):
    """Where messages arrive."""

    def messages(self) -> Sequence[Arrived]:
        """All that have arrived so far."""
        ...


class Maildir:
    """A Maildir that something delivers to (its `new` folder, and `cur`), or a folder with a message a file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def messages(self) -> Sequence[Arrived]:
        folders = [folder for name in ("new", "cur") if (folder := self._directory / name).is_dir()]
        files = sorted(path for folder in folders or [self._directory] for path in folder.iterdir() if path.is_file())
        return [_arrived(path.read_bytes()) for path in files]


def _arrived(content: bytes) -> Arrived:
    # A mailbox keeps lines as the system does.
    return Arrived(content if b"\r\n" in content else content.replace(b"\n", b"\r\n"))


def wait_for(delivered: Delivered, token: str, seconds: float, count: int = 1) -> list[Arrived]:
    """The messages that contain the token, once there are so many, or what there is after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = [one for one in delivered.messages() if token.encode() in one.content]
        if len(found) >= count or time.monotonic() > deadline:
            return found
        time.sleep(0.05)
