"""A message with 8-bit content written anew as 7-bit MIME: looked through first, then written.

What is encoded says so: a Content-Transfer-Encoding field is changed where it stands, or added. A text that says
nothing of itself gets the rest of what MIME asks for too, with the charset utf-8 if it is that, else unknown-8bit
(RFC 1428 section 3). What is left unencoded no longer calls itself 8bit. Octets beyond ASCII before the first part of
a multipart or after its last one become question marks: nobody is shown these lines (RFC 2046 section 5.1.1).

The signatures that this relay has put on top are left out, since they would no longer hold; who signs again is told
for which domain. Signatures of others stay: one that fails counts as none (RFC 6376 section 6.1), and is a trace.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from malote_relay.delivery.conversion.encoders import CRLF, Base64, Encoder, QuotedPrintable
from malote_relay.delivery.conversion.fields import ENCODING, Entity, Kind, Unconvertible, name
from malote_relay.delivery.conversion.source import Read
from malote_relay.delivery.conversion.structure import Aside, Body, Delimiter, Header, pieces

_EIGHT_BIT: Final = 1
_NOT_UTF8: Final = 2
_QUESTION_MARKS: Final = bytes(octet if octet < 128 else ord("?") for octet in range(256))
_SIGNED_FOR: Final = re.compile(rb"[;:\s]d\s*=\s*([^\s;]+)")


@dataclass(slots=True)
class Plan:
    """What was seen at the first look: flags for each leaf in order, and the domain that the relay signed for."""

    leaves: bytearray = field(default_factory=bytearray)
    domain: str = ""

    def encodes(self, entity: Entity) -> bool:
        """Whether the body has to be encoded."""
        return entity.number >= 0 and bool(self.leaves[entity.number] & _EIGHT_BIT)


def look(read: Read) -> Plan:
    """Read all of a message. Raises Unconvertible, and what `read` raises."""
    plan = Plan()
    for piece in pieces(read):
        match piece:
            case Header(entity):
                if entity.kind is Kind.LEAF:
                    plan.leaves.append(0)
                if entity.top:
                    plan.domain = _signed_for(entity)
            case Body(entity, lines) if not lines.isascii():
                if entity.sealed:
                    raise Unconvertible(entity.sealed)
                plan.leaves[entity.number] |= _EIGHT_BIT | (0 if _is_utf8(lines) else _NOT_UTF8)
    return plan


def rewrite(read: Read, plan: Plan, write: Callable[[bytes], object]) -> None:
    """Write the message of `plan`, from its beginning, as 7-bit MIME without the relay's own signatures."""
    encoder: Encoder | None = None
    for piece in pieces(read):
        match piece:
            case Header(entity):
                write(_header(entity, plan))
                encoder = None
                if plan.encodes(entity):
                    encoder = QuotedPrintable() if entity.text else Base64()
            case Body(_, lines):
                write(lines if encoder is None else encoder.feed(lines))
            case Aside(lines):
                write(lines if lines.isascii() else lines.translate(_QUESTION_MARKS))
            case Delimiter(line):
                if encoder is not None:
                    write(encoder.end(delimited=True))
                    encoder = None
                write(line)
    if encoder is not None:
        write(encoder.end(delimited=False))


def _header(entity: Entity, plan: Plan) -> bytes:
    fields = list(entity.fields)[_own_signatures(entity) :]
    if plan.encodes(entity):
        fields = _with_encoding(fields, b"quoted-printable" if entity.text else b"base64")
        if not entity.typed:
            charset = b"unknown-8bit" if plan.leaves[entity.number] & _NOT_UTF8 else b"utf-8"
            fields.append(b"Content-Type: text/plain; charset=%s\r\n" % charset)
        if entity.top and not any(name(raw) == b"mime-version" for raw in fields):
            fields.append(b"MIME-Version: 1.0\r\n")
        return b"".join(fields) + (entity.separator or CRLF)
    if entity.encoding in (b"8bit", b"binary"):
        fields = _with_encoding(fields, b"7bit")
    return b"".join(fields) + entity.separator


def _with_encoding(fields: list[bytes], encoding: bytes) -> list[bytes]:
    said = b"Content-Transfer-Encoding: %s\r\n" % encoding
    changed = [said if name(raw) == ENCODING else raw for raw in fields]
    return changed if said in changed else [*changed, said]


def _own_signatures(entity: Entity) -> int:
    """How many fields on top of a message are the relay's own signatures: it puts nothing above them."""
    count = 0
    while entity.top and count < len(entity.fields) and name(entity.fields[count]) == b"dkim-signature":
        count += 1
    return count


def _signed_for(entity: Entity) -> str:
    found = _SIGNED_FOR.search(entity.fields[0]) if _own_signatures(entity) else None
    return found[1].decode("ascii").lower() if found else ""


def _is_utf8(lines: bytes) -> bool:
    try:
        lines.decode()
    except UnicodeDecodeError:
        return False
    return True
