from __future__ import annotations

import dataclasses
import email
import email.policy
import re
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from typing import cast

import pytest

from malote_relay.config import Language
from malote_relay.delivery.answers.classify import CLASSES
from malote_relay.delivery.notices.allowance import Withheld
from malote_relay.delivery.notices.dsn import Reporter, Returned, summary
from malote_relay.delivery.notices.dsn import notice as make
from malote_relay.delivery.notices.due import Due, Kind, Reported
from malote_relay.delivery.notices.words import WORDS, Words
from malote_relay.store.model import DsnRequest, NewMessage, Outcome, Queued, Result
from malote_relay.submission.data import DataReader

NOW = 1_800_000_000.0
HEADERS = b"From: <app@acme.example>\r\nSubject: Order 42\r\nMessage-ID: <42@acme.example>\r\n"


def failed(
    recipient: Queued, reply: str = "550 5.1.1 no such user", host: str = "mx.shop.example[192.0.2.1]"
) -> Outcome:
    return Outcome(recipient, Result.FAILED, NOW + 7200, reply, "bad-mailbox", host)


def notice(
    *outcomes: Outcome,
    headers: bytes | None = HEADERS,
    kind: Kind = Kind.FAILED,
    whole: bool = False,
    language: Language = Language.ENGLISH,
) -> NewMessage:
    returned = None if headers is None else Returned(headers, whole)
    reporter = Reporter("relay.example", language)
    return make(Due(kind, outcomes), returned, reporter, retry_until=NOW + 432_000, now=NOW + 7200, id="n1")


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


@pytest.mark.parametrize(
    "reply", ["550 5.7.1 " + "x" * 990, "550 " + "x" * 996, "550 5.7.1 http://x.example/" + "x" * 200]
)
@pytest.mark.parametrize("language", [Language.ENGLISH, Language.PORTUGUESE])
def test_a_reply_without_a_space_makes_no_line_that_no_host_would_take(
    queued: Callable[..., Queued], reply: str, language: Language
) -> None:
    """RFC 5322 section 2.1.1."""
    message = notice(failed(queued(), reply), language=language)
    assert isinstance(message.content, bytes)
    door = DataReader(1_000_000)
    door.feed(message.content + b".\r\n")
    assert (door.finished, door.flaw) == (True, None)
    words, (_, status), _ = parts(message)
    for told in (status["Diagnostic-Code"], words.get_content()):
        assert reply.replace(" ", "") in "".join(told.split())
    if len(reply) < 900:
        assert reply.rsplit(maxsplit=1)[-1] in status["Diagnostic-Code"].split()


def test_a_reply_full_of_spaces_makes_no_empty_lines(queued: Callable[..., Queued]) -> None:
    message = notice(failed(queued(), "550 5.7.1 no" + " " * 400 + "way"))
    (field,) = re.findall(rb"\r\nDiagnostic-Code: .*?\r\n(?! )", cast(bytes, message.content), re.DOTALL)
    assert all(line.strip() for line in field.split(b"\r\n")[1:-1])


def test_a_message_whose_content_is_gone_is_still_told_of(queued: Callable[..., Queued]) -> None:
    assert parts(notice(failed(queued()), headers=None))[1][1]["Status"] == "5.1.1"


def test_an_internationalised_recipient_is_named_as_rfc_6533_says(queued: Callable[..., Queued]) -> None:
    message = notice(failed(queued(address="josé@shop.example")))
    assert b"Final-Recipient: utf-8; jos\\x{E9}@shop.example" in cast(bytes, message.content)
    assert not message.smtputf8


def test_a_remotes_words_cannot_add_fields(queued: Callable[..., Queued]) -> None:
    outcome = dataclasses.replace(failed(queued()), reply="550 5.1.1 x\r\nAction: delivered")
    assert b"\r\nAction: delivered" not in cast(bytes, notice(outcome).content)


def test_what_the_sender_named_the_message_and_recipient_comes_back_decoded(queued: Callable[..., Queued]) -> None:
    asked = DsnRequest(orcpt="rfc822;b+2Bia@old.example", envid="QQ+3D314")
    _, (about, first), _ = parts(notice(failed(queued(dsn=asked))))
    assert about["Original-Envelope-Id"] == "QQ=314"
    assert first["Original-Recipient"] == "rfc822; b+ia@old.example"
    assert first["Final-Recipient"] == "rfc822; bia@shop.example"


