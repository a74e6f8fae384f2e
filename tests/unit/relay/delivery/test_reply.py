from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malote_relay.delivery.reply import MAX_LINE, MAX_LINES, BadReply, Reply, ReplyParser, parse

TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=60)
REPLIES = st.builds(Reply, st.integers(200, 599), st.lists(TEXT, min_size=1, max_size=5).map(tuple))


def wire(reply: Reply) -> bytes:
    *first, last = reply.lines
    return "".join([*(f"{reply.code}-{line}\r\n" for line in first), f"{reply.code} {last}\r\n"]).encode()


@given(st.lists(REPLIES, max_size=5), st.data())
def test_replies_survive_any_cutting_of_the_stream(replies: list[Reply], data: st.DataObject) -> None:
    stream = b"".join(wire(reply) for reply in replies)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser = ReplyParser()
    found: list[Reply] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += parser.feed(stream[start:end])
    assert found == replies
    assert parser.idle


@given(st.binary(max_size=300))
def test_whatever_a_server_sends_is_replies_or_a_bad_reply(data: bytes) -> None:
    parser = ReplyParser()
    try:
        replies = parser.feed(data)
    except BadReply:
        return
    assert all(200 <= reply.code <= 599 and reply.lines for reply in replies)
    assert all("\n" not in str(reply) and "\r" not in str(reply) for reply in replies)


@pytest.mark.parametrize(
    "stream",
    [
        b"\r\n",
        b"hello\r\n",
        b"25 ok\r\n",
        b"2500 ok\r\n",
        b"150 ok\r\n",
        b"600 ok\r\n",
        b"250_ok\r\n",
        b"250-a\r\n251 b\r\n",
    ],
)
def test_what_is_no_reply_is_refused(stream: bytes) -> None:
    with pytest.raises(BadReply):
        ReplyParser().feed(stream)


def test_lines_and_replies_are_bounded() -> None:
    with pytest.raises(BadReply):
        ReplyParser().feed(b"250 " + b"x" * MAX_LINE)
    with pytest.raises(BadReply):
        ReplyParser().feed(b"250-x\r\n" * (MAX_LINES + 1))


def test_a_code_without_text_is_a_reply() -> None:
    """RFC 5321 section 4.2.1: a client should take it."""
    assert ReplyParser().feed(b"354\r\n") == [Reply(354, ("",))]


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply(550, ("5.1.1 no such user",)), "5.1.1"),
        (Reply(550, ("5.1.1",)), "5.1.1"),
        (Reply(550, ("4.2.2 contradicts its code",)), ""),
        (Reply(550, ("no code",)), ""),
        (Reply(550, ("5.1.1x",)), ""),
        (Reply(550, ("5.\u0661.\u0661 digits, but not of ASCII",)), ""),
    ],
)
def test_an_enhanced_code_counts_when_it_fits_the_reply(reply: Reply, code: str) -> None:
    assert reply.enhanced == code


def test_a_reply_on_one_line_names_its_enhanced_code_once_and_has_no_control_characters() -> None:
    reply = Reply(550, ("5.7.1 refused", "5.7.1 see\x1b[31m http://x.example"))
    assert str(reply) == "550 5.7.1 refused see [31m http://x.example"
    assert parse(str(reply)).enhanced == "5.7.1"


def test_what_was_said_before_rubbish_in_the_same_packet_is_not_lost() -> None:
    with pytest.raises(BadReply) as raised:
        ReplyParser().feed(b"250 2.0.0 taken\r\nrubbish\r\n")
    assert raised.value.before == [Reply(250, ("2.0.0 taken",))]
