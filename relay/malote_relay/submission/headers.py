"""The header section taken apart (RFC 5322 sections 2.2, 3.4, 3.6), octet by octet, failing closed.

Receivers differ in how they read a malformed header. A relay that vouches for header From must not sign a message
that others could read as being from someone else, so whatever could be read in two ways is refused here: a line
that is no field, a blank before the colon, a second From or Subject, a group, a route, a comment inside an
address, an encoded word where an address stands, an unquoted @ in a display name, an address in a comment,
characters that turn the direction of writing, control characters in encoded words too.
"""

from __future__ import annotations

import binascii
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from malote_relay.submission.address import MISLEADING, AddressError, Mailbox, mailbox

_NAME = re.compile(rb"[!-9;-~]+\Z")
_TOKEN = re.compile(
    r"""(?P<blank>[ \t]+)
      | (?P<quoted>"(?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\x20-\x7e\t])*")
      | (?P<atom>[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\-\u0080-\U0010ffff]+)
      | (?P<special>[()<>@,;:\\\[\]])""",
    re.VERBOSE,
)
_SIMPLE = re.compile(r"[ \t]*(?:[A-Za-z0-9 !#$%&'*+/?^_`{|}~.\-]*<)?([A-Za-z0-9._+\-]+@[A-Za-z0-9.\-]+)(>?)[ \t]*\Z")

_NO_ADDRESS = re.compile(r"[^<>@\x00-\x08\x0a-\x1f\x7f]*\Z")
_ENCODED_WORD = re.compile(r"=\?([^?*\s]+)(?:\*[^?\s]*)?\?([bBqQ])\?([^?\s]*)\?=")
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_ENDS = re.compile(rb"[\x00\r\n]")
_UNICODE = frozenset(("utf-8", "utf8", "utf-7", "utf-16", "utf-16le", "utf-16be", "utf-32", "gb18030"))
"""The charsets of encoded words that have the characters of `MISLEADING`."""

_ONCE: Final = dict.fromkeys(
    (b"date", b"reply-to", b"to", b"cc", b"message-id", b"in-reply-to", b"references", b"subject"),
    "RFC 5322 section 3.6",
) | dict.fromkeys((b"content-type", b"content-transfer-encoding"), "RFC 2045 section 3")
"""And where that is said. Without From and Sender, which the policy asks for, and Bcc, which is removed.

By another Content-Type the body is another one; hosts are known to refuse such mail, and it has no 7-bit form.
MIME-Version is often there twice, and says the same.
"""


MAX_FIELDS: Final = 1000
"""Fields in a header section: real messages have some dozens."""

MAX_ORIGINATOR: Final = 4096
"""Characters in a field that names who sends."""


class HeaderError(ValueError):
    """The header section cannot be read without doubt; the message says where and why."""


class Field(NamedTuple):
    """One header field: its name in lower case, and its octets as they stand, CRLF included."""

    name: bytes
    raw: bytes

    @property
    def value(self) -> str:
        """The body of the field, unfolded. Raises HeaderError when it is not UTF-8 (RFC 6532)."""
        body = self.raw.partition(b":")[2]
        try:
            return body.replace(b"\r\n", b"").decode("utf-8").strip(" \t")
        except UnicodeDecodeError:
            raise HeaderError(f"the field {self.name.decode('ascii')!r} is neither ASCII nor UTF-8") from None


def split(content: bytes) -> tuple[list[Field], int]:
    """The fields of the header section, and where the body starts (at the empty line, if there is one).

    Raises HeaderError.
    """
    if content.startswith(b"\r\n"):
        return [], 0
    end = content.find(b"\r\n\r\n")
    section = content[: end + 2] if end >= 0 else content
    names: list[bytes] = []
    raws: list[list[bytes]] = []  # a field's lines are joined once: a field may have tens of thousands
    lines = section.split(b"\r\n")[:-1]
    if section.count(b"\r") != len(lines) or section.count(b"\n") != len(lines):
        raise HeaderError("the header has a CR or LF that stands alone: others may see one more line there")
    for number, line in enumerate(lines, 1):
        if line[:1] in (b" ", b"\t"):
            if not raws:
                raise HeaderError("the first line is a continuation of nothing")
            if not line.strip(b" \t"):
                raise HeaderError(f"line {number} of the header consists of blanks only")
            raws[-1].append(line)
            continue
        name, colon, _ = line.partition(b":")
        if not colon or not _NAME.match(name):
            if colon and _NAME.match(name.rstrip(b" \t")):
                label = name.decode("ascii").rstrip()
                raise HeaderError(f"line {number} of the header has a blank before the colon: write '{label}:'")
            raise HeaderError(f"line {number} is no header field (an empty line must stand before the body)")
        names.append(name.lower())
        raws.append([line])
    if len(names) > MAX_FIELDS:
        raise HeaderError(f"the message has {len(names)} header fields: {MAX_FIELDS} are allowed")
    fields = [Field(name, b"\r\n".join((*raw, b""))) for name, raw in zip(names, raws, strict=True)]
    return fields, len(section)


def refuse_repeated(fields: Sequence[Field]) -> None:
    """Raise HeaderError when a field stands more than once that may not: readers differ in which one they show."""
    names = [field.name for field in fields]
    if len(set(names)) == len(names):
        return
    for name, count in Counter(names).items():
        if count > 1 and name in _ONCE:
            label = _label_of(name)
            raise HeaderError(f"the message has {count} {label} fields: one is allowed ({_ONCE[name]})")


def named(fields: Sequence[Field], name: bytes) -> list[Field]:
    """The fields of that name (lower case), in order."""
    return [field for field in fields if field.name == name]


