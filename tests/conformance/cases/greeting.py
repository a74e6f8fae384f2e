"""The start of a session: greeting, EHLO, HELO, and what is offered (RFC 5321 sections 3.1, 3.2, 4.1.1.1, 4.2)."""

from __future__ import annotations

import re

from tests.conformance.case import (
    CONNECTED,
    HELLO,
    MUST,
    RCPT,
    SHOULD,
    SIGNED_IN,
    TLS,
    case,
    exchange,
    expect,
    matches,
)
from tests.conformance.server import CLIENT_NAME, Server

_DOMAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*\Z")
_LITERAL = re.compile(r"\[[^\]\s]+\]\Z")
_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*(?: [\x21-\x7e]+)*\Z")


def _names_a_host(word: str) -> bool:
    return bool(_DOMAIN.match(word) or _LITERAL.match(word))


@case("RFC5321-3.1", "The server speaks first, with 220 (or 554 when it takes no mail)")
def the_server_greets(server: Server) -> None:
    matches(server.connect().reply(), "220")


@case("RFC5321-4.2", "The greeting's first word is the server's domain name or address literal")
def the_greeting_names_the_server(server: Server) -> None:
    reply = server.connect().reply()
    word = reply.lines[0].split(" ")[0]
    expect(_names_a_host(word), f"the greeting begins with {word!r}")


@case("RFC5321-4.2", "The greeting says ESMTP, so that old clients know that EHLO is understood", level=SHOULD)
def the_greeting_says_esmtp(server: Server) -> None:
    reply = server.connect().reply()
    expect("ESMTP" in reply.lines[0], f"the greeting is {reply.lines[0]!r}")


@case("RFC5321-4.1.1.1", "The first line of the EHLO reply names the server")
def ehlo_names_the_server(server: Server) -> None:
    reply = server.at(CONNECTED).say(f"EHLO {CLIENT_NAME}")
    matches(reply, "250")
    expect(_names_a_host(reply.lines[0].split(" ")[0]), f"the first line is {reply.lines[0]!r}")


@case("RFC5321-4.1.1.1", "Every further line of the EHLO reply is a keyword with parameters, one extension a line")
def ehlo_lines_are_keywords(server: Server) -> None:
    client = server.at(TLS)
    for reply in (server.at(CONNECTED).say(f"EHLO {CLIENT_NAME}"), client.say(f"EHLO {CLIENT_NAME}")):
        bad = [line for line in reply.lines[1:] if not _KEYWORD.match(line)]
        expect(not bad, f"no keywords: {bad}")
        keywords = [line.split(" ")[0].upper() for line in reply.lines[1:] if not line.startswith("X")]
        expect(len(keywords) == len(set(keywords)), f"a keyword stands twice: {keywords}")


@case("RFC5321-4.1.1.1", "HELO is answered by one line with 250, without extensions")
def helo_is_answered_by_one_line(server: Server) -> None:
    reply = server.at(TLS).say(f"HELO {CLIENT_NAME}")
    matches(reply, "250")
    expect(len(reply.lines) == 1, f"{len(reply.lines)} lines")


exchange(
    "RFC5321-4.1.3",
    "ehlo-address-literal",
    "A client without a name may give an IPv4 literal",
    TLS,
    "EHLO [127.0.0.1]",
    "250",
)
exchange(
    "RFC5321-4.1.3",
    "ehlo-ipv6-literal",
    "A client without a name may give an IPv6 literal",
    TLS,
    "EHLO [IPv6:::1]",
    "250",
)
exchange(
    "RFC5321-4.1.4",
    "ehlo-unverifiable-name",
    "A name that does not exist in the DNS is no reason to refuse a client's mail",
    TLS,
    "EHLO no-such-host.invalid",
    "250",
)
exchange("RFC5321-4.1.1.1", "ehlo-without-name", "EHLO needs an argument", TLS, "EHLO", "501 500 5xx")
exchange("RFC5321-4.1.1.1", "helo-without-name", "HELO needs an argument", TLS, "HELO", "501 500 5xx")
exchange("RFC5321-2.4", "ehlo-in-lower-case", "Verbs are understood in lower case", TLS, "ehlo client.example", "250")
exchange("RFC5321-2.4", "ehlo-in-mixed-case", "Verbs are understood in mixed case", TLS, "eHlO client.example", "250")
exchange("RFC5321-4.1.4", "ehlo-again", "EHLO may come again at any time", HELLO, "EHLO client.example", "250")
exchange(
    "RFC5321-4.1.1.1",
    "trailing-blanks",
    "Blanks at the end of a command are put up with",
    HELLO,
    "NOOP   ",
    "250",
    level=SHOULD,
)


