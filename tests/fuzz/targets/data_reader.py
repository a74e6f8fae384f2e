"""The end of DATA, dot-stuffing and flaws: the block-wise reader against one that reads octet by octet."""

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
    lines: list[bytes] = []
    line = b""
    for position in range(len(stream)):
        line += stream[position : position + 1]
        if line.endswith(b"\r\n"):
            if line == b".\r\n":
                content = b"".join(lines)
                flawed = (
                    len(content) > _LIMIT
                    or b"\0" in content
                    or any(len(one) > MAX_LINE + 2 for one in lines)
                    or any(octet in content.replace(b"\r\n", b"") for octet in (b"\r", b"\n"))
                )
                return content, stream[position + 1 :], flawed
            lines.append(line[1:] if line.startswith(b".") else line)
            line = b""
    return None


TARGET = Target(
    "data_reader",
    check,
    words=(b"\r\n.\r\n", b"\r\n.", b"..", b"x" * 998, b"x" * 990, b"\n.\n", b"\r.\r", b"\r\n.\r", b"\r\r\n", b"abc"),
    seeds=(b"\x01a\r\n..b\r\n.\r\nNOOP\r\n", b"\x03.\r\n", b"\x00" + b"x" * 999 + b"\r\n.\r\n"),
)
