"""PIPELINING: commands in groups, replies in their order (RFC 2920)."""

from __future__ import annotations

from tests.conformance.case import DATA, HELLO, SIGNED_IN, case, expect, matches
from tests.conformance.server import Server, token

_P = "PIPELINING"


@case("RFC2920-3.2", "MAIL, RCPT and DATA in one packet get their replies, in order", needs=_P)
def a_transaction_in_one_packet(server: Server) -> None:
    client = server.at(SIGNED_IN)
    client.send(server.fill("MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n"))
    for what, codes in (("MAIL", "250"), ("RCPT", "250"), ("DATA", "354")):
        matches(client.reply(), codes, what)
    client.send(server.message() + b".\r\n")
    matches(client.reply(), "250", "the end of the data")


@case("RFC2920-3.2", "Refused commands in a group do not shift the replies", needs=_P)
def refusals_within_a_group(server: Server) -> None:
    client = server.at(SIGNED_IN)
    client.send(
        server.fill("MAIL FROM:<{sender}>\r\nRCPT TO:<>\r\nRCPT TO:<{recipient}>\r\nRCPT TO:<x@>\r\nDATA\r\n")
    )
    for what, codes in (("MAIL", "250"), ("RCPT", "5xx"), ("RCPT", "250"), ("RCPT", "5xx"), ("DATA", "354")):
        matches(client.reply(), codes, what)


@case(
    "RFC2920-3.1",
    "DATA after only refused recipients, in a group, is refused, or 354 is followed by a refusal",
    needs=_P,
)
def data_after_refused_recipients(server: Server) -> None:
    client = server.at(SIGNED_IN)
    client.send(server.fill("MAIL FROM:<{sender}>\r\nRCPT TO:<>\r\nDATA\r\n"))
    matches(client.reply(), "250", "MAIL")
    matches(client.reply(), "5xx", "RCPT")
    reply = client.reply()
    if reply.code == 354:
        client.send(b".\r\n")
        reply = client.reply()
    matches(reply, "503 554", "DATA")
    matches(client.say("NOOP"), "250", "NOOP afterwards")


@case("RFC2920-3.2", "A MAIL that is refused makes the RCPT behind it out of order", needs=_P)
def a_refused_mail_in_a_group(server: Server) -> None:
    client = server.at(SIGNED_IN)
    client.send(server.fill("MAIL FROM:<not an address>\r\nRCPT TO:<{recipient}>\r\nDATA\r\nNOOP\r\n"))
    for what, codes in (("MAIL", "5xx"), ("RCPT", "503 5xx"), ("DATA", "503 554"), ("NOOP", "250")):
        matches(client.reply(), codes, what)


@case("RFC2920-3.2", "Two messages, commands and contents, in one stream are two messages", needs=_P, sees=True)
def two_messages_in_one_stream(server: Server) -> None:
    words = [token(), token()]
    client = server.at(SIGNED_IN)
    start = server.fill("MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n")
    # The content may be sent only after 354 (section 3.1); the next transaction may follow it at once.
    client.send(start)
    for codes in ("250", "250", "354"):
        matches(client.reply(), codes)
    client.send(server.message(token=words[0]) + b".\r\n" + start)
    for codes in ("250", "250", "250", "354"):
        matches(client.reply(), codes)
    client.send(server.message(token=words[1]) + b".\r\nQUIT\r\n")
    for codes in ("250", "221"):
        matches(client.reply(), codes)
    for word in words:
        server.arrives(word)


@case("RFC2920-3.2", "Eighty recipients in one packet get eighty replies", needs=_P)
def many_recipients_in_one_packet(server: Server) -> None:
    client = server.at(SIGNED_IN)
    others = server.others(80)
    lines = [f"MAIL FROM:<{server.sender}>", *(f"RCPT TO:<{one}>" for one in others), "RSET"]
    client.send("".join(f"{line}\r\n" for line in lines).encode())
    for line in lines:
        matches(client.reply(), "250 251", line)
    expect(client.quiet(0.2), "there is one more reply")


@case("RFC2920-3.2", "RSET, MAIL, RCPT and NOOP may stand in one group", needs=_P)
def rset_and_noop_in_a_group(server: Server) -> None:
    client = server.at(SIGNED_IN)
    client.send(server.fill("RSET\r\nNOOP\r\nMAIL FROM:<{sender}>\r\nRSET\r\nMAIL FROM:<{sender}>\r\nNOOP\r\n"))
    for number in range(6):
        matches(client.reply(), "250", f"reply {number + 1}")


@case("RFC2920-3.2", "A group cut at any octet is the same group", needs=_P)
def a_group_cut_anywhere(server: Server) -> None:
    octets = server.fill("RSET\r\nMAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nRSET\r\n")
    client = server.at(SIGNED_IN)
    for size in (1, 2, 3, 7, 13):
        for start in range(0, len(octets), size):
            client.send(octets[start : start + size])
        for _ in range(4):
            matches(client.reply(), "250", f"in pieces of {size}")


@case("RFC2920-3.2", "QUIT at the end of a group is answered last, and then the server closes", needs=_P)
def quit_ends_a_group(server: Server) -> None:
    client = server.at(HELLO)
    client.send(b"NOOP\r\nRSET\r\nQUIT\r\nNOOP\r\n")
    codes = [reply.code for reply in client.until_closed()]
    expect(codes == [250, 250, 221], f"replies {codes}")


@case("RFC2920-3.2", "What stands behind the end of the data is read as commands only after it", needs=_P)
def commands_behind_a_refused_message(server: Server) -> None:
    client = server.at(DATA)
    client.send(b"no header\r\n\r\nNOOP\r\n.\r\nNOOP\r\nQUIT\r\n")
    codes = [reply.code for reply in client.until_closed()]
    expect(len(codes) == 3 and codes[1:] == [250, 221], f"replies {codes}")
