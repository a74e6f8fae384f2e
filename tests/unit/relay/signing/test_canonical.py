"""The canonical form, against RFC 6376's own examples and against dkimpy for arbitrary text."""

from __future__ import annotations

import hashlib
import random

import pytest
from dkim.canonicalization import Relaxed
from hypothesis import example, given
from hypothesis import strategies as st

from malote_relay.signing import canonical

# Text in which lines, empty lines, white space and lone CR and LF are as frequent as anything else.
_PIECES = st.sampled_from([b"\r\n", b"\r\n", b" ", b"\t", b"\r", b"\n", b"a", b"bc", b"", b"\xff", b"  x", b"y \t"])
bodies = st.lists(_PIECES, max_size=60).map(b"".join)
names = st.from_regex(rb"[!-9;-~]{1,10}[ \t]?", fullmatch=True)
values = st.lists(st.sampled_from([b"\r\n ", b"\r\n\t", b" ", b"\t", b"v", b"w:;=", b"\xc3\xa9"]), max_size=20).map(
    b"".join
)


def cut(body: bytes, seed: int) -> list[bytes]:
    places = random.Random(seed)
    blocks = []
    while body:
        size = places.randint(1, 5)
        blocks.append(body[:size])
        body = body[size:]
    return blocks


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n"),  # RFC 6376 section 3.4.5
        (b"", b""),
        (b"\r\n", b""),
        (b"\r\n\r\n \t\r\n", b""),
        (b"no line end", b"no line end\r\n"),
        (b"\r\n\r\na\r\n", b"\r\n\r\na\r\n"),
        (b"a\nb\r\n", b"a\nb\r\n"),
    ],
)
def test_the_body_of_the_standards_example_and_its_corners(body: bytes, expected: bytes) -> None:
    assert canonical.body_hash(body) == hashlib.sha256(expected).digest()


def test_the_header_of_the_standards_example() -> None:
    fields = canonical.split_fields(b"A: X\r\nB : Y\t\r\n\tZ  ")
    assert [canonical.header_field(*field) for field in fields] == [b"a:X\r\n", b"b:Y Z\r\n"]


@given(bodies, st.integers())
@example(b"a \r\n" + b"\r\n" * 10, 1)
def test_any_body_in_any_blocks_hashes_as_dkimpy_has_it(body: bytes, seed: int) -> None:
    expected = hashlib.sha256(Relaxed.canonicalize_body(body)).digest()
    assert canonical.body_hash(body) == expected
    assert canonical.body_hash(cut(body, seed)) == expected


@given(st.lists(st.tuples(names, values), max_size=8))
def test_any_header_is_canonical_as_dkimpy_has_it(fields: list[tuple[bytes, bytes]]) -> None:
    expected = [
        name + b":" + value for name, value in Relaxed.canonicalize_headers([list(field) for field in fields])
    ]
    assert [canonical.header_field(*field) for field in fields] == expected


def test_a_body_of_empty_lines_takes_no_memory() -> None:
    hasher = canonical.BodyHash()
    for _ in range(100):
        hasher.update(b"\r\n" * 100_000)
    assert sum(map(len, hasher._pending)) < 10
    hasher.update(b"end\r\n")
    assert hasher.digest() == hashlib.sha256(b"\r\n" * 10_000_000 + b"end\r\n").digest()
