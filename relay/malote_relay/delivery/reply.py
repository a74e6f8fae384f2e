"""SMTP replies: read strictly (RFC 5321 section 4.2), as they arrive in pieces.

A remote server is not to be trusted with our memory or our time: lines and replies are bounded, and whatever is not
a reply ends the session.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

MAX_LINE = 2048
"""Octets in a reply line; RFC 5321 section 4.5.3.1.5 says 512, some say more."""

MAX_LINES = 200
MAX_STORED = 1000
"""Characters of a reply that are kept for reports."""

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?=\s|$)")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class BadReply(Exception):
    """The remote does not speak SMTP; the message says what it sent. Drop the connection.

    `before` are the replies that were complete before it, in the same block: what they say is so, and one of them
    may be the final 250.
    """

    before: Sequence[Reply] = ()


class About(enum.Enum):
    """Of what a refusal can speak, by the command that it answers."""

    RECIPIENT = "recipient"
    SENDER = "sender"
    """The reverse-path: it answers MAIL, and no recipient has been named yet."""
    MESSAGE = "message"
    """All of several recipients, or of nobody: should it mean one, it does not say which."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One complete reply. `lines` are its texts without codes and line ends."""

    code: int
    lines: tuple[str, ...] = ("",)
    about: About = field(default=About.RECIPIENT, compare=False)

    @property
    def enhanced(self) -> str:
        """The enhanced status code (RFC 2034) such as "5.1.1", or "" when there is none that fits the code."""
        found = _ENHANCED.match(self.lines[0])
        return found[0] if found and int(found[1]) == self.code // 100 else ""

    @property
    def accepted(self) -> bool:
        """A 2yz reply."""
        return self.code // 100 == 2

    @property
    def intermediate(self) -> bool:
        """A 3yz reply: it waits for something that is not a command."""
        return self.code // 100 == 3

    @property
    def permanent(self) -> bool:
        """A 5yz reply."""
        return self.code // 100 == 5

    def __str__(self) -> str:
        """On one line, without control characters, the enhanced code once."""
        texts = list(self.lines)
        if code := self.enhanced:
            texts[1:] = [text.removeprefix(code).strip() for text in texts[1:]]
        return _UNPRINTABLE.sub(" ", f"{self.code} {' '.join(texts)}").strip()[:MAX_STORED]


def parse(text: str) -> Reply:
    """A reply from its one-line form, as `str(reply)` gives it."""
    return Reply(int(text[:3]), (text[4:],))


class ReplyParser:
    """Turns octets as they come into replies. After BadReply it must not be fed again."""

    def __init__(self) -> None:
        self._rest = b""
        self._code = 0
        self._lines: list[str] = []

    @property
    def idle(self) -> bool:
        """Nothing has been begun: what a server may not have sent before STARTTLS takes effect."""
        return not self._rest and not self._lines

    def feed(self, data: bytes) -> list[Reply]:
        """The replies completed by `data`. Raises BadReply."""
        replies: list[Reply] = []
        *lines, self._rest = (self._rest + data).split(b"\n")
        try:
            for line in lines:
                reply = self._line(line.removesuffix(b"\r"))
                if reply is not None:
                    replies.append(reply)
            if len(self._rest) > MAX_LINE:
                raise BadReply(f"a reply line of more than {MAX_LINE} octets")
        except BadReply as error:
            error.before = replies
            raise
        return replies

    def _line(self, line: bytes) -> Reply | None:
        found = _LINE.fullmatch(line)
        if found is None or len(line) > MAX_LINE:
            raise BadReply(f"not an SMTP reply: {line[:80]!r}")
        code, separator, text = int(found[1]), found[2], found[3] or b""
        if self._lines and code != self._code:
            raise BadReply(f"a reply that begins with {self._code} goes on with {code}")
        if len(self._lines) >= MAX_LINES:
            raise BadReply(f"a reply of more than {MAX_LINES} lines")
        self._code = code
        self._lines.append(text.decode("utf-8", "replace"))
        if separator == b"-":
            return None
        reply = Reply(code, tuple(self._lines))
        self._lines = []
        return reply


@dataclass(frozen=True, slots=True)
class Failure:
    """What happened instead of a reply: no connection, a time-out, a local reason. `words` read like a reply.

    `stale` means that a kept connection turned out to be gone before anything was answered: try another at once.
    `said` are the remote's own words, where it is a reply after all: one that was no answer to a transaction.
    `lacking`: only because this host does not offer an extension, which another host of the domain may.
    """

    words: str
    bounce_class: str
    permanent: bool = False
    stale: bool = False
    said: str = ""
    lacking: bool = False


Answer = Reply | Failure
"""How the attempt ended for one recipient."""