@case("RFC5321-4.1.4", "EHLO in a transaction gives it up, as RSET does")
def ehlo_ends_a_transaction(server: Server) -> None:
    client = server.at(RCPT)
    matches(client.say(f"EHLO {CLIENT_NAME}"), "250")
    matches(client.say("DATA"), "503 554", "DATA after EHLO")
    matches(client.say(f"MAIL FROM:<{server.sender}>"), "250", "a new MAIL")


@case("RFC5321-4.1.1.1", "EHLO does not undo what was signed in or secured: mail may be sent after it")
def ehlo_keeps_the_session(server: Server) -> None:
    client = server.at(SIGNED_IN)
    matches(client.say(f"EHLO {CLIENT_NAME}"), "250")
    matches(client.say(f"MAIL FROM:<{server.sender}>"), "250", "MAIL after a second EHLO")


@case("RFC5321-4.1.4", "Without EHLO or HELO there is no transaction", level=SHOULD)
def mail_before_ehlo_is_refused(server: Server) -> None:
    client = server.at(TLS)
    matches(client.say(f"MAIL FROM:<{server.sender}>"), "503 530 550 5xx")
    matches(client.say(f"EHLO {CLIENT_NAME}"), "250", "EHLO afterwards")


@case("RFC5321-4.5.1", "EHLO, HELO, MAIL, RCPT, DATA, RSET, NOOP, QUIT and VRFY are known")
def the_minimum_of_commands_is_known(server: Server) -> None:
    client = server.at(SIGNED_IN)
    for line in (
        "RSET",
        "NOOP",
        "VRFY postmaster",
        f"MAIL FROM:<{server.sender}>",
        f"RCPT TO:<{server.recipient}>",
        "RSET",
        "DATA",
        "HELO client.example",
    ):
        reply = client.say(line)
        expect(reply.code not in {500, 502} or line.startswith("VRFY"), f"{line} is answered with {reply}")
    matches(client.say("QUIT"), "221", "QUIT")


for _keyword, _section, _level, _why in (
    ("AUTH", "RFC6409-4.3", MUST, "a submission server authenticates"),
    ("PIPELINING", "RFC6409-7", SHOULD, "commands may be sent in groups"),
    ("ENHANCEDSTATUSCODES", "RFC6409-7", SHOULD, "replies have codes for programs"),
    ("8BITMIME", "RFC6409-7", SHOULD, "text needs no 7-bit encoding"),
    ("DSN", "RFC6409-7", SHOULD, "the sender may ask what became of a message"),
    ("SIZE", "RFC1870-4", SHOULD, "a message that is too large is refused before it is sent"),
    ("SMTPUTF8", "RFC6531-3.1", SHOULD, "addresses may be written in any script"),
    ("CHUNKING", "RFC3030-2", SHOULD, "content may come in chunks of known length"),
):

    def _check(server: Server, keyword: str = _keyword) -> None:
        if keyword == "AUTH" and not server.user:
            return
        expect(keyword in server.offers, f"EHLO offers {', '.join(sorted(server.offers))}")

    _check.__name__ = f"offers_{_keyword.lower()}"
    case(_section, f"{_keyword} is offered: {_why}", level=_level)(_check)
