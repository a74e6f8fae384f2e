"""Paths and mailboxes in MAIL and RCPT (RFC 5321 sections 4.1.1.2, 4.1.1.3, 4.1.2, 4.5.1, 4.5.3.1, appendix C)."""

from __future__ import annotations

from tests.conformance.case import MAIL, MUST, SHOULD, SIGNED_IN, Level, case, exchange, expect, matches
from tests.conformance.server import Server, token

_SYNTAX = "5xx"

# Not what the grammar has, but no RFC says that a server must not repair it.
_OFTEN_PUT_UP_WITH = frozenset(
    (
        "mail-closing-bracket",
        "mail-dot-first",
        "mail-two-ats",
        "mail-control-character",
        "rcpt-two-ats",
        "rcpt-empty-local",
        "rcpt-control-character",
        "rcpt-shell-pipe",
    )
)

for _name, _line, _why in (
    ("mail-alone", "MAIL", "MAIL needs FROM and a path"),
    ("mail-from-without-path", "MAIL FROM:", "MAIL FROM: needs a path"),
    ("mail-without-colon", "MAIL FROM <{sender}>", "MAIL FROM without its colon is a syntax error"),
    ("mail-to", "MAIL TO:<{sender}>", "MAIL TO: is a syntax error"),
    ("mail-open-bracket", "MAIL FROM:<{sender}", "the closing angle bracket must be there"),
    ("mail-closing-bracket", "MAIL FROM:{sender}>", "the opening angle bracket must be there"),
    ("mail-two-paths", "MAIL FROM:<{sender}><{sender}>", "there is one path"),
    ("mail-words-after-the-path", "MAIL FROM:<{sender}>SIZE=10", "a blank stands between path and parameters"),
    ("mail-two-ats", "MAIL FROM:<a@b@{domain}>", "an unquoted @ stands once"),
    ("mail-blank-in-local", "MAIL FROM:<a b@{domain}>", "a blank in the local part must be quoted"),
    ("mail-dot-first", "MAIL FROM:<.a@{domain}>", "a local part does not begin with a dot"),
    ("mail-control-character", b"MAIL FROM:<a\x01b@{domain}>", "control characters are in no address"),
    ("mail-without-domain-dot-end", "MAIL FROM:<a@>", "a domain is not empty"),
):
    exchange(
        "RFC5321-4.1.1.2",
        _name,
        _why[0].upper() + _why[1:],
        SIGNED_IN,
        _line,
        _SYNTAX,
        level=SHOULD if _name in _OFTEN_PUT_UP_WITH else MUST,
    )

for _name, _line, _why in (
    ("rcpt-alone", "RCPT", "RCPT needs TO and a path"),
    ("rcpt-to-without-path", "RCPT TO:", "RCPT TO: needs a path"),
    ("rcpt-null", "RCPT TO:<>", "the null path is for senders only"),
    ("rcpt-without-colon", "RCPT TO <{recipient}>", "RCPT TO without its colon is a syntax error"),
    ("rcpt-from", "RCPT FROM:<{recipient}>", "RCPT FROM: is a syntax error"),
    ("rcpt-open-bracket", "RCPT TO:<{recipient}", "the closing angle bracket must be there"),
    ("rcpt-two-ats", "RCPT TO:<a@b@{domain}>", "an unquoted @ stands once"),
    ("rcpt-open-quote", 'RCPT TO:<"a@{domain}>', "a quoted local part ends with a quote"),
    ("rcpt-empty-label", "RCPT TO:<a@x..{domain}>", "a domain has no empty labels"),
    ("rcpt-hyphen-first", "RCPT TO:<a@-x.{domain}>", "a label does not begin with a hyphen"),
    ("rcpt-two-paths", "RCPT TO:<{recipient}>,<{recipient}>", "one RCPT has one recipient"),
    ("rcpt-comma-list", "RCPT TO:<{recipient},x@{domain}>", "a list of addresses is no path"),
    ("rcpt-empty-domain", "RCPT TO:<a@>", "a domain is not empty"),
    ("rcpt-empty-local", "RCPT TO:<@{domain}>", "a local part is not empty"),
    ("rcpt-control-character", b"RCPT TO:<a\x7fb@{domain}>", "control characters are in no address"),
    ("rcpt-shell-pipe", "RCPT TO:<|/bin/sh>", "a command for a shell is no address"),
):
    exchange(
        "RFC5321-4.1.1.3",
        _name,
        _why[0].upper() + _why[1:],
        MAIL,
        _line,
        _SYNTAX,
        level=SHOULD if _name in _OFTEN_PUT_UP_WITH else MUST,
    )


def _taken(section: str, name: str, why: str, line: str | bytes, level: Level = MUST) -> None:
    exchange(section, name, why, MAIL, line, "250 251", level=level)


