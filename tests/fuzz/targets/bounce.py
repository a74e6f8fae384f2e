"""Reports that come back (RFC 3464, RFC 5965), of whatever hosts: read, or nothing, and never an error."""

from __future__ import annotations

import re

from tests.fuzz.target import Target

from malote_relay.bounces.dsn import Dsn
from malote_relay.bounces.original import MAX_HEADER, header
from malote_relay.bounces.reading import understood
from malote_relay.bounces.verdict import verdict

_LINE = re.compile(rb"(?:[!-9;-~]+:|[\t ])[^\x00-\x08\x0a-\x1f\x7f]{0,900}")
_STATUS = re.compile(r"(?:[245]\.[0-9]{1,3}\.[0-9]{1,3})?\Z")


def check(data: bytes) -> None:
    found = understood(data)
    if isinstance(found, Dsn):
        assert all(_STATUS.match(one.status) for one in found.recipients)
        told = verdict(found)
        assert told is None or "\n" not in told.words + told.diagnostic
    came_back = header(data)
    assert len(came_back) <= MAX_HEADER
    assert all(_LINE.fullmatch(line) for line in came_back.split(b"\r\n")[:-1])


_DSN = (
    b"From: MAILER-DAEMON@mx.example\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n\r\n'
    b"--b\r\n\r\nYour message could not be delivered.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n"
    b"Reporting-MTA: dns; mx.example\r\n\r\nFinal-Recipient: rfc822; bob@dest.example\r\n"
    b"Action: failed\r\nStatus: 5.1.1\r\n"
    b"Remote-MTA: dns; mx.dest.example\r\nDiagnostic-Code: smtp; 550 5.1.1 no such user\r\n\r\n"
    b"--b\r\nContent-Type: text/rfc822-headers\r\n\r\nFrom: ana@acme.example\r\nMessage-ID: <a@b>\r\n\r\n--b--\r\n"
)
_ARF = (
    b"From: fbl@mx.example\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/report; report-type=feedback-report; boundary="b"\r\n\r\n'
    b"--b\r\n\r\nA complaint.\r\n--b\r\nContent-Type: message/feedback-report\r\n\r\n"
    b"Feedback-Type: abuse\r\nVersion: 1\r\n"
    b"User-Agent: x/1\r\nOriginal-Rcpt-To: bob@dest.example\r\nArrival-Date: Tue, 01 Sep 2026 10:11:12 -0300\r\n\r\n"
    b"--b\r\nContent-Type: message/rfc822\r\n\r\nFrom: ana@acme.example\r\nMessage-ID: <a@b>\r\n\r\nx\r\n--b--\r\n"
)

TARGET = Target(
    "bounce",
    check,
    words=(
        b"--b\r\n",
        b"--b--",
        b"Content-Type: ",
        b"message/delivery-status",
        b"message/rfc822",
        b"multipart/report",
        b"; boundary=",
        b"text/plain; charset=",
        b"utf-7",
        b"Content-Transfer-Encoding: base64\r\n",
        b"quoted-printable",
        b"Action: ",
        b"failed",
        b"Status: 5.1.1\r\n",
        b"Final-Recipient: rfc822;",
        b"Diagnostic-Code: smtp;",
        b"550 5.1.1 x",
        b"=?utf-8?q?x?=",
        b"=?x?b?!?=",
        b"Feedback-Type: abuse\r\n",
        b"Original-Rcpt-To: ",
        b"\r\n\r\n",
        b"charset*=x''%ff",
        b"boundary*0=b",
        b"\xff\xfe",
    ),
    seeds=(_DSN, _ARF),
)
