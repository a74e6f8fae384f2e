from __future__ import annotations

import dataclasses
import email
import email.policy
from collections.abc import Callable
from email.message import EmailMessage
from typing import cast

import pytest

from malote_relay.delivery.dsn import failure_notice
from malote_relay.store.model import NewMessage, Outcome, Queued, Result

NOW = 1_800_000_000.0
HEADERS = b"From: <app@acme.example>\r\nSubject: Order 42\r\nMessage-ID: <42@acme.example>\r\n"


def failed(
    recipient: Queued, reply: str = "550 5.1.1 no such user", host: str = "mx.shop.example[192.0.2.1]"
) -> Outcome:
    return Outcome(recipient, Result.FAILED, NOW + 7200, reply, "bad-mailbox", host)


def notice(*outcomes: Outcome, headers: bytes | None = HEADERS) -> NewMessage:
    return failure_notice(outcomes, headers, egress_name="relay.example", now=NOW + 7200, id="n1")


def parsed(message: NewMessage) -> EmailMessage:
    assert isinstance(message.content, bytes)
    return email.message_from_bytes(message.content, policy=email.policy.SMTP)


def parts(message: NewMessage) -> tuple[EmailMessage, list[EmailMessage], EmailMessage]:
    """The words, the delivery-status groups, the returned headers."""
    words, report, returned = parsed(message).iter_parts()
    assert report.get_content_type() == "message/delivery-status"
    return cast(EmailMessage, words), cast(list[EmailMessage], report.get_payload()), cast(EmailMessage, returned)


def test_it_is_a_report_from_the_relay_to_the_reverse_path(queued: Callable[..., Queued]) -> None:
    message = notice(failed(queued()))
    document = parsed(message)
    assert document.get_content_type() == "multipart/report"
    assert document["Content-Type"].params["report-type"] == "delivery-status"
    assert document["From"].addresses[0].addr_spec == "MAILER-DAEMON@relay.example"
    assert document["To"].addresses[0].addr_spec == "app@acme.example"
    assert document["Auto-Submitted"] == "auto-replied"
    assert document["Date"].datetime.timestamp() == NOW + 7200
    assert not document.defects
    assert (message.reverse_path, [one.address for one in message.recipients]) == ("", ["app@acme.example"])
    assert isinstance(message.content, bytes)
    assert message.size == len(message.content)


def test_programs_read_each_recipients_status(queued: Callable[..., Queued]) -> None:
    _, (about, first, second), _ = parts(
        notice(failed(queued()), failed(queued(id=2, address="rui@shop.example"), "554 5.4.7 too old", ""))
    )
    assert about["Reporting-MTA"] == "dns; relay.example"
    assert about["Arrival-Date"]
    assert first["Final-Recipient"] == "rfc822; bia@shop.example"
    assert (first["Action"], first["Status"]) == ("failed", "5.1.1")
    assert first["Remote-MTA"] == "dns; mx.shop.example"
    assert first["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
    assert (second["Final-Recipient"], second["Status"], second["Remote-MTA"]) == (
        "rfc822; rui@shop.example",
        "5.4.7",
        None,
    )


def test_people_read_what_was_refused_and_why(queued: Callable[..., Queued]) -> None:
    words, _, _ = parts(notice(failed(queued())))
    text = words.get_content()
    assert "bia@shop.example" in text
    assert "550 5.1.1 no such user" in text
    assert "2 hours ago" in text or "120 minutes ago" in text


def test_the_messages_headers_come_back(queued: Callable[..., Queued]) -> None:
    _, _, returned = parts(notice(failed(queued())))
    assert returned.get_content_type() == "text/rfc822-headers"
    assert "Subject: Order 42" in returned.get_payload()


def test_headers_that_are_not_ascii_come_back_in_a_form_that_any_path_carries(queued: Callable[..., Queued]) -> None:
    message = notice(failed(queued()), headers="Subject: Olá\r\n".encode())
    _, _, returned = parts(message)
    assert isinstance(message.content, bytes)
    assert message.content.isascii()
    assert returned.get_content_type() == "message/global-headers"
    assert "Ol=C3=A1" in message.content.decode()


def test_long_replies_and_headers_do_not_make_long_lines(queued: Callable[..., Queued]) -> None:
    headers = b"X-Long: " + b"x" * 3000 + b"\r\nSubject: s\r\n" + b"X-Many: y\r\n" * 5000
    message = notice(failed(queued(), "550 5.7.1 " + "word " * 150), headers=headers)
    assert isinstance(message.content, bytes)
    assert all(len(line) <= 998 for line in message.content.split(b"\r\n"))
    assert b"\n" not in message.content.replace(b"\r\n", b"")
    assert len(message.content) < 120_000
    _, (_, status), _ = parts(message)
    assert status["Diagnostic-Code"].split()[-1] == "word"


def test_a_message_whose_content_is_gone_is_still_told_of(queued: Callable[..., Queued]) -> None:
    assert parts(notice(failed(queued()), headers=None))[1][1]["Status"] == "5.1.1"


def test_an_internationalised_recipient_is_named_as_rfc_6533_says(queued: Callable[..., Queued]) -> None:
    message = notice(failed(queued(address="josé@shop.example")))
    assert b"Final-Recipient: utf-8; jos\\x{E9}@shop.example" in cast(bytes, message.content)
    assert not message.smtputf8


def test_a_remotes_words_cannot_add_fields(queued: Callable[..., Queued]) -> None:
    outcome = dataclasses.replace(failed(queued()), reply="550 5.1.1 x\r\nAction: delivered")
    assert b"\r\nAction: delivered" not in cast(bytes, notice(outcome).content)


def test_a_null_reverse_path_gets_none(queued: Callable[..., Queued]) -> None:
    with pytest.raises(ValueError, match="null reverse-path"):
        notice(failed(queued(reverse_path="")))
