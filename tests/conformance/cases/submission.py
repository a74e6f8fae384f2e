"""What a submission server sees to in the message itself (RFC 6409 section 8, RFC 5322 section 3.6, RFC 5321 4.4)."""

from __future__ import annotations

import email.utils
import re
import socket

from tests.conformance.case import MUST, SHOULD, Level, case, expect, matches
from tests.conformance.server import Server, token


def _header(server: Server, text: str, word: str) -> bytes:
    return f"{text}Subject: conformance {word}\r\n\r\nbody\r\n".replace("SENDER", server.sender).encode()


@case("RFC6409-8.3", "A Date is added when there is none", level=SHOULD, sees=True)
def a_date_is_added(server: Server) -> None:
    word = token()
    arrived = server.relayed(_header(server, "From: <SENDER>\r\n", word), word)
    expect(len(arrived.named("Date")) == 1, f"Date: {arrived.named('Date')}")
    expect(email.utils.parsedate_to_datetime(arrived.named("Date")[0]), "it is no date")


@case("RFC6409-8.3", "A Date that is there stays as it is", level=SHOULD, sees=True)
def the_date_is_kept(server: Server) -> None:
    word = token()
    date = "Tue, 01 Sep 2026 10:11:12 -0300"
    arrived = server.relayed(_header(server, f"From: <SENDER>\r\nDate: {date}\r\n", word), word)
    expect(arrived.named("Date") == [date], f"Date: {arrived.named('Date')}")


@case("RFC6409-8.3", "A Message-ID is added when there is none", level=SHOULD, sees=True)
def a_message_id_is_added(server: Server) -> None:
    word = token()
    arrived = server.relayed(_header(server, "From: <SENDER>\r\n", word), word)
    found = arrived.named("Message-ID")
    expect(len(found) == 1 and re.fullmatch(r"<[^<>@\s]+@[^<>@\s]+>", found[0]), f"Message-ID: {found}")


@case("RFC6409-8.3", "A Message-ID that is there stays as it is", level=SHOULD, sees=True)
def the_message_id_is_kept(server: Server) -> None:
    word = token()
    arrived = server.relayed(_header(server, f"From: <SENDER>\r\nMessage-ID: <{word}@id.example>\r\n", word), word)
    expect(arrived.named("Message-ID") == [f"<{word}@id.example>"], f"{arrived.named('Message-ID')}")


@case("RFC5322-3.6.3", "Bcc does not leave: no recipient learns of the hidden ones", sees=True)
def bcc_does_not_leave(server: Server) -> None:
    word = token()
    header = "From: <SENDER>\r\nBcc: hidden@secret.example,\r\n second@secret.example\r\nTo: x@y.example\r\n"
    arrived = server.relayed(_header(server, header, word), word)
    expect(b"secret.example" not in arrived.content, "it stands in the message")


@case("RFC5321-4.4", "A Received field is put in front, with the way it came and a date", sees=True)
def received_is_added(server: Server) -> None:
    word = token()
    arrived = server.relayed(_header(server, "From: <SENDER>\r\n", word), word)
    found = arrived.named("Received")
    expect(found, "there is no Received field")
    text = " ".join(found)
    expect(re.search(r"\bby \S+", text) and ";" in text, f"Received: {found[0]}")
    expect(email.utils.parsedate_to_datetime(found[0].rpartition(";")[2].strip()), "it has no date")


@case(
    "RFC3848-3",
    "The Received field says ESMTPS or ESMTPSA (or UTF8SMTP…) when TLS and AUTH were used",
    level=SHOULD,
    sees=True,
)
def received_names_the_protocol(server: Server) -> None:
    word = token()
    arrived = server.relayed(_header(server, "From: <SENDER>\r\n", word), word)
    expected = "ESMTP" + ("S" if server.tls.value != "none" else "") + ("A" if server.user else "")
    text = " ".join(arrived.named("Received"))
    expect(re.search(rf"\bwith {expected}\b", text), f"Received: {text}")


