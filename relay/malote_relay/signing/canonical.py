"""The "relaxed" canonical form of header fields and body (RFC 6376 sections 3.4.2 and 3.4.4).

A verifier sees the message after every host on the way has had its hands on it. The canonical form ignores what they
may change harmlessly: white space and the case of field names. Only CRLF ends a line here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final

_FOLD: Final = re.compile(rb"\r\n(?=[ \t])")
_RUN: Final = re.compile(rb"  +")
_BLOCK: Final = 256 * 1024


def header_field(name: bytes, value: bytes) -> bytes:
    """One field in its canonical form, with the CRLF at its end."""
    return name.rstrip(b" \t").lower() + b":" + field_value(value) + b"\r\n"


def field_value(value: bytes) -> bytes:
    """A field's value unfolded, with white space reduced and none at either end."""
    if b"\r\n" in value:
        value = _FOLD.sub(b"", value)
    return _single_spaces(value).strip(b" \t\r\n")


def split_fields(header: bytes) -> list[tuple[bytes, bytes]]:
    """Header fields (name, value as it stands, still folded) in their order. Lines that are no field are left out."""
    fields: list[tuple[bytes, list[bytes]]] = []
    for line in header.split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            if fields:
                fields[-1][1].append(line)
            continue
        name, colon, value = line.partition(b":")
        if colon:
            fields.append((name, [value]))
    return [(name, b"\r\n".join(lines)) for name, lines in fields]


class BodyHash:
    """SHA-256 of a body's canonical form, fed block by block: a message need never be in memory as a whole."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._pending: list[bytes] = []  # an incomplete line
        self._line_ends = 0  # after what was hashed; those at the very end do not count
        self._empty = True

    def update(self, block: bytes) -> None:
        """Take the next part of the body."""
        # A CRLF may lie across the border of two blocks, hence the last byte of what was kept.
        if b"\n" not in block:
            self._pending.append(block)
            return
        data = b"".join((*self._pending, block))
        complete = data.rfind(b"\r\n") + 2
        if complete < 2:
            self._pending = [data]
            return
        self._pending = [data[complete:]] if complete < len(data) else []
        self._lines(data[:complete])

    def digest(self) -> bytes:
        """The hash, after the last block. An empty body, or one of empty lines only, hashes as nothing."""
        if last := _single_spaces(b"".join(self._pending)):
            self._emit(last)
            self._line_ends = 1
        if not self._empty:
            self._hash.update(b"\r\n")
        return self._hash.digest()

    def _lines(self, lines: bytes) -> None:
        """Hash lines, each with its CRLF, except the line ends after the last one that is not empty."""
        text = _single_spaces(lines).replace(b" \r\n", b"\r\n")
        end = len(text)
        if (kept := len(text.rstrip(b"\r\n"))) or not _only_line_ends(text):
            while end > kept and text.endswith(b"\r\n", kept, end):
                end -= 2
            self._emit(text[:end])
            self._line_ends = 0
        else:
            end = 0
        self._line_ends += (len(text) - end) // 2

    def _emit(self, text: bytes) -> None:
        count = self._line_ends
        while count > 0:
            self._hash.update(b"\r\n" * min(count, _BLOCK))
            count -= _BLOCK
        self._hash.update(text)
        self._empty = False


def body_hash(body: bytes | Iterable[bytes]) -> bytes:
    """SHA-256 of the canonical form of a body, whole or in blocks."""
    hasher = BodyHash()
    for block in (body,) if isinstance(body, bytes) else body:
        hasher.update(block)
    return hasher.digest()


def _single_spaces(text: bytes) -> bytes:
    text = text.replace(b"\t", b" ")
    return _RUN.sub(b" ", text) if b"  " in text else text


def _only_line_ends(text: bytes) -> bool:
    return text == b"\r\n" * (len(text) // 2)
