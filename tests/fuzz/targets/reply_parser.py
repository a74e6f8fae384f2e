"""Replies of remote hosts: the same however they are cut, bounded, and safe to show."""

from __future__ import annotations

from tests.fuzz.target import Target

from malote_relay.delivery.reply import MAX_STORED, BadReply, Reply, ReplyParser, parse


def check(data: bytes) -> None:
    whole = _read([data])
    assert _read([data[i : i + 1] for i in range(len(data))]) == whole
    cut = len(data) // 2
    assert _read([data[:cut], data[cut:]]) == whole
    for reply in whole[0]:
        text = str(reply)
        assert text.isprintable() or all(character >= " " for character in text)
        assert len(text) <= MAX_STORED
        assert "\n" not in text
        again = parse(text)
        assert again.code == reply.code
        assert not reply.enhanced or reply.enhanced[0] == str(reply.code)[0]
        # A code that a control character follows is none, until the character is made a blank to be shown.
        assert again.enhanced == reply.enhanced or len(text) == MAX_STORED or not reply.lines[0].isprintable()


def _read(blocks: list[bytes]) -> tuple[list[Reply], bool]:
    """The replies, and whether something stands behind them that is none."""
    parser = ReplyParser()
    replies: list[Reply] = []
    for block in blocks:
        try:
            replies += parser.feed(block)
        except BadReply as error:
            return [*replies, *error.before], True
    return replies, False


TARGET = Target(
    "reply_parser",
    check,
    words=(
        b"250 ",
        b"250-",
        b"550 5.1.1 ",
        b"421",
        b"2.0.0",
        b"5.7.1",
        b"\r\n",
        b"x" * 600,
        "é".encode(),
        b"\x1b[2J",
    ),
    seeds=(b"250-one\r\n250 two\r\n", b"550-5.1.1 no\r\n550 5.1.1 such\r\n", b"220 x\n", b"354\r\n"),
)
