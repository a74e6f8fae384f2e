"""What comes after DATA, up to CRLF.CRLF (RFC 5321 section 4.1.1.4), or in the chunks of BDAT (RFC 3030).

It is read in blocks and not line by line, and both ways apply the same rules to the content.

Only CRLF.CRLF ends the data. Servers that take `LF.LF`, `CR.CR`, `LF.CRLF` and their like for an end as well let an
attacker hide a second message inside a first ("SMTP smuggling"). Here a CR or LF that stands alone is content of a
message that will be refused, and so is everything up to the true end: nothing of it is ever read as a command.
"""

from __future__ import annotations

import enum
from typing import Final

END: Final = b"\r\n.\r\n"
MAX_LINE: Final = 998
"""RFC 5322 section 2.1.1, without CRLF."""

_PREFIXES: Final = (END[:4], END[:3], END[:2], END[:1])


class Flaw(enum.Enum):
    """What makes the content unacceptable; the first one found counts."""

    BARE_CR_OR_LF = "a CR or LF stands alone: end every line with CR LF"
    NUL = "it contains a NUL octet"
    LONG_LINE = f"a line is longer than {MAX_LINE} octets: use quoted-printable or base64"
    TOO_BIG = "it is too big"


class Content:
    """Content as it comes in, with the first flaw found in it. `size` counts its octets."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.flaw: Flaw | None = None
        self._column = 0

    def _look_for_bare(self, piece: bytes) -> None:
        """Line ends and NUL. A piece never ends inside CRLF, so that each can be looked at alone."""
        lines = piece.count(b"\r\n")
        if piece.count(b"\r") != lines or piece.count(b"\n") != lines:
            self.flaw = Flaw.BARE_CR_OR_LF
        elif b"\0" in piece:
            self.flaw = Flaw.NUL

    def _measure(self, content: bytes) -> None:
        """The length of its lines, and its own."""
        if self.flaw is None and self._has_long_line(content):
            self.flaw = Flaw.LONG_LINE
        self.size += len(content)
        if self.flaw is None and self.size > self.limit:
            self.flaw = Flaw.TOO_BIG

    def _has_long_line(self, content: bytes) -> bool:
        """Whether a line exceeds the limit: leaps from window to window instead of looking at each line."""
        start, column, length = 0, self._column, len(content)
        while True:
            window = start + MAX_LINE + 2 - column
            if window >= length:
                last = content.rfind(b"\n", start)
                self._column = length - last - 1 if last >= 0 else column + length - start
                return False
            last = content.rfind(b"\n", start, window)
            if last < 0:
                return True
            start, column = last + 1, 0


class DataReader(Content):
    """Finds the end, undoes dot-stuffing and looks for flaws. Feed it blocks until `finished`.

    After a flaw no more content is given out, but the end is still looked for, so that the session goes on
    with the next command and with nothing else.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.finished = False
        self._first = True
        self._held = b"\r\n"  # the line end before the first line: that of the command DATA itself

    def feed(self, block: bytes) -> tuple[bytes, bytes]:
        """Take a block; give the content it completes, and, once `finished`, what follows the end."""
        data = self._held + block
        end = data.find(END)
        if end >= 0:
            self.finished = True
            piece, self._held, rest = data[: end + 2], b"", data[end + len(END) :]
        else:
            kept = next((len(prefix) for prefix in _PREFIXES if data.endswith(prefix)), 0)
            cut = len(data) - kept
            piece, self._held, rest = data[:cut], data[cut:], b""
        return self._content(piece), rest

    def _content(self, piece: bytes) -> bytes:
        if self.flaw is not None or not piece:
            return b""
        # A piece never ends inside CRLF-dot either, so that dots too can be looked for piece by piece.
        self._look_for_bare(piece)
        # Section 4.5.2: a leading dot goes. A line of just a dot is not here: it would have been the end.
        content = piece.replace(b"\r\n.", b"\r\n")
        if self._first:
            content, self._first = content[2:], False
        self._measure(content)
        return b"" if self.flaw is not None else content


class ChunkReader(Content):
    """The content of one message that comes in chunks, cut anywhere; dots mean nothing in it (RFC 3030 section 2).

    After a flaw no more content is given out.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._held = b""

    def feed(self, block: bytes) -> bytes:
        """Take a block; give the content it completes."""
        if self.flaw is not None:
            return b""
        data = self._held + block
        cut = len(data) - data.endswith(b"\r")  # the LF may come with the next block
        piece, self._held = data[:cut], data[cut:]
        return self._content(piece)

    def end(self) -> bytes:
        """The last content. A last line that does not end in CRLF gets one: it leaves by DATA, where it must."""
        if self.flaw is not None:
            return b""
        if self._held:
            self.flaw = Flaw.BARE_CR_OR_LF
            return b""
        return self._content(b"\r\n") if self._column else b""

    def _content(self, piece: bytes) -> bytes:
        self._look_for_bare(piece)
        self._measure(piece)
        return b"" if self.flaw is not None else piece