@case("RFC6409-8", "The client's own address is not made known to the recipients", level=SHOULD, sees=True)
def the_client_address_is_not_told(server: Server) -> None:
    word = token()
    own = socket.gethostbyname(server.host) if server.host in {"localhost", "127.0.0.1"} else ""
    arrived = server.relayed(_header(server, "From: <SENDER>\r\n", word), word)
    text = " ".join(arrived.named("Received")[-1:])
    expect(not own or own not in text, f"Received: {text}")
    expect("client.example" not in text, f"Received: {text}")


@case("RFC5321-4.4", "Received fields that are there stay, in order, below the new one", sees=True)
def received_fields_are_kept(server: Server) -> None:
    word = token()
    old = ["from a by b; Tue, 01 Sep 2026 10:11:12 -0300", "from c by a; Tue, 01 Sep 2026 10:11:11 -0300"]
    text = "".join(f"Received: {one}\r\n" for one in old) + "From: <SENDER>\r\n"
    arrived = server.relayed(_header(server, text, word), word)
    found = arrived.named("Received")
    expect(found[-2:] == old and len(found) > 2, f"Received: {found}")


@case("RFC5321-6.3", "A message that has passed 150 servers is in a loop, and refused")
def a_loop_is_broken(server: Server) -> None:
    received = "Received: from a by b; Tue, 01 Sep 2026 10:11:12 -0300\r\n"
    reply = server.sent(_header(server, received * 150 + "From: <SENDER>\r\n", token()))
    matches(reply, "5xx")


@case("RFC5321-6.3", "A message that has passed 20 servers is no loop yet")
def a_long_way_is_no_loop(server: Server) -> None:
    received = "Received: from a by b; Tue, 01 Sep 2026 10:11:12 -0300\r\n"
    matches(server.sent(_header(server, received * 20 + "From: <SENDER>\r\n", token())), "250")


@case(
    "RFC5321-4.4",
    "Return-Path is written by the host that delivers: one that comes in does not leave",
    level=SHOULD,
    sees=True,
)
def return_path_does_not_leave(server: Server) -> None:
    word = token()
    arrived = server.relayed(_header(server, "Return-Path: <evil@else.example>\r\nFrom: <SENDER>\r\n", word), word)
    expect(all("evil@" not in one for one in arrived.named("Return-Path")), f"{arrived.named('Return-Path')}")


def _refused(name: str, section: str, why: str, header: str, level: Level = SHOULD) -> None:
    def check(server: Server) -> None:
        matches(server.sent(_header(server, header, token())), "5xx")

    check.__name__ = name.replace("-", "_")
    case(section, why, level=level)(check)


def _taken(name: str, section: str, why: str, header: str, level: Level = MUST) -> None:
    def check(server: Server) -> None:
        matches(server.sent(_header(server, header, token())), "250")

    check.__name__ = name.replace("-", "_")
    case(section, why, level=level)(check)


