"""How long lines and lists may be, and what clients that overdo it get (RFC 5321 section 4.5.3)."""

from __future__ import annotations

import time

from tests.conformance.case import (
    CONNECTED,
    DATA,
    HELLO,
    MAIL,
    RCPT,
    SHOULD,
    SIGNED_IN,
    Broken,
    case,
    exchange,
    expect,
    matches,
)
from tests.conformance.client import Closed
from tests.conformance.server import Server

exchange(
    "RFC5321-4.5.3.1.4",
    "command-of-512",
    "A command line of 512 octets, CRLF included, is taken",
    HELLO,
    "NOOP " + "x" * 505,
    "250",
)
exchange(
    "RFC5321-4.5.3.1.3",
    "path-of-256",
    "A path of 256 octets, brackets included, is taken or refused as an address",
    MAIL,
    "RCPT TO:<" + "l" * 64 + "@" + ".".join(["d" * 45] * 4) + ".example>",
    "250 251 45x 55x",
)
exchange(
    "RFC5321-4.5.3.1.4",
    "command-of-100000",
    "A command line of 100,000 octets gets one reply",
    HELLO,
    "NOOP " + "x" * 100_000,
    "250 5xx 421",
    usable=False,
)
exchange(
    "RFC5321-4.5.3.1.4",
    "long-mail-line",
    "A MAIL line that is too long begins no transaction",
    SIGNED_IN,
    "MAIL FROM:<" + "a" * 10_000 + "@example.com>",
    "5xx",
)


@case("RFC5321-4.5.3.1.8", "A message may have 100 recipients")
def a_hundred_recipients(server: Server) -> None:
    client = server.at(MAIL)
    for recipient in server.others(100):
        matches(client.say(f"RCPT TO:<{recipient}>"), "250 251", recipient)
    matches(client.say("RSET"), "250")


@case("RFC5321-4.5.3.1.10", "Recipients beyond the limit are put off (452), those before it are kept")
def too_many_recipients(server: Server) -> None:
    client = server.at(MAIL)
    for number, recipient in enumerate(server.others(1500)):
        reply = client.say(f"RCPT TO:<{recipient}>")
        if not reply.positive:
            matches(reply, "452 451 450 552", f"recipient {number + 1}")
            matches(client.say("DATA"), "354", "DATA with those accepted")
            return
    matches(client.say("RSET"), "250")  # 1,500 and no limit in sight


@case("RFC5321-4.5.3.1.5", "No reply line is longer than 512 octets, whatever it answers")
def reply_lines_are_short(server: Server) -> None:
    client = server.at(MAIL)  # the client itself refuses longer ones
    for line in (
        "RCPT TO:<" + "a" * 450 + "@" + "b" * 30 + ".example>",
        "RCPT TO:<" + "\u00e9" * 200 + "@x.example>",
        "VRFY " + "v" * 490,
        "NOOP " + "n" * 490,
        "X" * 500,
    ):
        client.say(line)


@case("RFC5321-4.2.4", "What a client wrote never becomes a line of a reply: no reply can be split")
def replies_cannot_be_split(server: Server) -> None:
    client = server.at(HELLO)
    for line in (b"EHLO a\rb", b"MAIL FROM:<a\r250 OK@b.example>", b"VRFY \x85\r250", b"NOOP \x0b250\x0c"):
        try:
            reply = client.say(line)
        except Closed:
            return
        expect(not any("\r" in one or "\n" in one for one in reply.lines), f"it is answered with {reply}")


@case("RFC5321-4.5.3.2", "A client may think for a few seconds between commands")
def a_slow_client(server: Server) -> None:
    client = server.at(SIGNED_IN)
    time.sleep(2)
    matches(client.say(f"MAIL FROM:<{server.sender}>"), "250")


@case("RFC5321-3.8", "A server that has enough of bad commands says 421 before it closes", level=SHOULD)
def bad_commands_without_end(server: Server) -> None:
    client = server.at(CONNECTED)
    for _ in range(200):
        try:
            reply = client.say("WHAT")
        except Closed:
            raise Broken("it closed without a word") from None
        if reply.code == 421:
            expect(client.closed(), "it said 421 and stayed")
            return
        matches(reply, "500 502 503 521 554")


@case("RFC5321-7.8", "A client that names recipients without end is stopped with 421 in the end", level=SHOULD)
def recipients_without_end(server: Server) -> None:
    client = server.at(MAIL)
    line, at_once = f"RCPT TO:<{server.recipient}>\r\n".encode(), 100
    for _ in range(30):
        client.send(line * at_once)
        for _ in range(at_once):
            try:
                reply = client.reply()
            except Closed:
                raise Broken("it closed without a word") from None
            if reply.code == 421:
                expect(client.closed(), "it said 421 and stayed")
                return
            matches(reply, "250 251 4xx 5xx")
    raise Broken("3,000 recipients and no end in sight")


@case("RFC5321-4.5.3.1", "Many sessions one after the other get the same service")
def many_sessions(server: Server) -> None:
    for _ in range(25):
        client = server.at(CONNECTED)
        matches(client.say("EHLO client.example"), "250")
        matches(client.say("QUIT"), "221")
        client.close()


@case("RFC5321-4.1.1.10", "A client that goes without QUIT, in any state, leaves the server as it was")
def going_without_quit(server: Server) -> None:
    for stage in (CONNECTED, HELLO, SIGNED_IN, MAIL, RCPT, DATA):
        server.at(stage).close()
    matches(server.at(HELLO).say("NOOP"), "250", "the next client")
