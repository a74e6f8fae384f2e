"""SIZE: how large a message may be, said before it is sent (RFC 1870)."""

from __future__ import annotations

from tests.conformance.case import MAIL, SHOULD, SIGNED_IN, case, exchange, expect, matches
from tests.conformance.server import Server

_LARGEST_TRIED = 64 * 1024 * 1024


@case("RFC1870-4", "The parameter of SIZE in EHLO is a decimal number, or absent", needs="SIZE")
def the_limit_is_a_number(server: Server) -> None:
    text = server.offers["SIZE"]
    expect(not text or (text.isdigit() and len(text) <= 20), f"it is {text!r}")


@case("RFC5321-4.5.3.1.7", "The fixed maximum, if there is one, is at least 64 KiB", needs="SIZE")
def the_limit_is_not_too_low(server: Server) -> None:
    expect(server.size_limit == 0 or server.size_limit >= 65_536, f"it is {server.size_limit}")


exchange(
    "RFC1870-6.1",
    "declared-size",
    "A declared size within the limit is taken",
    SIGNED_IN,
    "MAIL FROM:<{sender}> SIZE=1000",
    "250",
    needs="SIZE",
)
exchange(
    "RFC1870-6.1",
    "size-zero",
    "A declared size of 0 says nothing",
    SIGNED_IN,
    "MAIL FROM:<{sender}> SIZE=0",
    "250",
    needs="SIZE",
)
exchange(
    "RFC1870-6.1",
    "size-in-lower-case",
    "Keywords of parameters are compared without regard to case",
    SIGNED_IN,
    "MAIL FROM:<{sender}> size=1000",
    "250",
    needs="SIZE",
)
exchange(
    "RFC1870-6.1",
    "size-without-value",
    "SIZE needs a value",
    SIGNED_IN,
    "MAIL FROM:<{sender}> SIZE",
    "5xx",
    needs="SIZE",
    level=SHOULD,
)
exchange(
    "RFC1870-6.1", "size-empty", "SIZE= needs a value", SIGNED_IN, "MAIL FROM:<{sender}> SIZE=", "5xx", needs="SIZE"
)
exchange(
    "RFC1870-6.1",
    "size-not-a-number",
    "The value of SIZE is decimal digits",
    SIGNED_IN,
    "MAIL FROM:<{sender}> SIZE=many",
    "5xx",
    needs="SIZE",
)
exchange(
    "RFC1870-6.1",
    "size-negative",
    "The value of SIZE has no sign",
    SIGNED_IN,
    "MAIL FROM:<{sender}> SIZE=-1",
    "5xx",
    needs="SIZE",
)
exchange(
    "RFC1870-6.1",
    "size-hexadecimal",
    "The value of SIZE is decimal",
    SIGNED_IN,
    "MAIL FROM:<{sender}> SIZE=0x10",
    "5xx",
    needs="SIZE",
)
exchange(
    "RFC1870-6.1",
    "size-with-foreign-digits",
    "Digits of other scripts are no digits",
    SIGNED_IN,
    "MAIL FROM:<{sender}> SIZE=١٢",
    "5xx",
    needs="SIZE",
)
exchange(
    "RFC1870-6.1",
    "size-of-30-digits",
    "The value of SIZE has at most 20 digits",
    SIGNED_IN,
    f"MAIL FROM:<{{sender}}> SIZE={'9' * 30}",
    "5xx",
    needs="SIZE",
)
exchange(
    "RFC1870-6.1",
    "size-twice",
    "A parameter stands once",
    SIGNED_IN,
    "MAIL FROM:<{sender}> SIZE=1 SIZE=2",
    "5xx",
    needs="SIZE",
    level=SHOULD,
)
exchange(
    "RFC5321-4.1.1.11",
    "unknown-mail-parameter",
    "A parameter of MAIL that was not offered is refused",
    SIGNED_IN,
    "MAIL FROM:<{sender}> XWHATEVER=1",
    "555 5xx",
)
exchange(
    "RFC5321-4.1.1.11",
    "unknown-rcpt-parameter",
    "A parameter of RCPT that was not offered is refused",
    MAIL,
    "RCPT TO:<{recipient}> XWHATEVER=1",
    "555 5xx",
)
exchange(
    "RFC5321-4.1.2",
    "parameter-of-odd-characters",
    "A parameter's keyword has letters, digits and hyphens",
    SIGNED_IN,
    "MAIL FROM:<{sender}> X_Y=1",
    "5xx",
)
exchange(
    "RFC5321-4.1.2",
    "parameter-with-two-signs",
    "A parameter has one equals sign",
    SIGNED_IN,
    "MAIL FROM:<{sender}> SIZE=1=2",
    "5xx",
)


@case(
    "RFC1870-6.1",
    "A declared size beyond the fixed maximum is refused with 552 before the content is sent",
    needs="SIZE",
)
def a_declared_size_beyond_the_limit(server: Server) -> None:
    if not server.size_limit:
        return
    client = server.at(SIGNED_IN)
    matches(client.say(f"MAIL FROM:<{server.sender}> SIZE={server.size_limit + 1}"), "552")


@case(
    "RFC1870-6.1", "The size that was refused counts for that MAIL only, not for the next", needs="SIZE", level=SHOULD
)
def a_refused_size_is_forgotten(server: Server) -> None:
    if not server.size_limit:
        return
    client = server.at(SIGNED_IN)
    matches(client.say(f"MAIL FROM:<{server.sender}> SIZE={server.size_limit + 1}"), "552")
    matches(client.say(f"MAIL FROM:<{server.sender}>"), "250", "a MAIL without it")


@case("RFC1870-6.1", "A declared size of exactly the maximum is not beyond it", needs="SIZE")
def a_declared_size_at_the_limit(server: Server) -> None:
    if not server.size_limit:
        return
    client = server.at(SIGNED_IN)
    matches(client.say(f"MAIL FROM:<{server.sender}> SIZE={server.size_limit}"), "250 452")


@case("RFC1870-6.3", "Content beyond the fixed maximum is refused with 552, and the session goes on", needs="SIZE")
def content_beyond_the_limit(server: Server) -> None:
    if not 0 < server.size_limit <= _LARGEST_TRIED:
        return
    client = server.at(SIGNED_IN)
    server.transaction(client)
    line = b"x" * 70 + b"\r\n"
    client.send(server.message(line * (server.size_limit // len(line) + 10)) + b".\r\n")
    matches(client.reply(), "552", "the end of the data")
    matches(client.say("NOOP"), "250", "NOOP afterwards")


@case(
    "RFC1870-6.2", "A message a little larger than it was declared is no error in itself", needs="SIZE", level=SHOULD
)
def content_larger_than_declared(server: Server) -> None:
    client = server.at(SIGNED_IN)
    server.transaction(client, mail="SIZE=100")
    client.send(server.message("x" * 200) + b".\r\n")
    matches(client.reply(), "250")
