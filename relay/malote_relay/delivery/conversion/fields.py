"""What the header section of a message or of a part says about its body (RFC 2045, RFC 2046). Pure."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

CONTENT_TYPE: Final = b"content-type"
ENCODING: Final = b"content-transfer-encoding"

FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:")
_TYPE: Final = re.compile(rb"\s*([!#$&+\-.^_A-Za-z0-9]+)/([!#$&+\-.^_A-Za-z0-9]+)\s*(?:[;(]|$)")
_PARAMETER: Final = re.compile(rb';\s*([^\s;="]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.DOTALL)
_QUOTED_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_QUOTED_PAIR: Final = re.compile(rb"\\(.)", re.DOTALL)
_WORD: Final = re.compile(rb"\s*([^\s;()]*)")
_FOLD: Final = re.compile(rb"\r\n(?=[ \t])")

_PLAIN: Final = (b"", b"7bit", b"8bit", b"binary")
_CLEAR_BODIES: Final = (b"rfc822", b"news")
_ENCODABLE_MESSAGES: Final = (
    b"global",
    b"global-headers",
    b"global-delivery-status",
    b"global-disposition-notification",
)
"""RFC 6532 section 3.7 and RFC 6533: alone among the message types these may be encoded."""


class Unconvertible(Exception):
    """The message has no 7-bit form. The words go on after "it cannot be converted:"."""


class Kind(enum.Enum):
    """What a body consists of, as far as conversion is concerned."""

    LEAF = "leaf"
    """Octets that may be encoded."""
    MULTIPART = "multipart"
    MESSAGE = "message"
    """A header section and a body of its own."""
    SEALED = "sealed"
    """Octets that must stay as they are."""


@dataclass(slots=True, eq=False)
class Entity:
    """A message or a part: its header fields as they stand, and what follows from them.

    `separator` is the line between header and body; empty when there is none. `sealed` says why a body must stay as
    it is.
    """

    fields: Sequence[bytes]
    separator: bytes
    top: bool
    kind: Kind = Kind.LEAF
    text: bool = True
    typed: bool = False
    encoding: bytes = b""
    boundary: bytes = b""
    digest: bool = False
    sealed: str = ""
    number: int = field(default=-1)
    """Which of the bodies that may have to be encoded it is, in their order."""


def name(raw: bytes) -> bytes:
    """The name of a field in lower case; empty for a line that is none."""
    found = FIELD.match(raw)
    return found[1].lower() if found else b""


def entity(fields: Sequence[bytes], separator: bytes, *, top: bool, digest: bool) -> Entity:
    """Read a header section. `digest` is whether it is a part of a multipart/digest. Raises Unconvertible."""
    for raw in fields:
        if not raw.isascii():
            raise Unconvertible(
                f"the header field {_shown(raw)} has characters outside ASCII: write them as encoded words "
                "(RFC 2047) or parameters (RFC 2231)"
            )
    found = Entity(fields, separator, top)
    found.encoding = _encoding(_only(fields, ENCODING))
    declared = _only(fields, CONTENT_TYPE)
    found.typed = declared is not None
    if declared is None:
        _judge(found, b"message" if digest else b"text", b"rfc822" if digest else b"plain", b"")
    elif (matched := _TYPE.match(declared)) is not None:
        _judge(found, matched[1].lower(), matched[2].lower(), declared)
    else:
        _seal(found, "a Content-Type field cannot be read")
    return found


def _judge(found: Entity, main: bytes, sub: bytes, declared: bytes) -> None:
    found.text = main == b"text"
    if main == b"multipart" and sub in (b"signed", b"encrypted"):
        # RFC 1847 sections 2.1 and 2.2: what was signed may not be changed by anybody on the way.
        _seal(
            found,
            f"a part is multipart/{sub.decode()}, and whatever is changed in it breaks it: encode its content as "
            f"quoted-printable or base64 before it is {sub.decode()}",
        )
    elif main == b"multipart":
        found.kind, found.digest, found.boundary = Kind.MULTIPART, sub == b"digest", boundary(declared)
        if not found.boundary:
            _seal(found, f"a part is multipart/{sub.decode()} without a boundary")
    elif main == b"message" and sub in _CLEAR_BODIES:
        found.kind = Kind.MESSAGE
    elif main == b"message" and sub not in _ENCODABLE_MESSAGES:
        _seal(found, f"a part is message/{sub.decode()}, which is 7-bit only")
    if found.kind is not Kind.LEAF and not found.separator:
        _seal(found, f"a part is {main.decode()}/{sub.decode()} without an empty line after its header")
    if found.encoding not in _PLAIN:
        _seal(
            found,
            f"a part says that it is {_shown(found.encoding)} and has 8-bit octets all the same: say 8bit or encode",
        )


def _seal(found: Entity, why: str) -> None:
    found.kind, found.sealed = Kind.SEALED, why


def boundary(content_type: bytes) -> bytes:
    """The parameter boundary (RFC 2046 section 5.1.1); empty where there is none, or a quoted string has no end."""
    if b'"' in _QUOTED_STRING.sub(b"", content_type):
        return b""
    for found in _PARAMETER.finditer(content_type):
        if found[1].lower() == b"boundary":
            quoted, plain = found[2], found[3]
            return (_QUOTED_PAIR.sub(rb"\1", quoted) if quoted is not None else plain).rstrip(b" \t")
    return b""


def _encoding(value: bytes | None) -> bytes:
    found = _WORD.match(value or b"")
    return found[1].lower() if found else b""


def _only(fields: Sequence[bytes], wanted: bytes) -> bytes | None:
    """The unfolded value of the one field with this name. Two would be read in two ways."""
    values = [raw for raw in fields if name(raw) == wanted]
    if len(values) > 1:
        raise Unconvertible(f"a part has {len(values)} {_shown(values[0])} fields")
    return _FOLD.sub(b"", values[0].partition(b":")[2]).strip() if values else None


def _shown(raw: bytes) -> str:
    text = raw.partition(b":")[0][:60].decode("ascii", "replace")
    return "".join(character if character.isprintable() and character.isascii() else "?" for character in text)
