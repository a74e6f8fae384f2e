"""The canonical form that is signed, against dkimpy's, in any blocks."""

from __future__ import annotations

import hashlib

from dkim.canonicalization import Relaxed
from tests.fuzz.target import Target

from malote_relay.signing import canonical


def check(data: bytes) -> None:
    size = data[0] % 5 + 1 if data else 1
    body = data[1:]
    expected = hashlib.sha256(Relaxed.canonicalize_body(body)).digest()
    assert canonical.body_hash(body) == expected
    assert canonical.body_hash(body[i : i + size] for i in range(0, len(body), size)) == expected
    # A header section as it gets here has passed the parser: every line a field or a continuation, CRLF at its end.
    # dkimpy takes vertical tabs and form feeds for white space, which RFC 6376 section 2.8 does not.
    lines = [line for line in body.translate(None, b"\r\n\x0b\x0c").split(b".") if line.strip(b" \t")]
    header = b"\r\n".join(b"X%d:" % number + line for number, line in enumerate(lines))
    fields = canonical.split_fields(header)
    theirs = [name + b":" + value for name, value in Relaxed.canonicalize_headers([list(one) for one in fields])]
    assert [canonical.header_field(*one) for one in fields] == theirs


TARGET = Target(
    "canonical",
    check,
    words=(b"\r\n", b"\r\n\r\n", b" \r\n", b"\t\r\n", b"  ", b"a", b" b ", b"\r\n ", b".X: y"),
    seeds=(b"\x01 C \r\nD \t E\r\n\r\n\r\n", b"\x02a\r\n \t\r\n"),
)
