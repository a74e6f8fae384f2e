"""Complaints as providers send them."""

from __future__ import annotations

import base64

import pytest

from malote_relay.bounces.arf import Feedback, FeedbackType
from malote_relay.bounces.reading import understood


def parse_arf(content: bytes) -> Feedback | None:
    """The feedback in a message."""
    found = understood(content)
    return found if isinstance(found, Feedback) else None


def complaint(fields: str, *, original: str = "text/rfc822-headers", outer: str = "multipart/report") -> bytes:
    text = f"""\
From: <fbl@provider.example>
Subject: FW: Order 42
MIME-Version: 1.0
Content-Type: {outer}; report-type=feedback-report; boundary="b"

--b
Content-Type: text/plain

This is an email abuse report.
--b
Content-Type: message/feedback-report

{fields}
--b
Content-Type: {original}

Return-Path: <b-x-y@bounces.acme.example>
From: <app@acme.example>
Subject: Order 42

Good day
--b--
"""
    return text.replace("\n", "\r\n").encode()


FIELDS = """\
Feedback-Type: abuse
User-Agent: Provider-FBL/1.0
Version: 1
Original-Mail-From: <b-1-2@bounces.acme.example>
Original-Rcpt-To: <bia@provider.example>
Original-Rcpt-To: rui@provider.example"""


def test_a_complaint_is_read_with_all_it_says() -> None:
    assert parse_arf(complaint(FIELDS)) == Feedback(
        FeedbackType.ABUSE,
        "Provider-FBL/1.0",
        ["bia@provider.example", "rui@provider.example"],
        "b-1-2@bounces.acme.example",
    )


@pytest.mark.parametrize("original", ["message/rfc822", "text/rfc822-headers", "message/rfc822-headers"])
def test_the_return_path_of_the_message_stands_in_for_one_that_is_not_told(original: str) -> None:
    found = parse_arf(complaint("Feedback-Type: abuse", original=original))
    assert found is not None
    assert found.reverse_path == "b-x-y@bounces.acme.example"


def test_a_message_that_comes_back_encoded_is_read_too() -> None:
    original = "Return-Path: <b-x-y@bounces.acme.example>\nReceived: by x.example id 06611830ded15f554fbcd0;\n now\n"
    encoded = base64.encodebytes(original.encode()).decode()
    plain = complaint("Feedback-Type: abuse").partition(b"Return-Path")[0].decode().rstrip()
    text = f"{plain}\r\nContent-Transfer-Encoding: base64\r\n\r\n{encoded}\r\n--b--\r\n"
    found = parse_arf(text.encode())
    assert found is not None
    assert found.reverse_path == "b-x-y@bounces.acme.example"
    assert "id 06611830ded15f554fbcd0" in found.trace


@pytest.mark.parametrize(
    ("written", "kind", "counts"),
    [
        ("abuse", FeedbackType.ABUSE, True),
        ("FRAUD", FeedbackType.FRAUD, True),
        ("not-spam", FeedbackType.NOT_SPAM, False),
        ("auth-failure", FeedbackType.AUTH_FAILURE, False),
        ("something-new", FeedbackType.OTHER, True),
        ("", FeedbackType.OTHER, True),
    ],
)
def test_only_what_is_unwanted_counts(written: str, kind: FeedbackType, counts: bool) -> None:
    found = parse_arf(complaint(f"Feedback-Type: {written}\nVersion: 1"))
    assert found is not None
    assert (found.kind, found.kind.complaint) == (kind, counts)


def test_microsofts_reports_are_complaints_too() -> None:
    text = b"""\
From: <staff@hotmail.example>
Subject: complaint about message from 192.0.2.1
Content-Type: multipart/mixed; boundary="b"

--b
Content-Type: message/rfc822

X-HmXmrOriginalRecipient: bia@hotmail.example
Return-Path: <b-x-y@bounces.acme.example>
Subject: Order 42

--b--
"""
    assert parse_arf(text) == Feedback(
        FeedbackType.ABUSE, "Microsoft", ["bia@hotmail.example"], "b-x-y@bounces.acme.example"
    )


@pytest.mark.parametrize(
    "content", [b"", b"Subject: hello\r\n\r\nhello", complaint(FIELDS).replace(b"feedback", b"x")]
)
def test_other_mail_is_no_complaint(content: bytes) -> None:
    assert parse_arf(content) is None
