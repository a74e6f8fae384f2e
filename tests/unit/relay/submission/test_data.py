"""DATA: only CRLF.CRLF ends it, whatever the blocks, and nothing unsound gets through."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from malote_relay.submission.data import MAX_LINE, ChunkReader, DataReader, Flaw

OCTETS = st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"..", b"a", b"\r\n.", b"\n.\n", b"x" * 400, b"\0", b"\xe9"])
).map(b"".join)

BLOCKS = st.lists(st.integers(1, 7), min_size=1, max_size=5)


def read(octets: bytes, sizes: list[int] | None = None, limit: int = 1_000_000) -> tuple[DataReader, bytes, bytes]:
    """Feed in blocks of the sizes given, over and over; give the reader, the content and what follows the end."""
    reader, content, position, turn = DataReader(limit), b"", 0, 0
    while position < len(octets) and not reader.finished:
        size = sizes[turn % len(sizes)] if sizes else len(octets)
        piece, rest = reader.feed(octets[position : position + size])
        content += piece
        position, turn = position + size, turn + 1
        if reader.finished:
            return reader, content, rest + octets[position:]
    return reader, content, b""


@pytest.mark.parametrize(
    ("octets", "content"),
    [
        (b".\r\n", b""),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),
        (b"a\r\n..b\r\n...\r\n.\r\n", b"a\r\n.b\r\n..\r\n"),
        (b"a.\r\n.\r\n", b"a.\r\n"),
        (b"\r\n\r\n.\r\n", b"\r\n\r\n"),
    ],
)
def test_dots_at_line_starts_are_undone(octets: bytes, content: bytes) -> None:
    reader, found, rest = read(octets + b"NEXT\r\n")
    assert (reader.finished, reader.flaw, found, rest) == (True, None, content, b"NEXT\r\n")


def reference(octets: bytes) -> tuple[bytes, bytes] | None:
    """The same, the slow and plain way: content and rest, when complete."""
    end = (b"\r\n" + octets).find(b"\r\n.\r\n")
    if end < 0:
        return None
    lines = octets[:end].split(b"\r\n")
    return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines), octets[end + 3 :]


@pytest.mark.parametrize(
    "octets", [b"a\nb", b"a\rb", b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n", b"\n"]
)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_cr_or_lf_alone_is_a_flaw_and_ends_nothing(octets: bytes, size: int) -> None:
    reader, content, rest = read(b"x" + octets + b"y\r\n.\r\nNEXT\r\n", [size])
    assert (reader.finished, reader.flaw, rest) == (True, Flaw.BARE_CR_OR_LF, b"NEXT\r\n")
    assert b"y" not in content


@given(
    st.builds(lambda start, end: start + end, OCTETS, st.sampled_from([b"", b"\r\n.\r\n", b"\r\n.\r\nNEXT"])), BLOCKS
)
@example(b"\r\n.\r\n.\r\n", [1])
def test_blocks_do_not_matter_and_only_crlf_dot_crlf_ends(octets: bytes, sizes: list[int]) -> None:
    reader, content, rest = read(octets, sizes)
    expected = reference(octets)
    assert reader.finished == (expected is not None)
    if expected is None:
        return
    whole, after = expected
    assert rest == after
    unsound = (
        whole.replace(b"\r\n", b"").find(b"\r") >= 0
        or whole.replace(b"\r\n", b"").find(b"\n") >= 0
        or b"\0" in whole
        or any(len(line) > MAX_LINE for line in whole.split(b"\r\n"))
    )
    assert (reader.flaw is not None) == unsound
    if not unsound:
        assert content == whole
        assert reader.size == len(whole)


@given(st.integers(MAX_LINE - 3, MAX_LINE + 3), st.lists(st.integers(1, 1500), min_size=1, max_size=4))
def test_a_line_may_have_998_octets(length: int, sizes: list[int]) -> None:
    reader, _, _ = read(b"ab\r\n" + b"x" * length + b"\r\ny\r\n.\r\n", sizes)
    assert reader.finished
    assert reader.flaw is (Flaw.LONG_LINE if length > MAX_LINE else None)


def test_a_leading_dot_does_not_count_to_the_lines_length() -> None:
    reader, _, _ = read(b".." + b"x" * (MAX_LINE - 1) + b"\r\n.\r\n")
    assert reader.flaw is None


@given(st.integers(0, 20), st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_a_message_may_have_just_as_many_octets_as_the_limit(size: int, sizes: list[int]) -> None:
    reader, content, _ = read(b"x" * size + b"\r\n.\r\n", sizes, limit=12)
    assert reader.finished
    assert reader.flaw is (Flaw.TOO_BIG if size + 2 > 12 else None)
    assert len(content) <= 12


@given(OCTETS, BLOCKS)
@example(b"a\r", [1])
@example(b"a\r\nb", [2])
def test_chunks_are_read_as_data_is_but_for_the_dots(octets: bytes, sizes: list[int]) -> None:
    reader, content, position, turn = ChunkReader(1_000_000), b"", 0, 0
    while position < len(octets):
        size = sizes[turn % len(sizes)]
        content += reader.feed(octets[position : position + size])
        position, turn = position + size, turn + 1
    content += reader.end()
    # The same by DATA, with the dots stuffed; a CR before the end of data would not be alone any more.
    ended = octets if octets.endswith(b"\r\n") or not octets else octets + b"\r\n"
    alone = octets.endswith(b"\r")
    lines = [b"." + line if line.startswith(b".") else line for line in ended.split(b"\r\n")]
    expected, whole, _ = read(b"\r\n".join(lines) + b".\r\n")
    assert (reader.flaw is not None) == (expected.flaw is not None or alone)
    if reader.flaw is None:
        assert content == whole == ended
        assert reader.size == expected.size
