"""The parts of a message, found while it is read (RFC 2046 section 5.1).

A boundary is recognised at every level, the innermost first: a part that lacks its last one ends with that of the
multipart around it. It is a line of its own: one that only begins like it is content, as one boundary may be
the beginning of another. Depth and header sections are bounded; so is the memory this takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from malote_relay.delivery.conversion.fields import FIELD, Entity, Kind, Unconvertible, entity
from malote_relay.delivery.conversion.source import Read, Source

MAX_DEPTH: Final = 100
"""Multiparts and messages within each other; what nests deeper was not written by people."""

MAX_HEADER: Final = 256 * 1024
"""Octets in a header section."""


@dataclass(frozen=True, slots=True)
class Header:
    """A message or a part begins."""

    entity: Entity


@dataclass(frozen=True, slots=True)
class Body:
    """Lines of a body that has no parts, or that must not be looked into."""

    entity: Entity
    lines: bytes


@dataclass(frozen=True, slots=True)
class Aside:
    """Lines before the first part of a multipart or after its last one: shown to nobody."""

    lines: bytes


@dataclass(frozen=True, slots=True)
class Delimiter:
    """A line with a boundary; empty where the last ones are missing at the end of the message."""

    line: bytes


Piece = Header | Body | Aside | Delimiter


def pieces(read: Read) -> Iterator[Piece]:
    """All of a message in order: written one after the other they are the message.

    Raises Unconvertible, and what `read` raises.
    """
    return _Reader(Source(read)).pieces()


@dataclass(frozen=True, slots=True)
class _Open:
    """A multipart that has not ended; `depth` is how deep its parts lie."""

    boundary: bytes
    digest: bool
    depth: int


class _Reader:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._open: list[_Open] = []
        self._depth = 0
        self._numbers = 0

    def pieces(self) -> Iterator[Piece]:
        found = self._header(top=True, digest=False)
        yield Header(found)
        inside: Entity | None = found
        while True:
            if inside is not None and inside.kind is Kind.MESSAGE:
                # Its body begins with a header section, unless it ends at once.
                line = self._source.line()
                if line and (delimiter := self._delimiter(line)) is None:
                    self._source.unread(line)
                    inside = self._header(top=False, digest=False)
                    yield Header(inside)
                    continue
            else:
                if text := self._source.text():
                    yield self._within(inside, text)
                    continue
                line = self._source.line()
                delimiter = self._delimiter(line)
            if not line:
                if self._open:
                    yield Delimiter(b"")
                return
            if delimiter is None:
                yield self._within(inside, line)
                continue
            yield Delimiter(line)
            level, ends = delimiter
            self._depth = self._open[level].depth
            digest = self._open[level].digest
            del self._open[level if ends else level + 1 :]
            inside = None
            if not ends:
                inside = self._header(top=False, digest=digest)
                yield Header(inside)

    def _within(self, inside: Entity | None, lines: bytes) -> Piece:
        return Aside(lines) if inside is None or inside.kind is Kind.MULTIPART else Body(inside, lines)

    def _delimiter(self, line: bytes) -> tuple[int, bool] | None:
        """Of which of the open multiparts this is a boundary, and whether the last one; None for a line of text."""
        if not line.startswith(b"--") or not self._open:
            return None
        said = line.rstrip(b" \t\r\n")[2:]
        for level in range(len(self._open) - 1, -1, -1):
            boundary = self._open[level].boundary
            if said == boundary:
                return level, False
            if said == boundary + b"--":
                return level, True
        return None

    def _header(self, *, top: bool, digest: bool) -> Entity:
        fields: list[list[bytes]] = []
        separator, size = b"", 0
        while line := self._source.line():
            size += len(line)
            if size > MAX_HEADER:
                raise Unconvertible(f"it has a header section of more than {MAX_HEADER} octets")
            if line == b"\r\n":
                separator = line
                break
            if line[:1] in (b" ", b"\t") and fields:
                fields[-1].append(line)
            elif self._delimiter(line) is not None:  # which may well look like a field
                self._source.unread(line)
                break
            elif FIELD.match(line) or (line.startswith(b"From ") and not fields):
                fields.append([line])
            else:
                # The body, without an empty line before it.
                self._source.unread(line)
                break
        found = entity([b"".join(one) for one in fields], separator, top=top, digest=digest)
        self._enter(found)
        return found

    def _enter(self, found: Entity) -> None:
        if found.kind is Kind.LEAF:
            found.number = self._numbers
            self._numbers += 1
        if found.kind not in {Kind.MULTIPART, Kind.MESSAGE}:
            return
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unconvertible(f"its parts are nested more than {MAX_DEPTH} deep")
        if found.kind is Kind.MULTIPART:
            for one in self._open:
                if {found.boundary, found.boundary + b"--"} & {one.boundary, one.boundary + b"--"}:
                    raise Unconvertible("two multiparts within each other have the same boundary")
            self._open.append(_Open(found.boundary, found.digest, self._depth))