def test_what_the_sender_named_cannot_add_fields(queued: Callable[..., Queued]) -> None:
    asked = DsnRequest(orcpt="rfc822;x+0D+0AAction: delivered", envid="1+0D+0ABcc: all@shop.example")
    content = cast(bytes, notice(failed(queued(dsn=asked))).content)
    assert b"\r\nAction: delivered" not in content
    assert b"\r\nBcc:" not in content


def test_an_original_recipient_outside_ascii_stays_as_rfc_6533_writes_it(queued: Callable[..., Queued]) -> None:
    asked = DsnRequest(orcpt="utf-8;jos\\x{E9}@shop.example")
    _, (_, first), _ = parts(notice(failed(queued(dsn=asked))))
    assert first["Original-Recipient"] == "utf-8; jos\\x{E9}@shop.example"


def test_a_delay_says_until_when_it_is_tried(queued: Callable[..., Queued]) -> None:
    late = dataclasses.replace(failed(queued(), "451 4.7.1 come again"), result=Result.DEFERRED)
    message = notice(late, kind=Kind.DELAYED)
    words, (_, first), returned = parts(message)
    assert (first["Action"], first["Status"]) == ("delayed", "4.7.1")
    assert parsedate_to_datetime(first["Will-Retry-Until"]).timestamp() == NOW + 432_000
    assert "you need not send it again" in words.get_content()
    assert returned.get_content_type() == "text/rfc822-headers"


@pytest.mark.parametrize(
    ("reply", "bounce_class", "told", "left_out"),
    [
        ("452 4.2.2 full", "quota", ("once there is room", "assim que houver"), ("Try again", "Tente daqui")),
        ("450 4.1.1 unverified", "bad-mailbox", ("cannot tell yet", "ainda não sabe"), ("no such", "não existe")),
        ("451 4.7.1 later", "greylist", ("to try again later", "que tente mais tarde"), ("@@", "@@")),
    ],
)
def test_a_delay_gives_no_advice_that_is_for_failures(
    queued: Callable[..., Queued],
    reply: str,
    bounce_class: str,
    told: tuple[str, str],
    left_out: tuple[str, str],
) -> None:
    """Nobody should send again what is still tried, or strike off a list whom the host may know tomorrow."""
    for language, words, unsaid in zip(Language, told, left_out, strict=True):
        late = Outcome(queued(), Result.DEFERRED, NOW + 7200, reply, bounce_class, "mx.shop.example")
        text = " ".join(parts(notice(late, kind=Kind.DELAYED, language=language))[0].get_content().split())
        assert words in text
        assert unsaid not in text


def test_passing_on_to_a_host_that_does_not_confirm_is_told_as_relayed(queued: Callable[..., Queued]) -> None:
    taken = dataclasses.replace(failed(queued(), "250 2.0.0 Taken"), result=Result.DELIVERED, bounce_class="")
    _, (_, first), _ = parts(notice(taken, kind=Kind.RELAYED))
    assert (first["Action"], first["Status"]) == ("relayed", "2.0.0")


def test_what_was_given_up_has_the_relays_status_and_the_remotes_last_words(queued: Callable[..., Queued]) -> None:
    old = failed(queued(), "554 5.4.7 not delivered within 5 days; the last answer was: 452 4.2.2 mailbox full")
    _, (_, first), _ = parts(notice(old))
    assert (first["Status"], first["Diagnostic-Code"]) == ("5.4.7", "smtp; 452 4.2.2 mailbox full")


def test_what_no_remote_said_is_no_smtp_diagnostic(queued: Callable[..., Queued]) -> None:
    _, (_, first), _ = parts(notice(failed(queued(), "550 5.1.2 there is no such domain", "")))
    assert first["Diagnostic-Code"] == "x-malote; 550 5.1.2 there is no such domain"


def text(words: EmailMessage) -> str:
    return str(words.get_content()).replace("\r\n", "\n")


