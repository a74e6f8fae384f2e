"""CHUNKING: content in chunks of known length (RFC 3030)."""

from __future__ import annotations

from tests.conformance.case import MAIL, RCPT, SHOULD, SIGNED_IN, Broken, case, exchange, expect, matches
from tests.conformance.client import Client, Closed, Reply
from tests.conformance.server import Server, token

_C = "CHUNKING"


def _chunk(client: Client, content: bytes, *, last: bool = False) -> Reply:
    client.send(b"BDAT %d%s\r\n" % (len(content), b" LAST" if last else b"") + content)
    return client.reply()


@case("RFC3030-2", "A message in one chunk with LAST is taken", needs=_C)
def one_chunk(server: Server) -> None:
    matches(_chunk(server.at(RCPT), server.message(), last=True), "250")


@case("RFC3030-2", "Each chunk is answered with 250, and the last one is the message's answer", needs=_C, sees=True)
def several_chunks(server: Server) -> None:
    word = token()
    content = server.message(f"one\r\ntwo\r\nthree {word}", token=word)
    client = server.at(RCPT)
    for start in range(0, len(content), 20):
        matches(_chunk(client, content[start : start + 20], last=start + 20 >= len(content)), "250", f"octet {start}")
    arrived = server.arrives(word)
    expect(len(arrived) == 1, f"{len(arrived)} messages arrived")
    expect(f"one\r\ntwo\r\nthree {word}\r\n".encode() in arrived[0].body, f"the body is {arrived[0].body!r}")


@case("RFC3030-2", "BDAT 0 LAST ends a message", needs=_C)
def an_empty_last_chunk(server: Server) -> None:
    client = server.at(RCPT)
    matches(_chunk(client, server.message()), "250", "the first chunk")
    matches(_chunk(client, b"", last=True), "250", "BDAT 0 LAST")


@case("RFC3030-2", "An empty chunk in the middle changes nothing", needs=_C, level=SHOULD)
def an_empty_chunk(server: Server) -> None:
    client = server.at(RCPT)
    matches(_chunk(client, b""), "250", "BDAT 0")
    matches(_chunk(client, server.message(), last=True), "250")


@case("RFC3030-2", "Within chunks dots mean nothing: no stuffing, no end", needs=_C, sees=True)
def dots_in_chunks(server: Server) -> None:
    word = token()
    content = server.message(b".\r\n..\r\n...\r\n.x\r\nNOOP\r\n.", token=word)
    matches(_chunk(server.at(RCPT), content, last=True), "250")
    [arrived] = server.arrives(word)
    expect(b".\r\n..\r\n...\r\n.x\r\nNOOP\r\n.\r\n" in arrived.body, f"the body is {arrived.body!r}")


@case(
    "RFC3030-2",
    "The chunk is as many octets as were said, whatever they are: what follows is the next command",
    needs=_C,
)
def commands_in_a_chunk_are_content(server: Server) -> None:
    client = server.at(RCPT)
    content = server.message(b"\r\n.\r\nMAIL FROM:<x@y.example>\r\nRCPT TO:<z@y.example>\r\nDATA\r\n.")
    client.send(b"BDAT %d LAST\r\n" % len(content) + content + b"NOOP\r\nQUIT\r\n")
    codes = [reply.code for reply in client.until_closed()]
    expect(len(codes) == 3 and codes[0] in {250, 550, 554} and codes[1:] == [250, 221], f"replies {codes}")


@case("RFC3030-2", "A chunk may end in the middle of a line, and between CR and LF", needs=_C, sees=True)
def a_chunk_cut_in_crlf(server: Server) -> None:
    word = token()
    content = server.message(b"a\r\n.b", token=word)
    cut = content.index(b"a\r\n.b") + 2
    client = server.at(RCPT)
    matches(_chunk(client, content[:cut]), "250")
    matches(_chunk(client, content[cut:], last=True), "250")
    [arrived] = server.arrives(word)
    expect(b"a\r\n.b\r\n" in arrived.body, f"the body is {arrived.body!r}")


@case("RFC3030-2", "BDAT without a recipient is refused with 503 or 554, its octets are read all the same", needs=_C)
def bdat_without_recipient(server: Server) -> None:
    client = server.at(MAIL)
    client.send(b"BDAT 12 LAST\r\nRSET\r\nRSET\r\nNOOP\r\nQUIT\r\n")
    codes = [reply.code for reply in client.until_closed()]
    expect(len(codes) == 3 and codes[0] in {503, 554} and codes[1:] == [250, 221], f"replies {codes}")


