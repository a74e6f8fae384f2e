"""Any octets as a tree of MIME parts, read with a bounded amount of work. Never raises.

Python's parser takes anything, but its time and depth grow with what it is given: so the size, the number of parts,
the length of lines and of folded header fields are cut to a measure first. Reports say what they say at their
beginning.
"""

from __future__ import annotations

import email.header
import email.message
import email.parser
import email.policy
import re
from collections.abc import Iterator, Sequence

MAX_OCTETS = 256 * 1024
"""What is looked at of a message."""

_MAX_LINES = 10_000
_MAX_LINE = 1000
_MAX_FOLDS = 20
_MAX_PARTS = 40
_MAX_GROUPS = 200
_CONTENT_TYPE = re.compile(rb"content-type\s*:", re.IGNORECASE)
_BLANKS = re.compile(r"\s+")

Fields = Sequence[tuple[str, str]]
"""Names in lower case with unfolded values, in their order."""


def read(content: bytes) -> email.message.Message | None:
    """The message; None for what defeats the parser all the same."""
    try:
        return email.parser.BytesParser(policy=email.policy.compat32).parsebytes(_bounded(content))
    except Exception:  # whatever a parser of others stumbles over must not cost more than this message
        return None


def parts(message: email.message.Message) -> Iterator[email.message.Message]:
    """The message and its parts, outermost first."""
    waiting = [message]
    while waiting:
        part = waiting.pop(0)
        yield part
        waiting += below(part)


def below(part: email.message.Message) -> list[email.message.Message]:
    """The parts directly below this one."""
    # Asked for only where there are some: getting a text in this way raises for some charsets.
    payload = part.get_payload() if part.is_multipart() else []
    return [one for one in payload if isinstance(one, email.message.Message)]


def kind(part: email.message.Message) -> str:
    """The media type in lower case; the default one where the field makes no sense."""
    try:
        return part.get_content_type()
    except Exception:  # some parameters defeat it
        return "text/plain"


def fields(part: email.message.Message) -> Fields:
    """The header fields of a part."""
    try:
        return [(name.lower().strip(), _unfolded(str(value))) for name, value in part.items()]
    except Exception:
        return []


def first(among: Fields, *names: str) -> str:
    """The value of the first field that has one of the names, tried in their order; "" for none."""
    return next((value for wanted in names for name, value in among if name == wanted and value), "")


def decoded(value: str) -> str:
    """A field's text with its encoded words (RFC 2047) decoded, as far as they can be; of its beginning only."""
    value = value[:_MAX_LINE]
    try:
        return str(email.header.make_header(email.header.decode_header(value)))
    except Exception:
        return value


def text(part: email.message.Message) -> str:
    """The text of a part that has none below it."""
    try:
        payload = part.get_payload(decode=True)
        if not isinstance(payload, bytes):
            return ""
        charset = part.get_content_charset() or "utf-8"
        try:
            return payload.decode(charset, "replace")
        except LookupError:
            return payload.decode("utf-8", "replace")
    except Exception:
        return ""


def groups(part: email.message.Message) -> list[Fields]:
    """The groups of fields in a part that consists of them (RFC 3464 section 2.1, RFC 5965 section 3).

    However the parser has cut it up: into messages without a body, or one with the rest in its body; encoded or not.
    """
    lines: list[str] = []
    if not part.is_multipart():
        return _cut(text(part).splitlines())
    for one in below(part):
        lines += [f"{name}: {value}" for name, value in fields(one)]
        lines += ["", *text(one).splitlines(), ""]
    encoding = first(fields(part), "content-transfer-encoding").lower()
    if encoding in ("base64", "quoted-printable"):
        lines = _decoded("\n".join(lines).strip(), encoding).splitlines()
    return _cut(lines)


def _cut(lines: Sequence[str]) -> list[Fields]:
    found: list[list[tuple[str, str]]] = [[]]
    for line in lines:
        if not line.strip():
            if found[-1]:
                if len(found) >= _MAX_GROUPS:
                    break
                found.append([])
        elif line[0] in " \t" and found[-1]:
            name, value = found[-1][-1]
            found[-1][-1] = (name, f"{value} {line.strip()}"[:4000])
        else:
            name, colon, value = line.partition(":")
            if colon:
                found[-1].append((name.strip().lower(), value.strip()))
    return [list(group) for group in found if group]


def _decoded(body: str, encoding: str) -> str:
    wrapped = email.message.Message()
    wrapped["Content-Transfer-Encoding"] = encoding
    wrapped.set_payload(body)
    return text(wrapped)


def _unfolded(value: str) -> str:
    return _BLANKS.sub(" ", value).strip()


def _bounded(content: bytes) -> bytes:
    content = content[:MAX_OCTETS]
    kept: list[bytes] = []
    folds = 0
    for line in content.splitlines()[:_MAX_LINES]:
        folds = folds + 1 if line[:1] in (b" ", b"\t") else 0
        if folds <= _MAX_FOLDS:
            kept.append(line[:_MAX_LINE])
    joined = b"\n".join(kept) + b"\n"
    for number, found in enumerate(_CONTENT_TYPE.finditer(joined)):
        if number >= _MAX_PARTS:
            return joined[: found.start()]
    return joined