def test_the_relays_own_refusal_is_not_put_into_the_hosts_mouth(queued: Callable[..., Queued]) -> None:
    """RFC 3464 section 2.3.6: a diagnostic of type smtp is what the remote said. The host was there, and silent."""
    own = dataclasses.replace(failed(queued(), "552 5.3.4 mx.shop.example takes 9 octets at most"), own=True)
    words, (_, first), _ = parts(notice(own))
    assert first["Diagnostic-Code"] == "x-malote; 552 5.3.4 mx.shop.example takes 9 octets at most"
    assert (first["Status"], first["Remote-MTA"]) == ("5.3.4", "dns; mx.shop.example")
    assert "This relay itself found:\n    552 5.3.4 mx.shop.example takes" in text(words)
    assert "said:" not in text(words)


def test_people_read_who_gave_up_and_who_answered_last(queued: Callable[..., Queued]) -> None:
    old = failed(queued(), "554 5.4.7 not delivered within 5 days; the last answer was: 452 4.2.2 mailbox full")
    assert (
        "This relay gave it up:\n    554 5.4.7 not delivered within 5 days\n"
        "    mx.shop.example said:\n    452 4.2.2 mailbox full\n"
    ) in text(parts(notice(old))[0])


def test_what_was_given_up_after_a_finding_of_the_relay_is_no_smtp_diagnostic(queued: Callable[..., Queued]) -> None:
    old = "554 5.4.7 not delivered within 5 days; the last answer was: 451 4.4.2 mx.shop.example did not answer"
    words, (_, first), _ = parts(notice(dataclasses.replace(failed(queued(), old), own=True)))
    assert first["Diagnostic-Code"] == f"x-malote; {old}"
    assert "This relay itself found:\n    451 4.4.2 mx.shop.example did not answer" in text(words)


MESSAGE = HEADERS + b"\r\nGood day.\r\n"


def test_the_whole_message_comes_back_as_it_was(queued: Callable[..., Queued]) -> None:
    message = notice(failed(queued()), headers=MESSAGE, whole=True)
    _, _, returned = parts(message)
    assert returned.get_content_type() == "message/rfc822"
    assert cast(list[EmailMessage], returned.get_payload())[0].get_payload() == "Good day.\r\n"
    assert MESSAGE in cast(bytes, message.content)
    assert not message.eight_bit


def test_a_whole_message_with_an_8_bit_body_needs_an_8_bit_path(queued: Callable[..., Queued]) -> None:
    whole = HEADERS + "\r\nOlá.\r\n".encode()
    message = notice(failed(queued()), headers=whole, whole=True)
    assert whole in cast(bytes, message.content)
    assert message.eight_bit
    assert parsed(message)["Content-Transfer-Encoding"] == "8bit"


def test_a_whole_message_with_headers_outside_ascii_comes_back_encoded(queued: Callable[..., Queued]) -> None:
    message = notice(failed(queued()), headers="Subject: Olá\r\n\r\nOlá.\r\n".encode(), whole=True)
    _, _, returned = parts(message)
    assert returned.get_content_type() == "message/global"
    assert cast(bytes, message.content).isascii()
    assert not message.eight_bit


def test_people_are_told_why_and_what_to_do_in_their_language(queued: Callable[..., Queued]) -> None:
    english, portuguese = (
        parts(notice(failed(queued()), language=language))[0].get_content() for language in Language
    )
    assert "There is no such mailbox." in english
    assert "Esta caixa postal não existe." in portuguese
    assert "há 2 horas" in portuguese
    assert str(parsed(notice(failed(queued()), language=Language.PORTUGUESE))["Subject"]) == "Mensagem não entregue"


def test_a_notice_in_portuguese_is_safe_for_any_path(queued: Callable[..., Queued]) -> None:
    message = notice(failed(queued()), language=Language.PORTUGUESE)
    assert cast(bytes, message.content).isascii()
    assert not parsed(message).defects


def test_a_class_without_words_is_told_by_the_remotes_words_alone(queued: Callable[..., Queued]) -> None:
    odd = dataclasses.replace(failed(queued()), bounce_class="other")
    assert "550 5.1.1 no such user" in parts(notice(odd))[0].get_content()


