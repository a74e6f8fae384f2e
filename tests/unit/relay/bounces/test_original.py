"""What came back of the message with a report about it: fields, and nothing else, and not much of them."""

from __future__ import annotations

import base64

import pytest

from malote_relay.bounces.original import MAX_HEADER, header

FIELDS = """\
Received: from out.acme.example by mx.shop.example;
\tMon, 7 Sep 2026 08:00:00 -0300
From: Ana <ana@acme.example>
Subject: Order 42
Message-ID: <42@acme.example>
"""


def report(returned: str, kind: str = "text/rfc822-headers", more: str = "", words: str = "Sorry.") -> bytes:
    text = f"""\
From: MAILER-DAEMON@mx.shop.example
Subject: Undelivered
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: text/plain

{words}
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.shop.example

Final-Recipient: rfc822; bia@shop.example
Action: failed
Status: 5.1.1

--b
Content-Type: {kind}
{more}
{returned}
--b--
"""
    return text.replace("\n", "\r\n").encode()


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


@pytest.mark.parametrize(
    "kind",
    ["message/rfc822", "message/global", "text/rfc822-headers", "message/rfc822-headers", "message/global-headers"],
)
def test_the_header_section_comes_back_folded_as_it_was_and_without_the_body(kind: str) -> None:
    body = "\nSecret: of the body\n" if kind in ("message/rfc822", "message/global") else ""
    assert header(report(FIELDS + body, kind)) == crlf(FIELDS)


def test_one_that_is_encoded_is_read() -> None:
    encoded = base64.encodebytes(FIELDS.encode()).decode()
    assert header(report(encoded, more="Content-Transfer-Encoding: base64\n")) == crlf(FIELDS)


@pytest.mark.parametrize(
    "heading",
    [
        "--- Below this line is a copy of the message.\n\n",
        "Original message follows:\n",
        "List-Id: a very\nlong one\n",
    ],
)
def test_one_below_a_report_in_words_is_found(heading: str) -> None:
    qmail = f"""\
From: MAILER-DAEMON@shop.example
Subject: failure notice

Hi. This is the qmail-send program at shop.example.
I'm afraid I wasn't able to deliver your message to the following addresses.

<bia@shop.example>:
Sorry, no mailbox here by that name. (#5.1.1)

{heading}{FIELDS}
Good day
"""
    assert header(crlf(qmail)).removeprefix(b"List-Id: a very\r\n") == crlf(FIELDS)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        report("", "message/rfc822"),
        report("To whom it may concern: good day", "text/rfc822-headers"),
        report("From: nobody", "message/rfc822"),
        report("<p>From: a@b</p>", "text/html"),
        b"Subject: Undelivered\r\nFrom: MAILER-DAEMON@x.example\r\n\r\nYour message came back.\r\n",
    ],
)
def test_what_is_no_header_section_is_not_taken_for_one(content: bytes) -> None:
    assert header(content) == b""


def test_only_what_reads_as_fields_is_taken_and_controls_are_not() -> None:
    returned = FIELDS.replace("Order 42", "Order\x07 \u202e42") + "no field\n its next line\nX-Last: 1\n"
    assert header(report(returned)) == crlf(FIELDS).replace(b"Order 42", b"Order? ?42") + b"X-Last: 1\r\n"


@pytest.mark.parametrize("kind", ["message/rfc822", "text/rfc822-headers"])
def test_a_header_section_in_utf_8_comes_back_as_it_was(kind: str) -> None:
    returned = FIELDS.replace("Order 42", "Olá,\n mundo")
    assert header(report(returned, kind)) == returned.replace("\n", "\r\n").encode()


def test_it_is_bounded_in_length_and_in_its_lines() -> None:
    returned = FIELDS + f"X-Long: {'y' * 5000}\n" + "".join(f"X-{number}: {'x' * 500}\n" for number in range(200))
    found = header(report(returned))
    assert found.startswith(crlf(FIELDS))
    assert len(found) <= MAX_HEADER
    assert all(len(line) <= 900 for line in found.split(b"\r\n"))