def only_mailbox(field: Field) -> Mailbox:
    """The one mailbox that the field names. Raises HeaderError when there is none, or more, or any doubt."""
    found = mailboxes(field)
    if len(found) != 1:
        raise HeaderError(f"{_label(field)} must name exactly one address, not {len(found)}")
    return found[0]


def mailboxes(field: Field) -> list[Mailbox]:
    """The mailboxes of a field that is a mailbox-list (RFC 5322 section 3.4). Raises HeaderError."""
    value = field.value
    if len(value) > MAX_ORIGINATOR:
        raise HeaderError(f"{_label(field)} is too long: {MAX_ORIGINATOR} characters are allowed")
    simple = _SIMPLE.match(value)
    if simple and ("<" in value) == bool(simple[2]):  # the common forms, without the scanner
        return [_mailbox(simple[1], field)]
    encoded = _encoded_text(value)
    if MISLEADING.search(value) or MISLEADING.search(encoded) or _CONTROLS.search(encoded):
        raise HeaderError(f"{_label(field)} has control characters, or some that turn the direction of writing")
    return [_one(tokens, field) for tokens in _elements(value, field)]


def _encoded_text(value: str) -> str:
    """What the encoded words (RFC 2047) say as far as they are in Unicode; of others, what ends a text or a line.

    Programs are known to show a name up to its NUL or line end, and nothing behind it. Octets are joined before they
    are decoded, since a character may be torn apart between two words.
    """
    octets: defaultdict[str, bytes] = defaultdict(bytes)
    for charset, encoding, text in _ENCODED_WORD.findall(value):
        if text.isascii():
            try:
                # Some programs leave the padding out; more of it than there must be is no fault.
                decoded = binascii.a2b_base64(f"{text}==") if encoding in "bB" else binascii.a2b_qp(text, header=True)
            except binascii.Error:
                raise HeaderError(f"the encoded word {text!r} is not valid base64") from None
            octets[charset.lower()] += decoded
    return "".join(
        text.decode(charset, "replace") if charset in _UNICODE else b"".join(_ENDS.findall(text)).decode()
        for charset, text in octets.items()
    )


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


def _elements(value: str, field: Field) -> list[list[_Token]]:
    """The value's tokens, comments replaced by one of kind "comment", split at the commas between mailboxes."""
    elements: list[list[_Token]] = [[]]
    position = 0
    angle = False
    while position < len(value):
        match = _TOKEN.match(value, position)
        if match is None:
            raise HeaderError(f"{_label(field)} has a character that may not stand there: {value[position]!r}")
        kind, text = str(match.lastgroup), match[0]
        if text == "(":
            position = _after_comment(value, position, field)
            elements[-1].append(_Token("comment", ""))
            continue
        position = match.end()
        if text == "<":
            angle = True
        elif text == ">":
            angle = False
        if text == "," and not angle:
            elements.append([])
        else:
            elements[-1].append(_Token(kind, text))
    # RFC 5322 section 4.4: obsolete lists may have empty elements. Receivers differ; none is let through.
    if any(all(token.kind in {"blank", "comment"} for token in element) for element in elements):
        raise HeaderError(f"{_label(field)} has an empty place where an address should be")
    return elements


def _after_comment(value: str, start: int, field: Field) -> int:
    depth, position = 0, start
    while position < len(value):
        character = value[position]
        position += 1
        if character == "\\":
            position += 1
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if depth == 0:
                if not _NO_ADDRESS.match(value, start, position):
                    raise HeaderError(f"{_label(field)} has one of < > @ in a comment: write it without")
                return position
    raise HeaderError(f"{_label(field)} has a comment that does not end")


def _one(tokens: list[_Token], field: Field) -> Mailbox:
    """One mailbox: `name-addr` or `addr-spec`."""
    texts = [token.text if token.kind == "special" else "" for token in tokens]
    if ":" in texts or ";" in texts:
        raise HeaderError(f"{_label(field)} has a group: write one plain address")
    if "<" in texts:
        start = texts.index("<")
        if texts.count("<") != 1 or texts.count(">") != 1 or texts.index(">") < start:
            raise HeaderError(f"{_label(field)}: the angle brackets do not match")
        end = texts.index(">")
        phrase, inside, after = tokens[:start], tokens[start + 1 : end], tokens[end + 1 :]
        if any(token.kind == "special" for token in phrase):
            raise HeaderError(f"{_label(field)}: put the display name in quotes, it has special characters")
        if any(token.kind not in {"blank", "comment"} for token in after):
            raise HeaderError(f"{_label(field)} has something after the address")
    else:
        inside = _trimmed(tokens)
    if any(token.kind in {"blank", "comment"} for token in inside):
        raise HeaderError(f"{_label(field)}: blanks or comments inside the address")
    return _mailbox("".join(token.text for token in inside), field)


def _trimmed(tokens: list[_Token]) -> list[_Token]:
    start, end = 0, len(tokens)
    while start < end and tokens[start].kind in {"blank", "comment"}:
        start += 1
    while end > start and tokens[end - 1].kind in {"blank", "comment"}:
        end -= 1
    return tokens[start:end]


def _mailbox(text: str, field: Field) -> Mailbox:
    if text.count("@") != 1:
        # More than one @ is a route, or a quoted local part made to look like another address.
        raise HeaderError(f"{_label(field)}: {text!r} is not a plain address of the form user@domain")
    if "=?" in text:
        raise HeaderError(f"{_label(field)}: an encoded word cannot stand for an address (RFC 2047 section 5)")
    try:
        return mailbox(text)
    except AddressError as error:
        raise HeaderError(f"{_label(field)}: {error}") from None


def _label(field: Field) -> str:
    return _label_of(field.name)


def _label_of(name: bytes) -> str:
    return "-".join(part.capitalize() for part in name.decode("ascii").split("-"))
