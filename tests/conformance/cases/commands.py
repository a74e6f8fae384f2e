"""RSET, NOOP, VRFY, EXPN, HELP, QUIT, and lines that are no command (RFC 5321 sections 4.1.1.5-4.1.1.10, 4.2.4)."""

from __future__ import annotations

from tests.conformance.case import (
    CONNECTED,
    HELLO,
    MAIL,
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
from tests.conformance.server import Server, token

exchange("RFC5321-4.1.1.9", "noop", "NOOP does nothing, positively", HELLO, "NOOP", "250")
exchange(
    "RFC5321-4.1.1.9",
    "noop-with-a-parameter",
    "A parameter of NOOP is ignored",
    HELLO,
    "NOOP something",
    "250",
    level=SHOULD,
)
exchange("RFC5321-4.1.4", "noop-before-ehlo", "NOOP may come at any time, even before EHLO", TLS, "NOOP", "250")
exchange("RFC5321-4.1.4", "rset-before-ehlo", "RSET may come at any time, even before EHLO", TLS, "RSET", "250")
exchange(
    "RFC5321-4.1.1.5",
    "rset-without-transaction",
    "RSET with nothing to give up is positive",
    SIGNED_IN,
    "RSET",
    "250",
)
exchange(
    "RFC5321-4.1.1.5", "rset-with-argument", "RSET has no parameters", HELLO, "RSET now", "501 500 5xx", level=SHOULD
)
exchange(
    "RFC5321-4.1.1.4", "data-with-argument", "DATA has no parameters", RCPT, "DATA now", "501 500 5xx", level=SHOULD
)
exchange(
    "RFC5321-3.5.3",
    "vrfy",
    "VRFY gives a mailbox, or says that it does not tell (252, 502), or that there is none",
    HELLO,
    "VRFY {recipient}",
    "25x 502 504 55x 530",
)
exchange(
    "RFC5321-4.1.1.6",
    "vrfy-without-argument",
    "VRFY needs a string",
    HELLO,
    "VRFY",
    "501 502 504 252 5xx",
    level=SHOULD,
)
exchange(
    "RFC5321-4.1.1.7",
    "expn",
    "EXPN gives a list, or says that it is not carried out",
    HELLO,
    "EXPN staff",
    "250 252 500 502 550 530",
)
exchange(
    "RFC5321-4.1.1.8",
    "help",
    "HELP gives words, or says that it is not carried out",
    HELLO,
    "HELP",
    "211 214 500 502",
)
exchange("RFC5321-4.2.4", "unknown-command", "A word that is no command is 500", HELLO, "WHAT is this", "500 502")
exchange("RFC5321-4.2.4", "empty-line", "An empty line is no command", HELLO, "", "500 501 502")
exchange(
    "RFC5321-4.2.4",
    "blank-before-the-verb",
    "A line that begins with a blank is no command, or its blank is ignored",
    HELLO,
    " NOOP",
    "250 500 501",
)
exchange(
    "RFC5321-4.2.4",
    "verb-glued-to-its-argument",
    "A verb ends where a blank stands",
    SIGNED_IN,
    "MAILFROM:<{sender}>",
    "500 501 502 221",
    usable=False,
)
exchange("RFC5321-2.4", "eight-bit-verb", "Octets above 127 are no verb", HELLO, b"NO\xc3\x93P", "500 501 502 5xx")
exchange(
    "RFC5321-2.4",
    "octets-that-are-no-text",
    "Octets that are neither ASCII nor UTF-8 are no verb",
    HELLO,
    b"NOOP\xff\xfe",
    "500 501 502 5xx",
)
exchange(
    "RFC5321-4.1.1",
    "turn",
    "TURN is not carried out: it was withdrawn for what it let strangers do",
    SIGNED_IN,
    "TURN",
    "500 502 503 5xx",
)
exchange(
    "RFC5321-4.1.1",
    "etrn",
    "ETRN is not carried out unless it was offered",
    SIGNED_IN,
    "ETRN example.com",
    "250 25x 4xx 5xx",
)
exchange(
    "RFC5321-4.1.1",
    "http-is-not-smtp",
    "A web browser's request is no command",
    CONNECTED,
    "GET / HTTP/1.1",
    "5xx 421 221",
    usable=False,
)


@case("RFC5321-4.1.1.5", "RSET forgets sender and recipients")
def rset_forgets_the_transaction(server: Server) -> None:
    client = server.at(RCPT)
    matches(client.say("RSET"), "250")
    matches(client.say(f"RCPT TO:<{server.recipient}>"), "503 5xx", "RCPT after RSET")
    matches(client.say("DATA"), "503 554 5xx", "DATA after RSET")


@case("RFC5321-4.1.1.5", "After RSET a new transaction begins with nothing of the old one", sees=True)
def rset_leaves_no_recipient_behind(server: Server) -> None:
    word = token()
    client = server.at(RCPT)
    matches(client.say("RSET"), "250")
    other = server.others(1)[0]
    server.transaction(client, to=(other,))
    client.send(server.message(token=word) + b".\r\n")
    matches(client.reply(), "250", "the end of the data")
    arrived = server.arrives(word)
    recipients = [one.recipients for one in arrived if one.recipients is not None]
    expect(all(found == (other,) for found in recipients), f"it arrived for {recipients}")
    expect(len(arrived) == 1, f"{len(arrived)} copies arrived")


@case("RFC5321-4.1.1.9", "NOOP in a transaction leaves it as it is")
def noop_keeps_the_transaction(server: Server) -> None:
    client = server.at(RCPT)
    matches(client.say("NOOP"), "250")
    matches(client.say("DATA"), "354")


@case("RFC5321-4.1.1.6", "VRFY, EXPN and HELP in a transaction leave it as it is")
def questions_keep_the_transaction(server: Server) -> None:
    client = server.at(RCPT)
    for line in ("VRFY postmaster", "EXPN staff", "HELP"):
        client.say(line)
    matches(client.say("DATA"), "354")


@case("RFC5321-4.1.1.10", "QUIT is answered with 221, and then the server closes")
def quit_closes(server: Server) -> None:
    client = server.at(HELLO)
    matches(client.say("QUIT"), "221")
    expect(client.closed(), "the connection stays open")


@case("RFC5321-4.1.1.10", "QUIT may come before EHLO")
def quit_before_ehlo(server: Server) -> None:
    matches(server.at(CONNECTED).say("QUIT"), "221")


@case("RFC5321-4.1.1.10", "QUIT in a transaction ends it without a message", sees=True)
def quit_gives_the_transaction_up(server: Server) -> None:
    client = server.at(MAIL)
    matches(client.say(f"RCPT TO:<{server.recipient}>"), "250")
    matches(client.say("QUIT"), "221")
    expect(client.closed(), "the connection stays open")


@case("RFC5321-4.1.1.10", "The server does not close before QUIT because a command was wrong", level=MUST)
def an_error_does_not_end_the_session(server: Server) -> None:
    client = server.at(HELLO)
    for line in ("WHAT", "MAIL", "RCPT", "EHLO"):
        reply = client.say(line)
        expect(reply.refused and reply.code != 421, f"{line} is answered with {reply}")
    matches(client.say("NOOP"), "250")


@case("RFC5321-4.1.1.10", "A client that ends its side after QUIT still reads the reply", level=SHOULD)
def half_closed_after_quit(server: Server) -> None:
    client = server.at(CONNECTED)
    client.send(b"QUIT\r\n")
    client.finish()
    matches(client.reply(), "221")