@case("RFC3030-2", "BDAT without MAIL is refused with 503, its octets are read all the same", needs=_C)
def bdat_without_mail(server: Server) -> None:
    client = server.at(SIGNED_IN)
    client.send(b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\nQUIT\r\n")
    codes = [reply.code for reply in client.until_closed()]
    expect(len(codes) == 3 and codes[0] in {503, 530, 554} and codes[1:] == [250, 221], f"replies {codes}")


@case("RFC3030-2", "DATA after BDAT in a transaction is refused with 503", needs=_C)
def data_after_bdat(server: Server) -> None:
    client = server.at(RCPT)
    matches(_chunk(client, server.message()), "250")
    matches(client.say("DATA"), "503")


@case("RFC3030-2", "After LAST the transaction is over: another BDAT is refused with 503", needs=_C)
def bdat_after_last(server: Server) -> None:
    client = server.at(RCPT)
    matches(_chunk(client, server.message(), last=True), "250")
    matches(_chunk(client, b"more"), "503")
    matches(client.say("NOOP"), "250", "NOOP afterwards")


@case("RFC3030-2", "RSET between chunks drops those that came", needs=_C)
def rset_between_chunks(server: Server) -> None:
    client = server.at(RCPT)
    matches(_chunk(client, b"Subject: half"), "250")
    matches(client.say("RSET"), "250")
    matches(_chunk(client, b"", last=True), "503")
    server.transaction(client)
    client.send(server.message() + b".\r\n")
    matches(client.reply(), "250", "a message by DATA")


@case("RFC3030-2", "Between chunks MAIL and RCPT are out of order", needs=_C)
def commands_between_chunks(server: Server) -> None:
    client = server.at(RCPT)
    matches(_chunk(client, server.message()), "250")
    matches(client.say(f"MAIL FROM:<{server.sender}>"), "503")
    matches(client.say("NOOP"), "250", "NOOP")
    matches(_chunk(client, b"", last=True), "250", "the last chunk")


for _name, _line, _why in (
    ("bdat-without-size", "BDAT", "BDAT needs a size"),
    ("bdat-last-only", "BDAT LAST", "the size comes before LAST"),
    ("bdat-negative", "BDAT -1", "a size has no sign"),
    ("bdat-not-a-number", "BDAT x", "a size is decimal digits"),
    ("bdat-hexadecimal", "BDAT 0x0", "a size is decimal"),
):
    exchange("RFC3030-2", _name, _why[0].upper() + _why[1:], RCPT, _line, "501 500 5xx", needs=_C, usable=False)


@case("RFC3030-2", "A chunk that cannot be counted ends the session rather than being read as commands", needs=_C)
def an_absurd_size(server: Server) -> None:
    client = server.at(RCPT)
    client.send(b"BDAT 99999999999999999999999999 LAST\r\nNOOP\r\nNOOP\r\n")
    client.finish()
    codes = [reply.code for reply in client.until_closed()]
    expect(250 not in codes, f"replies {codes}")


@case("RFC3030-2", "BDAT may be pipelined: the next command stands right behind the octets", needs=_C)
def pipelined_chunks(server: Server) -> None:
    content = server.message()
    client = server.at(SIGNED_IN)
    head = server.fill("MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\n")
    chunks = b"BDAT %d\r\n%bBDAT 0 LAST\r\n" % (len(content), content)
    client.send(head + chunks + head + chunks + b"QUIT\r\n")
    codes = [reply.code for reply in client.until_closed()]
    expect(codes == [250, 250, 250, 250] * 2 + [221], f"replies {codes}")


@case("RFC3030-2", "A message beyond the maximum is refused, its chunks are read, and the session goes on", needs=_C)
def chunks_beyond_the_limit(server: Server) -> None:
    limit = server.size_limit
    if not 0 < limit <= 64 * 1024 * 1024:
        return
    line = b"x" * 70 + b"\r\n"
    client = server.at(RCPT)
    try:
        first = _chunk(client, server.message(line * (limit // len(line) + 10)))
        reply = first if first.refused else _chunk(client, b"", last=True)
    except Closed:
        raise Broken("the connection was closed without a reply") from None
    matches(reply, "552 554")
    if reply.code == 552 and client.say("RSET").code == 250:
        matches(client.say("NOOP"), "250", "NOOP afterwards")


@case("RFC3030-2", "A chunk cut into single octets is the same chunk", needs=_C)
def a_chunk_octet_by_octet(server: Server) -> None:
    content = server.message()
    client = server.at(RCPT)
    for octet in b"BDAT %d LAST\r\n" % len(content) + content + b"NOOP\r\n":
        client.send(bytes([octet]))
    matches(client.reply(), "250", "BDAT")
    matches(client.reply(), "250", "NOOP")


@case("RFC3030-2", "A connection that ends within a chunk leaves no message behind", needs=_C, sees=True)
def an_unfinished_chunk(server: Server) -> None:
    half, whole = token(), token()
    client = server.at(RCPT)
    client.send(b"BDAT 100000 LAST\r\n" + server.message(token=half))
    client.close()
    server.relayed(server.message(token=whole), whole)
    found = [one for one in server.delivered.messages() if half.encode() in one.content] if server.delivered else []
    expect(not found, "it arrived")


@case("RFC3030-2", "A bare CR or LF in a chunk is refused, or does not leave as it came", needs=_C, sees=True)
def bare_line_ends_in_chunks(server: Server) -> None:
    for text in (b"a\n.\nb", b"a\r.\rb", b"a\n.\r\nb"):
        word = token()
        reply = _chunk(server.at(RCPT), server.message(text, token=word), last=True)
        if reply.positive:
            [arrived] = server.arrives(word)
            left = arrived.content.replace(b"\r\n", b"")
            expect(b"\n" not in left and b"\r" not in left, f"{text!r} leaves as it came")
        else:
            matches(reply, "5xx")


@case("RFC3030-2", "bdat … last in lower case is the same", needs=_C)
def bdat_in_lower_case(server: Server) -> None:
    content = server.message()
    client = server.at(RCPT)
    client.send(b"bdat %d last\r\n" % len(content) + content)
    matches(client.reply(), "250")


@case("RFC3030-3", "Where BINARYMIME is offered it needs BDAT: DATA is refused with 503", needs="BINARYMIME")
def binarymime_needs_bdat(server: Server) -> None:
    client = server.at(RCPT, mail="BODY=BINARYMIME")
    matches(client.say("DATA"), "503")
