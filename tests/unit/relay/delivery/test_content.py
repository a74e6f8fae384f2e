from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malote_relay.delivery import content as module
from malote_relay.delivery.content import Content, Stuffer
from malote_relay.store.contents import Damaged, StoredFile

LINES = st.lists(st.sampled_from([b"", b".", b"..", b".x", b"x", b"x.", b"x\r", b"\nx"]), max_size=12)


def unstuffed(data: bytes) -> bytes:
    """What a receiver makes of it (RFC 5321 section 4.5.2)."""
    lines = []
    while True:
        line, end, data = data.partition(b"\r\n")
        assert end, "no final dot"
        if line == b".":
            break
        lines.append(line.removeprefix(b".") + end)
    assert not data, f"something follows the final dot: {data!r}"
    return b"".join(lines)


@given(LINES, st.lists(st.integers(0, 60), max_size=6), st.booleans())
def test_content_cut_anywhere_arrives_as_it_is_and_ends_once(
    lines: list[bytes], cuts: list[int], ended: bool
) -> None:
    content = b"\r\n".join(lines) + (b"\r\n" if ended and lines else b"")
    places = sorted(min(cut, len(content)) for cut in cuts)
    stuffer = Stuffer()
    sent = b"".join(
        stuffer.feed(content[start:end]) for start, end in zip([0, *places], [*places, len(content)], strict=True)
    )
    expected = content if content.endswith(b"\r\n") or not content else content + b"\r\n"
    assert unstuffed(sent + stuffer.end()) == expected


async def test_a_large_file_is_sent_in_blocks_like_the_same_bytes(tmp_path: Path) -> None:
    text = b"A: b\r\n\r\n" + b".line with a dot\r\n" * 20_000
    path = tmp_path / "content"
    path.write_bytes(text)
    from_file = [block async for block in Content(StoredFile(path)).blocks()]
    from_bytes = [block async for block in Content(text).blocks()]
    assert len(from_file) > 2
    assert all(len(block) <= module.BLOCK * 2 for block in from_file)
    assert b"".join(from_file) == b"".join(from_bytes)
    assert unstuffed(b"".join(from_file)) == text
    assert Content(StoredFile(path)).whole() is None


@pytest.mark.parametrize("kept", [None, 0xCBF43926])
async def test_the_final_dot_of_a_file_is_given_out_only_after_it_was_what_was_accepted(
    tmp_path: Path, kept: int | None
) -> None:
    path = tmp_path / "content"
    path.write_bytes(b"1234567890")  # 0xCBF43926 is the checksum of the first nine
    sent = b""
    with pytest.raises(Damaged) if kept else contextlib.nullcontext():
        async for block in Content(StoredFile(path, kept)).blocks():
            sent += block
    assert sent == (b"1234567890" if kept else b"1234567890\r\n.\r\n")


def test_headers_end_at_the_first_empty_line(tmp_path: Path) -> None:
    text = b"From: a@x.example\r\nSubject: b\r\n\r\nbody\r\n\r\nmore\r\n"
    path = tmp_path / "content"
    path.write_bytes(text)
    assert Content(text).headers() == Content(StoredFile(path)).headers() == b"From: a@x.example\r\nSubject: b\r\n"
    assert Content(b"\r\nbody\r\n").headers() == b"\r\n"


async def test_what_is_put_in_front_of_a_file_is_sent_like_one_message(tmp_path: Path) -> None:
    path = tmp_path / "content"
    path.write_bytes(b"Subject: b\r\n\r\n.body\r\n")
    whole = Content(b"X: y\r\nSubject: b\r\n\r\n.body\r\n")
    assert b"".join([block async for block in Content(StoredFile(path), b"X: y\r\n").blocks()]) == whole.whole()
    assert Content(b"Subject: b\r\n\r\n.body\r\n", b"X: y\r\n").whole() == whole.whole()
    assert Content(StoredFile(path), b"X: y\r\n").headers() == whole.headers() == b"X: y\r\nSubject: b\r\n"