# RFC 6409 section 6: a submission server should see to it that what it lets out is a valid message.
_refused("no-from", "RFC5322-3.6.2", "A message without From is refused", "To: x@y.example\r\n")
_refused(
    "two-from",
    "RFC5322-3.6",
    "A message with two From fields is refused: readers differ in which they show",
    "From: <SENDER>\r\nFrom: <ceo@bank.example>\r\n",
)
_refused(
    "two-subjects",
    "RFC5322-3.6",
    "A message with two Subject fields is refused",
    "From: <SENDER>\r\nSubject: another\r\n",
)
_refused(
    "foreign-from", "RFC6409-6.1", "A From that the account may not use is refused", "From: <ceo@bank.example>\r\n"
)
_refused(
    "foreign-sender",
    "RFC6409-6.1",
    "A Sender that the account may not use is refused",
    "From: <SENDER>\r\nSender: <ceo@bank.example>\r\n",
)
_refused("from-without-address", "RFC5322-3.4", "A From without an address is refused", "From: Somebody\r\n")
_refused("empty-from", "RFC5322-3.4", "An empty From is refused", "From: \r\n")
_refused(
    "blank-before-the-colon",
    "RFC5322-2.2",
    "A blank before the colon is refused: readers differ",
    "From : <SENDER>\r\n",
)
_refused(
    "a-line-that-is-no-field",
    "RFC5322-2.2",
    "A line of the header that is no field is refused",
    "From: <SENDER>\r\nthis is no field\r\n",
)
_refused(
    "folding-of-nothing",
    "RFC5322-2.2.3",
    "A header that begins with a continuation is refused",
    " folded\r\nFrom: <SENDER>\r\n",
)
_refused(
    "group-in-from",
    "RFC5322-3.6.2",
    "A group in From names nobody to answer for the message",
    "From: undisclosed: ;\r\n",
)
_refused(
    "encoded-word-for-an-address",
    "RFC2047-5",
    "An encoded word cannot stand for an address",
    "From: =?utf-8?q?ceo=40bank.example?=\r\n",
)
_taken("folded-from", "RFC5322-2.2.3", "A folded From is taken", "From: Somebody\r\n <SENDER>\r\n")
_taken("from-with-display-name", "RFC5322-3.4", "A display name is taken", "From: Some Body <SENDER>\r\n")
_taken("from-with-quoted-name", "RFC5322-3.4", "A quoted display name is taken", 'From: "Body, Some" <SENDER>\r\n')
_taken(
    "from-with-encoded-name",
    "RFC2047-5",
    "An encoded word is taken as display name",
    "From: =?utf-8?q?Jos=C3=A9?= <SENDER>\r\n",
)
_taken("from-without-brackets", "RFC5322-3.4", "A bare address in From is taken", "From: SENDER\r\n")
_taken("from-with-a-comment", "RFC5322-3.2.2", "A comment in From is taken", "From: SENDER (Some Body)\r\n", SHOULD)
_taken(
    "field-name-in-capitals", "RFC5322-1.2.2", "Field names are compared without regard to case", "FROM: <SENDER>\r\n"
)
_taken(
    "long-folded-field",
    "RFC5322-2.2.3",
    "A field of many folded lines is taken",
    "From: <SENDER>\r\nReferences: <a@b.example>\r\n" + " <c@d.example>\r\n" * 200,
)
_taken("unknown-field", "RFC5322-3.6.8", "Fields nobody knows are taken", "From: <SENDER>\r\nX-Whatever: 1\r\n")
_taken(
    "many-recipients-in-to",
    "RFC5322-3.6.3",
    "A To with groups and many addresses is taken",
    "From: <SENDER>\r\nTo: team: a@x.example, b@x.example;, c@x.example\r\n",
)


@case("RFC6409-8", "Fields that need no correction arrive as they were, folding included", sees=True)
def other_fields_are_kept(server: Server) -> None:
    word = token()
    lines = "X-One:  two  blanks \r\nX-Two: folded\r\n\tonce\r\n  twice\r\nX-One: again\r\n"
    arrived = server.relayed(_header(server, f"From: <SENDER>\r\n{lines}", word), word)
    expect(lines.encode() in arrived.content, f"the header is {arrived.content.partition(b'body')[0]!r}")


@case("RFC6376-3", "What leaves carries a DKIM signature for the domain of From", level=SHOULD, sees=True)
def what_leaves_is_signed(server: Server) -> None:
    word = token()
    arrived = server.relayed(_header(server, "From: <SENDER>\r\n", word), word)
    domain = server.sender.rpartition("@")[2].lower()
    tags = [re.sub(r"\s", "", one).lower() for one in arrived.named("DKIM-Signature")]
    expect(any(f"d={domain};" in one + ";" for one in tags), "there is no such signature")
