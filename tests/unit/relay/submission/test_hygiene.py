"""What is set right in a message."""

from __future__ import annotations

import pytest

from malote_relay.submission.headers import split
from malote_relay.submission.hygiene import Client, date, prepared


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
    own = b"date: 1 jan 70 00:00 gmt (Thursday)\r\nMESSAGE-ID:\r\n <x@y>\r\nTo: b@c.d\r\n"
    header, message_id = prepare(own)
    assert header.endswith(own)
    assert header.count(b"\r\n") == own.count(b"\r\n") + 2
    assert message_id == "<x@y>"


def test_an_empty_message_id_is_replaced() -> None:
    header, message_id = prepare(b"Message-ID: \r\nFrom: a@acme.example\r\n")
    assert header.lower().count(b"message-id:") == 1
    assert message_id == "<q1@acme.example>"


@pytest.mark.parametrize(
    "value",
    [
        "Thu, 01 Jan 1970 00:00:00 +0000",
        "Thu,\r\n 1 Jan 1970 00:00 -0300 (BRT)",
        "1 Jan 1970 0:00:00 EST",
    ],
)
def test_a_date_that_can_be_read_stays(value: str) -> None:
    header, _ = prepare(f"From: a@acme.example\r\nDate: {value}\r\n".encode())
    assert header.count(b"Date:") == 1
    assert f"Date: {value}\r\n".encode() in header


@pytest.mark.parametrize("value", ["", "yesterday", "2026-11-23T16:08:54Z", "Thu, 01 Jan 1970"])
def test_a_date_that_nobody_can_read_is_replaced(value: str) -> None:
    header, _ = prepare(f"Date: {value}\r\nFrom: a@acme.example\r\n".encode())
    assert header.count(b"Date:") == 1
    assert header.endswith(b"Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n")


@pytest.mark.parametrize("value", ["<a.b@c.example>", "<a+b=c$d@[192.0.2.1]>", "<x@localhost>", "<\u00e9@c.example>"])
def test_a_message_id_that_is_one_stays(value: str) -> None:
    assert prepare(f"Message-ID: {value}\r\n".encode())[1] == value


@pytest.mark.parametrize(
    "value", ["x@y.example", "<x>", "<x@y", "<a b@c.example>", "<a@b> <c@d>", "<<a@b>>", "<a\x01@b>"]
)
def test_a_message_id_that_is_none_is_replaced(value: str) -> None:
    header, message_id = prepare(f"Message-ID: {value}\r\n".encode())
    assert message_id == "<q1@acme.example>"
    assert header.lower().count(b"message-id:") == 1


@pytest.mark.parametrize(
    ("name", "address", "clause"),
    [
        ("client.example", "192.0.2.1", "from client.example ([192.0.2.1])"),
        ("[192.0.2.7]", "192.0.2.1", "from [192.0.2.7] ([192.0.2.1])"),
        ("localhost", "2001:db8::1", "from localhost ([IPv6:2001:db8::1])"),
        ("", "192.0.2.1", "from [192.0.2.1] ([192.0.2.1])"),
        ("x;by(evil", "192.0.2.1", "from [192.0.2.1] ([192.0.2.1])"),
        ("caf\u00e9", "192.0.2.1", "from [192.0.2.1] ([192.0.2.1])"),
        ("x" * 300, "192.0.2.1", "from [192.0.2.1] ([192.0.2.1])"),
    ],
)
def test_the_client_is_named_as_rfc_5321_has_it(name: str, address: str, clause: str) -> None:
    assert Client(name, address).clause == clause


def test_the_client_stands_in_received_only_when_it_is_given() -> None:
    fields = split(b"From: a@acme.example\r\n")[0]
    header, _ = prepared(
        fields, by="h.example", protocol="ESMTPSA", queue_id="q1", from_domain="acme.example", at=0.0,
        client=Client("c.example", "192.0.2.1"),
    )  # fmt: skip
    assert header.startswith(
        b"Received: from c.example ([192.0.2.1])\r\n\tby h.example with ESMTPSA id q1;\r\n\tThu, 01"
    )


def test_blind_copies_stay_blind() -> None:
    header, _ = prepare(b"From: a@acme.example\r\nBCC: x@y.z,\r\n\tv@w.x\r\nResent-Bcc: q@r.s\r\nX: bcc\r\n")
    assert b"x@y.z" not in header
    assert b"v@w.x" not in header
    assert b"q@r.s" not in header
    assert b"X: bcc" in header


def test_a_return_path_is_left_to_the_server_that_delivers() -> None:
    header, _ = prepare(b"Return-Path: <boss@bank.example>\r\nFrom: a@acme.example\r\n")
    assert b"return-path" not in header.lower()
