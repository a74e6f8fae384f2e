"""The two encodings, against the standard library's decoders."""

from __future__ import annotations

import base64
import quopri

from hypothesis import example, given
from hypothesis import strategies as st

from malote_relay.delivery.conversion.encoders import Base64, QuotedPrintable

CRLF = b"\r\n"
lines = st.lists(
    st.lists(
        st.sampled_from([b"a", b"-", b"--", b"=", b" ", b"\t", b".", "é".encode(), b"\xff", b"\0", b"bc" * 30])
    ).map(b"".join),
    max_size=6,
)


@given(lines, st.integers(0, 5), st.booleans())
@example([b"x" * 75 + b" "], 0, True)
@example([b"x" * 74 + b"\xff"], 0, True)
@example([b"x" * 75 + b"--", b"--boundary"], 0, True)
def test_quoted_printable_decodes_to_what_it_was_in_short_lines(lines: list[bytes], cut: int, ended: bool) -> None:
    whole = [line + CRLF for line in lines]
    if whole and not ended:
        whole[-1] = lines[-1]
    encoder = QuotedPrintable()
    encoded = encoder.feed(b"".join(whole[:cut])) + encoder.feed(b"".join(whole[cut:])) + encoder.end(delimited=False)
    assert quopri.decodestring(encoded) == b"".join(whole)
    assert encoded.isascii()
    for line in encoded.split(CRLF):
        assert len(line) <= 76
        assert not line.startswith(b"--")
        assert line == line.rstrip(b" \t")


@given(lines, st.integers(0, 5), st.booleans())
def test_base64_decodes_to_what_it_was_and_leaves_the_boundary_its_line_end(
    lines: list[bytes], cut: int, delimited: bool
) -> None:
    whole = [line + CRLF for line in lines]
    encoder = Base64()
    encoded = encoder.feed(b"".join(whole[:cut])) + encoder.feed(b"".join(whole[cut:]))
    encoded += encoder.end(delimited=delimited)
    text = b"".join(whole)
    assert base64.b64decode(encoded) == (text.removesuffix(CRLF) if delimited else text)
    assert all(len(line) <= 76 for line in encoded.split(CRLF))
    assert not encoded or encoded.endswith(CRLF)


def test_a_line_of_no_content_stays_as_short_as_it_is() -> None:
    assert QuotedPrintable().feed(b"one\r\n\r\n.\r\n..two=\r\n") == b"one\r\n\r\n=2E\r\n..two=3D\r\n"
