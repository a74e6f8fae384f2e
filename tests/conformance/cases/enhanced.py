"""Enhanced status codes (RFC 2034, RFC 3463)."""

from __future__ import annotations

from tests.conformance.case import DATA, HELLO, RCPT, SIGNED_IN, TLS, case, expect, matches
from tests.conformance.client import Reply
from tests.conformance.server import CLIENT_NAME, Server

_E = "ENHANCEDSTATUSCODES"


def _has_one(line: str, reply: Reply) -> None:
    expect(reply.enhanced, f"{line} is answered with {reply}")
    agrees = reply.enhanced[0] == str(reply.code)[0]
    expect(agrees, f"{line} is answered with {reply}: the classes differ")


@case(
    "RFC2034-4",
    "Replies of success and failure begin with an enhanced code of the same class, on every line",
    needs=_E,
)
def every_reply_has_one(server: Server) -> None:
    client = server.at(SIGNED_IN)
    lines = [
        "NOOP",
        "RSET",
        "VRFY somebody",
        "WHAT",
        "",
        "RCPT TO:<x@y.example>",
        "DATA",
        "MAIL",
        "MAIL FROM:<a",
        "MAIL FROM:<a b@c>",
        f"MAIL FROM:<{server.sender}> XNONE=1",
        f"MAIL FROM:<{server.sender}> SIZE=x",
        f"MAIL FROM:<{server.sender}>",
        "MAIL FROM:<>",
        "RCPT TO:<>",
        "RCPT TO:<a@>",
        "RCPT",
        f"RCPT TO:<{server.recipient}>",
        "RSET",
        "STARTTLS",
        "NOOP " + "x" * 3000,
    ]
    for line in lines:
        reply = client.say(line)
        if not (line.startswith("VRFY") and reply.code == 252):
            _has_one(line[:40], reply)


@case("RFC2034-4", "The reply to the end of the data has an enhanced code, and so has the one to QUIT", needs=_E)
def the_end_of_data_has_one(server: Server) -> None:
    client = server.at(DATA)
    client.send(server.message() + b".\r\n")
    _has_one("the end of the data", client.reply())
    _has_one("QUIT", client.say("QUIT"))


@case("RFC2034-4", "The replies of AUTH have enhanced codes (RFC 4954 section 6)", needs=_E)
def auth_has_one(server: Server) -> None:
    if not server.user or "PLAIN" not in server.offers.get("AUTH", "").split():
        return
    client = server.at(HELLO)
    for line in (
        f"MAIL FROM:<{server.sender}>",
        "AUTH",
        "AUTH X-NONE",
        f"AUTH PLAIN {server.plain()}",
        f"AUTH PLAIN {server.plain()}",
    ):
        reply = client.say(line)
        _has_one(line[:12], reply)


@case("RFC2034-3", "The greeting and the replies to HELO and EHLO have none, nor has 354", needs=_E)
def some_replies_have_none(server: Server) -> None:
    client = server.connect()
    for line, reply in (
        ("the greeting", client.reply()),
        ("EHLO", client.say(f"EHLO {CLIENT_NAME}")),
        ("HELO", server.at(TLS).say(f"HELO {CLIENT_NAME}")),
        ("DATA", server.at(RCPT).say("DATA")),
    ):
        expect(not reply.enhanced, f"{line}: {reply}")


@case("RFC3463-3.2", "A syntax error is of subject 5 (protocol), or names the address (subject 1)", needs=_E)
def syntax_errors_are_of_the_right_subject(server: Server) -> None:
    client = server.at(SIGNED_IN)
    for line, subjects in (
        ("WHAT", "5"),
        ("MAIL FROM:<a b@c.example>", "15"),
        ("DATA", "5"),
        ("RCPT TO:<a@b.example>", "5"),
    ):
        reply = client.say(line)
        subject = reply.enhanced.split(".")[1] if reply.enhanced else ""
        expect(subject in list(subjects), f"{line} is answered with {reply}")


@case("RFC3463-3.4", "A message that is too large is told so by X.3.4", needs=_E)
def too_large_is_x_3_4(server: Server) -> None:
    if not server.size_limit:
        return
    reply = server.at(SIGNED_IN).say(f"MAIL FROM:<{server.sender}> SIZE={server.size_limit + 1}")
    matches(reply, "552")
    expect(reply.enhanced == "5.3.4", f"it is {reply}")


@case("RFC3463-3.8", "A failure to sign in is of subject 7 (security)", needs=_E, guesses=True)
def auth_failure_is_of_subject_7(server: Server) -> None:
    if "PLAIN" not in server.offers.get("AUTH", "").split() or not server.user:
        return
    reply = server.at(HELLO).say("AUTH PLAIN AG5vYm9keQBub3RoaW5n")
    matches(reply, "535")
    expect(reply.enhanced.startswith("5.7."), f"it is {reply}")


@case("RFC2034-4", "A reply of several lines repeats the code on each", needs=_E)
def codes_of_several_lines_agree(server: Server) -> None:
    client = server.at(HELLO)
    reply = client.say("HELP")
    if len(reply.lines) > 1 and any(line[:1].isdigit() for line in reply.lines):
        expect(reply.enhanced, f"HELP is answered with {reply}")
