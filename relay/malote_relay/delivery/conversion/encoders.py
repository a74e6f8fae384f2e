"""The two encodings of RFC 2045 section 6, fed in pieces."""

from __future__ import annotations

import binascii
from typing import Final, Protocol

CRLF: Final = b"\r\n"
_WIDTH: Final = 76
_BASE64_OCTETS: Final = 57  # that make one line


class Encoder(Protocol):
    """Takes a body of whole lines, its last one perhaps without an end."""

    def feed(self, lines: bytes) -> bytes:
        """The encoded form of the next lines."""
        ...

    def end(self, *, delimited: bool) -> bytes:
        """What is left. `delimited`: a boundary follows, to which the last CRLF belongs (RFC 2046 section 5.1.1)."""
        ...


class QuotedPrintable:
    """Line by line (section 6.7): line ends stay what they are."""

    def feed(self, lines: bytes) -> bytes:
        """See `Encoder`."""
        return CRLF.join(map(_quoted_line, lines.split(CRLF)))

    def end(self, *, delimited: bool) -> bytes:
        """See `Encoder`."""
        return b""


class Base64:
    """Octet by octet (section 6.8): line ends are among them."""

    def __init__(self) -> None:
        self._rest = b""
        self._line_end = b""
        """Kept back: it may belong to the boundary."""

    def feed(self, lines: bytes) -> bytes:
        """See `Encoder`."""
        octets = self._rest + self._line_end + lines
        self._line_end = CRLF if octets.endswith(CRLF) else b""
        whole = (len(octets) - len(self._line_end)) // _BASE64_OCTETS * _BASE64_OCTETS
        self._rest = octets[whole : len(octets) - len(self._line_end)]
        return _base64_lines(octets[:whole])

    def end(self, *, delimited: bool) -> bytes:
        """See `Encoder`."""
        return _base64_lines(self._rest if delimited else self._rest + self._line_end)


def _base64_lines(octets: bytes) -> bytes:
    return b"".join(
        binascii.b2a_base64(octets[at : at + _BASE64_OCTETS], newline=False) + CRLF
        for at in range(0, len(octets), _BASE64_OCTETS)
    )


def _quoted_line(line: bytes) -> bytes:
    """One line without its end, in as many as it needs.

    None begins with two hyphens, so that none can be taken for a boundary, whatever that is.
    """
    if not line:
        return line
    # The module breaks lines too, but not as we want them.
    text = binascii.b2a_qp(line, istext=False).replace(b"=\n", b"")
    if len(text) <= _WIDTH and not text.startswith(b"--"):
        return text
    lines: list[bytes] = []
    while True:
        if text.startswith(b"--"):
            text = b"=2D" + text[1:]
        if len(text) <= _WIDTH:
            return CRLF.join((*lines, text))
        end = _WIDTH - 1
        if (escape := text.find(b"=", end - 2, end)) >= 0:
            end = escape
        lines.append(text[:end] + b"=")
        text = text[end:]