@pytest.mark.parametrize("language", list(Language))
def test_a_summary_tells_how_many_were_left_out(language: Language) -> None:
    message = summary(
        Withheld("app@acme.example", 4711, NOW), Reporter("relay.example", language), now=NOW + 3600, id="s1"
    )
    document = parsed(message)
    assert not document.defects
    assert document["Auto-Submitted"] == "auto-generated"
    text = " ".join(document.get_content().split())
    assert "4711" in text
    # Confirmations that were asked for are left out, too: nothing need have failed.
    assert "could not be delivered" not in text
    assert "não puderam ser entregues" not in text
    assert (message.reverse_path, message.recipients[0].address) == ("", "app@acme.example")


@pytest.mark.parametrize("words", list(WORDS.values()))
def test_every_language_has_a_reason_for_every_class(words: Words) -> None:
    assert set(CLASSES) - {"other"} <= set(words.reasons)
    assert words.reasons.keys() == WORDS[Language.ENGLISH].reasons.keys()
    assert words.late_reasons.keys() == WORDS[Language.ENGLISH].late_reasons.keys()


def reported(
    recipient: Queued,
    told: Reported,
    *,
    headers: bytes | None = HEADERS,
    language: Language = Language.ENGLISH,
    host: str = "mx.shop.example",
) -> NewMessage:
    outcome = Outcome(recipient, Result.FAILED, NOW + 7200, "550 5.1.1 no such user", "bad-mailbox", host)
    returned = None if headers is None else Returned(headers)
    due = Due(Kind.BOUNCED, [outcome], told)
    return make(due, returned, Reporter("relay.example", language), retry_until=NOW, now=NOW + 7200, id="n1")


def test_what_was_reported_later_is_told_with_the_words_and_the_status_of_the_report(
    queued: Callable[..., Queued],
) -> None:
    asked = DsnRequest(orcpt="rfc822;bia@old.example", envid="QQ314")
    message = reported(queued(dsn=asked), Reported("4.4.7", "x-notes; Delivery expired"))
    words, (about, first), returned = parts(message)
    assert (about["Reporting-MTA"], about["Original-Envelope-Id"]) == ("dns; relay.example", "QQ314")
    assert (first["Action"], first["Status"]) == ("failed", "4.4.7")
    assert (first["Final-Recipient"], first["Original-Recipient"]) == (
        "rfc822; bia@shop.example",
        "rfc822; bia@old.example",
    )
    assert first["Remote-MTA"] == "dns; mx.shop.example"
    assert first["Diagnostic-Code"] == "x-notes; Delivery expired"
    assert first["Last-Attempt-Date"] is None  # it was another's, and is not known
    assert "the next server took it" in " ".join(words.get_content().split())
    assert "Subject: Order 42" in returned.get_payload()


def test_a_report_that_said_nothing_is_told_without_a_diagnostic(queued: Callable[..., Queued]) -> None:
    _, (_, first), _ = parts(reported(queued(), Reported("5.1.1\r\nX-Evil: 1", ""), headers=None))
    assert (first["Status"], first["Diagnostic-Code"], first["X-Evil"]) == ("5.1.1", None, None)


@pytest.mark.parametrize("host", ["mx.shop.example", ""])
def test_a_reports_words_are_never_the_relays_own(queued: Callable[..., Queued], host: str) -> None:
    words = text(parts(reported(queued(), Reported("5.1.1"), host=host))[0])
    assert "    550 5.1.1 no such user\n" in words
    assert ("mx.shop.example said:" in words) is bool(host)
    assert "This relay" not in words


def test_a_reports_words_cannot_add_fields(queued: Callable[..., Queued]) -> None:
    content = cast(bytes, reported(queued(), Reported("5.1.1", "smtp; 550 x\r\nAction: delivered")).content)
    assert b"\r\nAction: delivered" not in content


def test_what_was_reported_later_is_told_in_the_senders_language(queued: Callable[..., Queued]) -> None:
    words, _, _ = parts(reported(queued(), Reported(), language=Language.PORTUGUESE))
    assert "o servidor seguinte a aceitou" in " ".join(words.get_content().split())
