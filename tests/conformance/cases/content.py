"""What comes after DATA (RFC 5321 sections 4.1.1.4, 4.5.2, 4.5.3.1.6; RFC 6152; RFC 5322 sections 2.1, 2.3)."""

from __future__ import annotations

import time

from tests.conformance.case import DATA, MUST, SHOULD, SIGNED_IN, case, expect, matches
from tests.conformance.client import Reply
from tests.conformance.server import Server, token


def _answer(server: Server, content: bytes) -> Reply:
    """The answer to content; the session must be usable afterwards."""
    client = server.at(DATA)
    client.send(content + b".\r\n")
    reply = client.reply()
    matches(client.say("NOOP"), "250", "NOOP afterwards")
    return reply


@case("RFC5321-4.5.2", "A dot that was added before a dot at the start of a line is taken away", sees=True)
def dots_are_unstuffed(server: Server) -> None:
    word = token()
    stuffed = b"a\r\n..\r\n...\r\n.. b\r\n..c\r\nd."
    arrived = server.relayed(server.message(stuffed, token=word), word)
    expect(arrived.body.startswith(b"a\r\n.\r\n..\r\n. b\r\n.c\r\nd."), f"the body is {arrived.body!r}")


@case("RFC5321-4.5.2", "A line that begins with one dot and goes on loses the dot, and is no end", sees=True)
def a_single_dot_goes(server: Server) -> None:
    word = token()
    arrived = server.relayed(server.message(b"a\r\n.b\r\n.\tc\r\nd", token=word), word)
    expect(arrived.body.startswith(b"a\r\nb\r\n\tc\r\nd"), f"the body is {arrived.body!r}")


@case("RFC5321-4.5.2", "A dot that is the first octet of the content is a dot at the start of a line", sees=True)
def a_dot_at_the_very_start(server: Server) -> None:
    word = token()
    content = b".." + server.message(token=word).replace(b"From:", b"X-Dot: y\r\nFrom:", 1)
    reply = server.sent(content)
    # The first field is now named ".X-Dot", which is a field name: it may be refused, but not misread.
    if reply.positive:
        [arrived] = server.arrives(word)
        expect(arrived.named(".x-dot") == ["y"], f"the header is {arrived.header}")


@case("RFC5321-4.1.1.4", "Empty content is answered once")
def empty_content(server: Server) -> None:
    reply = _answer(server, b"")
    expect(reply.positive or reply.refused, f"it is answered with {reply}")


@case("RFC5322-2.1", "A message of a header section only, without an empty line, is answered once")
def a_header_without_body(server: Server) -> None:
    reply = _answer(server, f"From: <{server.sender}>\r\nSubject: no body\r\n".encode())
    expect(reply.positive or reply.refused, f"it is answered with {reply}")


@case("RFC5321-4.5.3.1.6", "A line of 998 octets and CRLF is taken")
def a_line_of_998(server: Server) -> None:
    matches(_answer(server, server.message("x" * 998)), "250")


@case("RFC5321-4.5.3.1.6", "A line of 998 octets arrives as it was", sees=True)
def a_line_of_998_arrives(server: Server) -> None:
    word = token()
    line = b"y" * 998
    arrived = server.relayed(server.message(line, token=word), word)
    expect(line + b"\r\n" in arrived.content, "it was broken")


@case("RFC5322-2.1.1", "A line of more than 998 octets is refused, or what leaves is within the limit", level=SHOULD)
def a_line_too_long(server: Server) -> None:
    reply = _answer(server, server.message("x" * 5000))
    expect(reply.positive or reply.refused, f"it is answered with {reply}")


@case("RFC5321-4.5.3.1.7", "Content of 64 KiB is taken")
def content_of_64_kib(server: Server) -> None:
    matches(_answer(server, server.message((b"x" * 70 + b"\r\n") * 911)), "250")


@case("RFC5321-4.1.1.4", "What leaves ends in CRLF and has the lines that came, in their order", sees=True)
def the_body_is_kept(server: Server) -> None:
    word = token()
    lines = b"".join(b"line %d \t with blanks at its end  \r\n" % number for number in range(500))
    arrived = server.relayed(server.message(lines, token=word), word)
    expect(arrived.body.startswith(lines), "the body is not what was sent")


@case("RFC5321-4.1.1.4", "Empty lines at the end of the content stay", sees=True)
def empty_lines_at_the_end(server: Server) -> None:
    word = token()
    arrived = server.relayed(server.message(b"a\r\n\r\n\r\n", token=word), word)
    expect(arrived.body.startswith(b"a\r\n\r\n\r\n"), f"the body is {arrived.body!r}")