_taken("RFC5321-4.1.2", "quoted-local-part", "A quoted local part is a mailbox", 'RCPT TO:<"{local}"@{domain}>')
_taken("RFC5321-4.1.2", "quoted-blank", "A quoted local part may have blanks", 'RCPT TO:<"a b"@{domain}>')
_taken("RFC5321-4.1.2", "quoted-at", "A quoted local part may have an @", 'RCPT TO:<"a@b"@{domain}>')
_taken("RFC5321-4.1.2", "quoted-bracket", "A quoted local part may have a >", 'RCPT TO:<"a>b"@{domain}>')
_taken("RFC5321-4.1.2", "quoted-pair", "A quoted local part may have quoted pairs", 'RCPT TO:<"a\\"b"@{domain}>')
_taken(
    "RFC5321-4.1.2",
    "atext",
    "All of atext may stand in a local part",
    "RCPT TO:<a!#$%&'*+-/=?^_`{|}~b@{domain}>",
    SHOULD,
)
_taken(
    "RFC5321-4.5.3.1.1", "local-part-of-64", "A local part of 64 octets is taken", f"RCPT TO:<{'l' * 64}@{{domain}}>"
)
_taken(
    "RFC5321-C", "source-route", "A source route is taken and ignored", "RCPT TO:<@relay.example:{recipient}>", SHOULD
)
_taken(
    "RFC5321-C",
    "long-source-route",
    "A source route of several hosts is taken and ignored",
    "RCPT TO:<@a.example,@b.example:{recipient}>",
    SHOULD,
)
_taken(
    "RFC5321-4.5.1",
    "postmaster-with-domain",
    "Postmaster of a domain is a recipient like others",
    "RCPT TO:<Postmaster@{domain}>",
)
_taken(
    "RFC5321-4.5.1",
    "postmaster-alone",
    "RCPT TO:<Postmaster> is the one mailbox without a domain, in any case",
    "RCPT TO:<Postmaster>",
)
_taken("RFC5321-4.5.1", "postmaster-alone-in-lower-case", "… and in any case of its letters", "RCPT TO:<postmaster>")
exchange(
    "RFC5321-4.1.3",
    "address-literal",
    "An address literal is understood: taken, or refused as policy, in one reply",
    MAIL,
    "RCPT TO:<user@[192.0.2.1]>",
    "250 251 45x 5xx",
)
exchange(
    "RFC5321-4.1.3",
    "address-literal-malformed",
    "[999.1.1.1] is no address",
    MAIL,
    "RCPT TO:<user@[999.1.1.1]>",
    _SYNTAX,
)
exchange(
    "RFC5321-4.5.3.1.2",
    "domain-of-300",
    "A domain of more than 255 octets is refused",
    MAIL,
    f"RCPT TO:<a@{'.'.join(['d' * 49] * 6)}.example>",
    _SYNTAX,
    level=SHOULD,
)
exchange(
    "RFC6409-4.2",
    "recipient-without-domain",
    "A recipient without a domain is refused, or completed: the world does not know what it means",
    MAIL,
    "RCPT TO:<bob>",
    "250 5xx",
)
exchange(
    "RFC6409-4.2",
    "sender-without-domain",
    "A sender without a domain is refused or completed",
    SIGNED_IN,
    "MAIL FROM:<ana>",
    "250 5xx",
)
exchange(
    "RFC5321-4.1.1.2",
    "blank-after-the-colon",
    "A blank after FROM: is put up with, or a syntax error",
    SIGNED_IN,
    "MAIL FROM: <{sender}>",
    "250 501 5xx",
)


@case("RFC5321-2.4", "The domain of a recipient is compared without regard to case")
def the_domain_in_capitals(server: Server) -> None:
    client = server.at(MAIL)
    local, _, domain = server.recipient.rpartition("@")
    matches(client.say(f"RCPT TO:<{local}@{domain.upper()}>"), "250 251")


@case("RFC5321-2.4", "The local part arrives in the case in which it was given", sees=True)
def the_case_of_the_local_part_is_kept(server: Server) -> None:
    word = token()
    domain = server.recipient.rpartition("@")[2]
    arrived = server.relayed(server.message(token=word), word, to=(f"MixedCase@{domain}",))
    found = arrived.recipients
    expect(found is None or found[0].startswith("MixedCase@"), f"it arrived for {found}")


@case("RFC5321-4.1.2", "A quoted local part arrives quoted, or without quotes it does not need", sees=True)
def the_quoted_local_part_is_passed_on(server: Server) -> None:
    word = token()
    domain = server.recipient.rpartition("@")[2]
    arrived = server.relayed(server.message(token=word), word, to=(f'"a b"@{domain}',))
    found = arrived.recipients
    expect(found is None or found[0].startswith('"a b"@'), f"it arrived for {found}")


@case("RFC5321-C", "A message to a source route goes to its last address", sees=True)
def the_source_route_is_dropped(server: Server) -> None:
    word = token()
    arrived = server.relayed(server.message(token=word), word, to=(f"@relay.example:{server.recipient}",))
    found = arrived.recipients
    expect(found is None or found[0].lower() == server.recipient.lower(), f"it arrived for {found}")
