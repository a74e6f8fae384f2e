"""The header section of the message that a report is about, as it came back with it. Pure; never raises.

RFC 6522 section 3 wants the message, or its headers, as the report's last part; reports in words have it below them.
It is a stranger's word for what the message was: only what reads as header fields is taken of it, and not much.
"""

from __future__ import annotations

import email.message
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from malote_relay.bounces import mime
from malote_relay.bounces.dsn import plain_text
from malote_relay.bounces.text import MAX_TEXT

MAX_HEADER: Final = 16 * 1024
"""Octets that are taken."""

_MAX_LINE: Final = 900
_KINDS: Final = (
    "message/rfc822",
    "message/global",
    "text/rfc822-headers",
    "message/rfc822-headers",
    "message/global-headers",
)
_FIELD: Final = re.compile(r"[!-9;-~]{1,100}:")
_WELL_KNOWN: Final = frozenset(("from", "to", "subject", "date", "message-id"))
_FEWEST: Final = 2
"""Well-known fields without which a paragraph is no header section."""

_OUTSIDE: Final = re.compile(r"[^\t -~\u00a0-\u2027\u202f-\u2065\u2070-\ud7ff\ue000-\U0010ffff]")
"""Controls, what turns the direction of writing, and what is no text at all."""


def header(content: bytes) -> bytes:
    """The header fields of the message that came back, in UTF-8, each line with CRLF; empty where there are none."""
    message = mime.read(content)
    if message is None:
        return b""
    returned = [part for part in mime.parts(message) if mime.kind(part) in _KINDS and part is not message]
    for lines in (*map(_of_part, returned), *_paragraphs(plain_text(message)[:MAX_TEXT])):
        if taken := _taken(lines):
            return taken
    return b""


def _of_part(part: email.message.Message) -> list[str]:
    """The lines of the fields in a part that is a message, or the header section of one."""
    if not part.is_multipart():
        return list(itertools.takewhile(str.strip, mime.text(part).lstrip().splitlines()))
    lines: list[str] = []
    for inside in mime.below(part)[:1]:
        for name, value in inside.raw_items():  # as they were: others lose folds, and what is not ASCII
            lines += _decoded(f"{name}: {value}").splitlines()
    return lines


def _decoded(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _paragraphs(text: str) -> Iterator[list[str]]:
    """The paragraphs of a report in words that may be a header section."""
    for paragraph in re.split(r"\n[ \t]*\n", text):
        lines = list(itertools.dropwhile(lambda line: not _FIELD.match(line), paragraph.splitlines()))
        strays = sum(line[:1] not in (" ", "\t") and not _FIELD.match(line) for line in lines)
        if strays <= len(lines) // 5:  # some programs break long lines anew
            yield lines


def _taken(lines: Sequence[str]) -> bytes:
    """The lines as they may go out again; none when this is no header section."""
    names = {line.partition(":")[0].lower() for line in lines if _FIELD.match(line)}
    if len(names & _WELL_KNOWN) < _FEWEST:
        return b""
    taken = bytearray()
    for line in _whole_fields(lines):
        octets = _OUTSIDE.sub("?", line[:_MAX_LINE]).encode("utf-8", "replace")[:_MAX_LINE] + b"\r\n"
        if len(taken) + len(octets) > MAX_HEADER:
            break
        taken += octets
    return bytes(taken)


def _whole_fields(lines: Iterable[str]) -> Iterator[str]:
    """The lines of fields that are written as fields are; those of others are left out."""
    inside = False
    for line in lines:
        if not line.strip():
            continue
        inside = inside if line[0] in " \t" else _FIELD.match(line) is not None
        if inside:
            yield line
