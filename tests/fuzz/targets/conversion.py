"""Messages made 7-bit: refused with words, or every part keeps its content, as Python's parser reads it."""

from __future__ import annotations

import email
import email.message
import email.policy
import re
from io import BytesIO

from tests.fuzz.target import Target

from malote_relay.delivery.conversion.fields import Unconvertible
from malote_relay.delivery.conversion.rewrite import look, rewrite
from malote_relay.delivery.conversion.structure import Aside, Body, Delimiter, Header, Piece, pieces

_FROM_LINE = re.compile(rb"^From ", re.MULTILINE)
"""In a header section Python takes it for one of a mailbox file, and loses the blank line behind it."""


class _Dribble(BytesIO):
    """A file that gives a few octets at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(3)


def check(data: bytes) -> None:
    try:
        plan = look(BytesIO(data).read)
    except Unconvertible as error:
        _is_for_people(str(error))
        return
    assert b"".join(_octets(piece) for piece in pieces(BytesIO(data).read)) == data
    result = _converted(BytesIO(data))
    assert result.isascii()
    assert _converted(_Dribble(data)) == result
    assert _converted(BytesIO(result)) == result
    if plan.domain or _FROM_LINE.search(data) or not (before := _parts(data)):
        return
    after = _parts(result)
    assert [(kind, octets) for kind, octets, _ in after] == [(kind, octets) for kind, octets, _ in before]
    changed = any(octets is not None and not octets.isascii() for _, octets, _ in before)
    changed = changed or data.lower().startswith(b"dkim-signature")  # ours, readable or not: it is made anew
    assert changed or not data.isascii() or b"8bit" in data.lower() or b"binary" in data.lower() or result == data


def _is_for_people(words: str) -> None:
    assert words.isprintable()
    assert words.isascii()


def _octets(piece: Piece) -> bytes:
    match piece:
        case Header(entity):
            return b"".join(entity.fields) + entity.separator
        case Body(_, lines) | Aside(lines) | Delimiter(lines):
            return lines


def _converted(file: BytesIO) -> bytes:
    plan = look(file.read)
    file.seek(0)
    target = BytesIO()
    rewrite(file.read, plan, target.write)
    return target.getvalue()


def _parts(message: bytes) -> list[tuple[str, bytes | None, str]]:
    """Type, content and encoding of each part; nothing where a defect lets several readings be right."""
    found = []
    for part in email.message_from_bytes(message, policy=email.policy.compat32).walk():
        content = None if part.is_multipart() else part.get_payload(decode=True)
        if part.defects:
            return []
        assert content is None or isinstance(content, bytes)
        found.append((part.get_content_type(), content, str(part.get("Content-Transfer-Encoding", ""))))
    return found


TARGET = Target(
    "conversion",
    check,
    words=(
        b"\r\n--b\r\n",
        b"\r\n--b--\r\n",
        b"\r\n--bb\r\n",
        b"--b \r\n",
        b"\r\n\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n",
        b'Content-Type: multipart/digest; boundary="bb"\r\n',
        b"Content-Type: multipart/signed; boundary=b\r\n",
        b"Content-Type: message/rfc822\r\n",
        b"Content-Type: image/png\r\n",
        b"Content-Transfer-Encoding: 8bit\r\n",
        b"Content-Transfer-Encoding: quoted-printable\r\n",
        b"MIME-Version: 1.0\r\n",
        "olá".encode(),
        b"x" * 80,
        b"=",
        b"-",
        b";",
        b'"',
    ),
    seeds=(
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\nx\r\n--b\r\n\r\nol\xc3\xa1\r\n--b\r\n'
        b"Content-Type: image/png\r\n\r\n\xff\xfe\r\n--b--\r\nend\r\n",
        b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: x\r\n\r\nol\xe1\r\n--b--\r\n",
        b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\nContent-Type: multipart/mixed; boundary=bb\r\n\r\n"
        b"--bb\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xff\r\n",
        b"DKIM-Signature: d=a.example; b=\r\nFrom: a@a.example\r\n\r\n\xe9\r\n",
    ),
    most=30,
)
