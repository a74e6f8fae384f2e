"""What is set right in a message."""

from __future__ import annotations

from malote_relay.submission.headers import split
from malote_relay.submission.hygiene import date, prepared


def prepare(header: bytes) -> tuple[bytes, str]:
    return prepared(
        split(header)[0], by="h.example", protocol="ESMTPSA", queue_id="q1", from_domain="acme.example", at=0.0
    )


def test_dates_are_written_as_rfc_5322_has_them() -> None:
    assert date(1_795_450_134.9) == "Mon, 23 Nov 2026 16:08:54 +0000"


def test_what_is_missing_is_added_and_received_stands_on_top() -> None:
    header, message_id = prepare(b"From: a@acme.example\r\n")
    assert header == (
        b"Received: by h.example with ESMTPSA id q1;\r\n\tThu, 01 Jan 1970 00:00:00 +0000\r\n"
        b"From: a@acme.example\r\n"
        b"Message-ID: <q1@acme.example>\r\n"
        b"Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n"
    )
    assert message_id == "<q1@acme.example>"


def test_what_is_there_stays_as_it_is() -> None:
    own = b"date: yesterday\r\nMESSAGE-ID:\r\n <x@y>\r\nTo: b@c.d\r\n"
    header, message_id = prepare(own)
    assert header.endswith(own)
    assert header.count(b"\r\n") == own.count(b"\r\n") + 2
    assert message_id == "<x@y>"


def test_an_empty_message_id_is_replaced() -> None:
    header, message_id = prepare(b"Message-ID: \r\nFrom: a@acme.example\r\n")
    assert header.lower().count(b"message-id:") == 1
    assert message_id == "<q1@acme.example>"


def test_blind_copies_stay_blind() -> None:
    header, _ = prepare(b"From: a@acme.example\r\nBCC: x@y.z,\r\n\tv@w.x\r\nResent-Bcc: q@r.s\r\nX: bcc\r\n")
    assert b"x@y.z" not in header
    assert b"v@w.x" not in header
    assert b"q@r.s" not in header
    assert b"X: bcc" in header


def test_a_return_path_is_left_to_the_server_that_delivers() -> None:
    header, _ = prepare(b"Return-Path: <boss@bank.example>\r\nFrom: a@acme.example\r\n")
    assert b"return-path" not in header.lower()
