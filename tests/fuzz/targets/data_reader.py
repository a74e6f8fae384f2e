"""The end of DATA, dot-stuffing and flaws: the block-wise reader against one that splits at CRLF."""

from __future__ import annotations

from tests.fuzz.target import Target

from malote_relay.submission.data import MAX_LINE, DataReader

_LIMIT = 3000


def check(data: bytes) -> None:
    size = data[0] % 7 + 1 if data else 1
    stream = data[1:]
    expected = _naive(stream)
    for block in (size, len(stream) or 1):
        reader = DataReader(_LIMIT)
        content, rest = b"", b""
        for start in range(0, len(stream), block):
            piece, behind = reader.feed(stream[start : start + block])
            content += piece
            if reader.finished:
                rest = behind + stream[start + block :]
                break
        if expected is None:
            assert not reader.finished
            continue
        body, left, flawed = expected
        assert reader.finished
        assert rest == left
        assert (reader.flaw is not None) == flawed
        if not flawed:
            assert content == body


def _naive(stream: bytes) -> tuple[bytes, bytes, bool] | None:
    """Content, what follows the end, and whether anything is wrong with it; None when there is no end."""
    lines = stream.split(b"\r\n")
    if b"." not in lines[:-1]:
        return None
    end = lines.index(b".")
    unstuffed = [line.removeprefix(b".") for line in lines[:end]]
    content = b"".join(line + b"\r\n" for line in unstuffed)
    bare = any(octet in line for line in unstuffed for octet in (b"\r", b"\n", b"\0"))
    flawed = bare or len(content) > _LIMIT or any(len(line) > MAX_LINE for line in unstuffed)
    return content, b"\r\n".join(lines[end + 1 :]), flawed


TARGET = Target(
    "data_reader",
    check,
    words=(b"\r\n.\r\n", b"\r\n.", b"..", b"x" * 998, b"x" * 990, b"\n.\n", b"\r.\r", b"\r\n.\r", b"\r\r\n", b"abc"),
    seeds=(b"\x01a\r\n..b\r\n.\r\nNOOP\r\n", b"\x03.\r\n", b"\x00" + b"x" * 999 + b"\r\n.\r\n"),
)