@case("RFC6152-2", "BODY=8BITMIME is taken", needs="8BITMIME")
def body_8bitmime(server: Server) -> None:
    client = server.at(SIGNED_IN)
    matches(client.say(f"MAIL FROM:<{server.sender}> BODY=8BITMIME"), "250")


@case("RFC6152-2", "BODY=7BIT is taken", needs="8BITMIME")
def body_7bit(server: Server) -> None:
    client = server.at(SIGNED_IN)
    matches(client.say(f"MAIL FROM:<{server.sender}> BODY=7BIT"), "250")


@case("RFC6152-2", "The value of BODY is compared without regard to case", needs="8BITMIME")
def body_in_lower_case(server: Server) -> None:
    client = server.at(SIGNED_IN)
    matches(client.say(f"MAIL FROM:<{server.sender}> body=8bitmime"), "250")


@case("RFC6152-2", "A value of BODY that is not offered is refused", needs="8BITMIME")
def body_unknown(server: Server) -> None:
    client = server.at(SIGNED_IN)
    matches(client.say(f"MAIL FROM:<{server.sender}> BODY=9BIT"), "5xx")
    matches(client.say(f"MAIL FROM:<{server.sender}> BODY"), "5xx", "BODY without a value")


@case("RFC3030-3", "BODY=BINARYMIME is refused where BINARYMIME is not offered")
def binarymime_is_refused_unless_offered(server: Server) -> None:
    client = server.at(SIGNED_IN)
    reply = client.say(f"MAIL FROM:<{server.sender}> BODY=BINARYMIME")
    matches(reply, "250" if "BINARYMIME" in server.offers else "5xx")


@case(
    "RFC6152-3", "Octets above 127 arrive as they were, where the next host takes them", needs="8BITMIME", sees=True
)
def eight_bit_arrives(server: Server) -> None:
    word = token()
    header = (
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n"
    )
    text = bytes(range(0x80, 0x100))
    arrived = server.relayed(server.message(text, header=header, token=word), word, mail="BODY=8BITMIME")
    expect(text in arrived.body, f"the body is {arrived.body!r}")


@case("RFC5321-2.3.8", "A CR that stands alone is refused, or does not leave as it came", sees=True)
def a_bare_cr_does_not_leave(server: Server) -> None:
    word = token()
    reply = server.sent(server.message(b"a\rb", token=word))
    if reply.positive:
        [arrived] = server.arrives(word)
        expect(b"\r" not in arrived.content.replace(b"\r\n", b""), "it leaves as it came")
    else:
        matches(reply, "5xx")


@case("RFC5321-2.3.8", "An LF that stands alone is refused, or does not leave as it came", sees=True)
def a_bare_lf_does_not_leave(server: Server) -> None:
    word = token()
    reply = server.sent(server.message(b"a\nb", token=word))
    if reply.positive:
        [arrived] = server.arrives(word)
        expect(b"\n" not in arrived.content.replace(b"\r\n", b""), "it leaves as it came")
    else:
        matches(reply, "5xx")


@case("RFC5321-4.5.2", "A NUL in the content is refused, or nothing of the message is lost by it", level=SHOULD)
def a_nul_is_answered_once(server: Server) -> None:
    reply = _answer(server, server.message(b"a\0b"))
    expect(reply.positive or reply.refused, f"it is answered with {reply}")


@case("RFC5321-4.1.1.4", "Content in single octets is content all the same", level=MUST)
def octet_by_octet(server: Server) -> None:
    client = server.at(DATA)
    for octet in server.message("..x\r\n...") + b".\r\n":
        client.send(bytes([octet]))
    matches(client.reply(), "250")
    matches(client.say("NOOP"), "250", "NOOP afterwards")


@case("RFC5321-4.1.1.4", "What comes behind the end, in the same packet, is the next command")
def a_command_behind_the_end(server: Server) -> None:
    client = server.at(DATA)
    client.send(server.message() + b".\r\nNOOP\r\n")
    matches(client.reply(), "250", "the end of the data")
    matches(client.reply(), "250", "NOOP")
    expect(client.quiet(0.2), "there is one more reply")


@case("RFC5321-4.1.1.4", "The end may be cut anywhere: CR, LF and the dot in packets of their own")
def the_end_cut_into_pieces(server: Server) -> None:
    client = server.at(DATA)
    client.send(server.message()[:-2])
    for piece in (b"\r", b"\n", b".", b"\r"):
        client.send(piece)
        time.sleep(0.02)
    expect(client.quiet(0.2), "something was said before the end")
    client.send(b"\n")
    matches(client.reply(), "250")
