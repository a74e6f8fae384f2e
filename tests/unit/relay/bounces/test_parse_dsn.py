"""Reports on delivery as servers write them: the clean ones, the sloppy ones, and what only looks like one."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from malote_relay.bounces.dsn import Action, Dsn, RecipientStatus
from malote_relay.bounces.reading import understood
from malote_relay.bounces.text import Kind, recognise
from malote_relay.bounces.verdict import verdict
from malote_relay.delivery.notices.allowance import HOUR
from malote_relay.delivery.notices.dsn import Reporter, Returned, notice
from malote_relay.delivery.notices.due import Due
from malote_relay.delivery.notices.due import Kind as NoticeKind
from malote_relay.store.model import Outcome, Queued, Result


def parse_dsn(content: bytes) -> Dsn | None:
    """The report in a message."""
    found = understood(content)
    return found if isinstance(found, Dsn) else None


def report(status: str, *, kind: str = "message/delivery-status", encoding: str = "", outer: str = "") -> bytes:
    """A report with these fields, CRLF line ends."""
    outer = outer or 'multipart/report; report-type=delivery-status; boundary="b"'
    text = f"""\
From: Mail Delivery System <MAILER-DAEMON@mx.shop.example>
To: <b-x@bounces.acme.example>
Subject: Undelivered Mail Returned to Sender
MIME-Version: 1.0
Content-Type: {outer}

--b
Content-Type: text/plain

It could not be delivered.
--b
Content-Type: {kind}
{encoding}
{status}
--b
Content-Type: message/rfc822

Subject: Order 42
From: <app@acme.example>

Good day
--b--
"""
    return text.replace("\n", "\r\n").encode()


FIELDS = """\
Reporting-MTA: dns; mx.shop.example
Original-Envelope-Id: QQ314
Arrival-Date: Wed, 25 Nov 2026 11:00:00 +0000

Original-Recipient: rfc822; b+2Bia@shop.example
Final-Recipient: rfc822; bia@mail.shop.example
Action: failed
Status: 5.1.1
Remote-MTA: dns; store.shop.example
Diagnostic-Code: smtp; 550 5.1.1 <bia@mail.shop.example>:
 no such user here

Final-Recipient: rfc822;rui@shop.example
Action: delayed
Status: 4.2.2
"""


def test_a_report_is_read_with_all_it_says() -> None:
    found = parse_dsn(report(FIELDS))
    assert found is not None
    assert (found.reporter, found.envelope_id) == ("mx.shop.example", "QQ314")
    assert found.recipients == [
        RecipientStatus(
            Action.FAILED,
            "5.1.1",
            "550 5.1.1 <bia@mail.shop.example>: no such user here",
            "bia@mail.shop.example",
            "b+ia@shop.example",
            "store.shop.example",
            "smtp",
        ),
        RecipientStatus(Action.DELAYED, "4.2.2", "", "rui@shop.example"),
    ]


def test_what_this_relay_writes_it_can_read() -> None:
    queued = Queued(1, "m1", "josé@shop.example", "app@acme.example", "app", 1, False, False, 0, 0, 0, 0)
    outcome = Outcome(queued, Result.FAILED, HOUR, "552 5.2.2 mailbox full", "quota", "mx.shop.example[192.0.2.1]")
    written = notice(
        Due(NoticeKind.FAILED, [outcome]),
        Returned(b"Subject: x\r\n"),
        Reporter("out.acme.example"),
        retry_until=0,
        now=HOUR,
        id="n1",
    )
    assert isinstance(written.content, bytes)
    found = parse_dsn(written.content)
    assert found is not None
    assert found.reporter == "out.acme.example"
    (one,) = found.recipients
    assert (one.final_recipient, one.status, one.remote) == ("josé@shop.example", "5.2.2", "mx.shop.example")


@pytest.mark.parametrize(
    ("fields", "action", "status"),
    [
        (
            "Final-Recipient: bia@shop.example\nAction: Failed (permanently)\nStatus: 5.1.1 (no such user)",
            "failed",
            "5.1.1",
        ),
        (
            "Reporting-MTA: mx\nFinal-Recipient: rfc822; <bia@shop.example>\nAction: failed\nStatus: 5.0.0",
            "failed",
            "5.0.0",
        ),
        ("Final-Recipient: rfc822;bia@shop.example\nStatus: 5.2.1", "failed", "5.2.1"),
        ("final-recipient: x\naction: failure\nstatus: \nDiagnostic-Code: smtp;550 5.7.1 no", "failed", "5.7.1"),
        ("Original-Recipient: rfc822;bia@shop.example\nAction: delayed\nStatus: 4.4.1", "delayed", "4.4.1"),
        ("Final-Recipient: rfc822;bia@shop.example\nAction: delivered\nStatus: 2.0.0", "delivered", "2.0.0"),
        ("Final-Recipient: rfc822;bia@shop.example\nAction: expanded", "expanded", ""),
    ],
)
def test_sloppy_fields_are_read(fields: str, action: str, status: str) -> None:
    found = parse_dsn(report(fields))
    assert found is not None
    assert (found.recipients[0].action, found.recipients[0].status) == (action, status)


@pytest.mark.parametrize("outer", ['multipart/mixed; boundary="b"', "multipart/report; boundary=b"])
def test_a_wrong_outer_type_does_not_hide_the_report(outer: str) -> None:
    assert parse_dsn(report(FIELDS, outer=outer)) is not None


def test_fields_that_are_encoded_are_read() -> None:
    encoded = base64.encodebytes(FIELDS.encode()).decode()
    found = parse_dsn(report(encoded, encoding="Content-Transfer-Encoding: base64\n"))
    assert found is not None
    assert [one.status for one in found.recipients] == ["5.1.1", "4.2.2"]


def test_an_internationalised_report_is_read() -> None:
    fields = (
        "Reporting-MTA: dns; mx\n\nFinal-Recipient: utf-8; jos\\x{E9}@shop.example\nAction: failed\nStatus: 5.1.1\n"
    )
    found = parse_dsn(report(fields, kind="message/global-delivery-status"))
    assert found is not None
    assert found.recipients[0].final_recipient == "josé@shop.example"


def mail(subject: str, body: str = "Hello", sender: str = "Bia <bia@shop.example>", more: str = "") -> bytes:
    return f"From: {sender}\r\nSubject: {subject}\r\n{more}\r\n{body}\r\n".encode()


QMAIL = b"""\
From: MAILER-DAEMON@mx.shop.example
Subject: failure notice

Hi. This is the qmail-send program at mx.shop.example.
I'm afraid I wasn't able to deliver your message to the following addresses.
This is a permanent error; I've given up. Sorry it didn't work out.

<bia@shop.example>:
Sorry, no mailbox here by that name. (#5.1.1)

--- Below this line is a copy of the message.
"""
EXIM = b"""\
X-Failed-Recipients: bia@shop.example, rui@shop.example
Auto-Submitted: auto-replied
From: Mail Delivery System <Mailer-Daemon@mx.shop.example>
Subject: Mail delivery failed: returning message to sender

This message was created automatically by mail delivery software.

  bia@shop.example
    SMTP error from remote mail server after RCPT TO:<bia@shop.example>:
    550 5.1.1 User unknown
"""
PORTUGUESE = """\
From: Postmaster <postmaster@provedor.example>
Subject: Sua mensagem foi devolvida: não foi entregue
Content-Type: text/plain; charset=utf-8

O servidor respondeu: 550 5.2.1 conta desativada
""".encode()


@pytest.mark.parametrize(
    ("content", "status", "bounce_class"),
    [(QMAIL, "5.1.1", "bad-mailbox"), (EXIM, "5.1.1", "bad-mailbox"), (PORTUGUESE, "5.2.1", "inactive")],
)
def test_a_bounce_that_is_only_words_is_a_bounce(content: bytes, status: str, bounce_class: str) -> None:
    for text in (content, content.replace(b"\n", b"\r\n")):
        found = parse_dsn(text)
        assert found is not None
        assert (found.recipients[0].action, found.recipients[0].status) == (Action.FAILED, status)
        bounce = verdict(found)
        assert bounce is not None
        assert bounce.bounce_class == bounce_class
        assert bounce.permanent


@pytest.mark.parametrize(
    ("content", "bounce_class", "permanent"),
    [
        (
            mail("Delivery failure", "Unable to deliver to\n<bia@shop.example>:\nThis account is over quota."),
            "quota",
            True,
        ),
        (mail("=?utf-8?q?Mensagem_devolvida?=", "Não foi entregue: usuário inexistente"), "bad-mailbox", True),
        (mail("Undeliverable", "It failed.", "MAILER-DAEMON"), "other", True),
        (mail("failure notice", "could not be delivered (#4.4.1), I give up", "MAILER-DAEMON"), "connection", False),
    ],
)
def test_a_bounce_without_codes_is_told_by_two_signs_and_classified_by_its_words(
    content: bytes, bounce_class: str, permanent: bool
) -> None:
    found = parse_dsn(content)
    assert found is not None
    bounce = verdict(found)
    assert bounce is not None
    assert (bounce.bounce_class, bounce.permanent) == (bounce_class, permanent)


def test_a_failure_that_says_nothing_is_not_taken_for_a_bad_mailbox() -> None:
    found = parse_dsn(report("Final-Recipient: rfc822; bia@shop.example\nAction: failed\nStatus: 5.0.0\n"))
    assert found is not None
    bounce = verdict(found)
    assert bounce is not None
    assert (bounce.bounce_class, bounce.words) == ("other", "550 5.0.0")


def test_exim_names_the_recipients() -> None:
    found = parse_dsn(EXIM)
    assert found is not None
    assert [one.final_recipient for one in found.recipients] == ["bia@shop.example", "rui@shop.example"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (mail("Automatic reply: Order 42"), Kind.AUTOMATIC_REPLY),
        (mail("Out of the office"), Kind.AUTOMATIC_REPLY),
        (mail("Automatic reply: Delivery failed", "> Your parcel could not be delivered"), Kind.AUTOMATIC_REPLY),
        (mail("Warning: message delayed 24 hours", "It has not yet been delivered", "MAILER-DAEMON"), Kind.UNKNOWN),
        (mail("Resposta automática: estou de férias"), Kind.AUTOMATIC_REPLY),
        (mail("Re: Order 42", more="Auto-Submitted: auto-replied (vacation)\r\n"), Kind.AUTOMATIC_REPLY),
        (mail("Re: Order 42", more="X-Autoreply: yes\r\n"), Kind.AUTOMATIC_REPLY),
        (mail("Please confirm your email to bia@shop.example"), Kind.CHALLENGE),
        (mail("Sua mensagem", "AntiSpam UOL: clique para confirmar"), Kind.CHALLENGE),
        (mail("Re: Order 42", "I have got 550 5.1.1 reasons to buy"), Kind.UNKNOWN),
        (mail("Delivery failed?", "It said 550 5.1.1 no such user to me", "Ana <ana@x.example>"), Kind.UNKNOWN),
        (
            mail("Warning: could not send message for past 4 hours", "550 5.1.1 x", "MAILER-DAEMON@mx.shop.example"),
            Kind.UNKNOWN,
        ),
        (b"", Kind.UNKNOWN),
    ],
)
def test_what_is_no_bounce_is_not_taken_for_one(content: bytes, kind: Kind) -> None:
    assert understood(content) is kind


@pytest.mark.parametrize(
    ("fields", "bounce_class", "permanent", "words"),
    [
        (
            "Action: failed\nStatus: 5.0.0\nDiagnostic-Code: smtp; 550-5.1.1 The email account does not exist",
            "bad-mailbox",
            True,
            "550 5.1.1 The email account does not exist",
        ),
        (
            "Action: failed\nStatus: 5.2.2\nDiagnostic-Code: X-Postfix; mailbox full",
            "quota",
            True,
            "550 5.2.2 mailbox full",
        ),
        ("Action: failed\nStatus: 5.1.1", "bad-mailbox", True, "550 5.1.1"),
        (
            "Action: failed\nStatus: 4.4.7\nDiagnostic-Code: smtp; 451 4.2.2 over quota",
            "quota",
            False,
            "451 4.2.2 over quota",
        ),
    ],
)
def test_a_failure_is_classified_like_a_refusal_in_a_delivery(
    fields: str, bounce_class: str, permanent: bool, words: str
) -> None:
    found = parse_dsn(
        report(f"Reporting-MTA: dns; mx.shop.example\n\nFinal-Recipient: rfc822; b@x.example\n{fields}\n")
    )
    assert found is not None
    bounce = verdict(found)
    assert bounce is not None
    assert (bounce.bounce_class, bounce.permanent, bounce.words) == (bounce_class, permanent, words)
    assert bounce.host == "mx.shop.example"


@pytest.mark.parametrize("action", ["delayed", "delivered", "relayed", "expanded"])
def test_a_report_of_anything_but_a_failure_is_no_bounce(action: str) -> None:
    found = parse_dsn(report(f"Final-Recipient: rfc822; bia@shop.example\nAction: {action}\nStatus: 4.0.0\n"))
    assert found is not None
    assert verdict(found) is None


@given(st.binary(max_size=2000))
def test_no_octets_make_the_parsers_raise(content: bytes) -> None:
    understood(content)


PIECES = [
    b"Content-Type: multipart/report; boundary=b\r\n",
    b"Content-Type: message/delivery-status\r\n",
    b"Content-Type: message/feedback-report\r\n",
    b"Content-Type: message/rfc822\r\n",
    b"Content-Type: text/plain; charset=nonsense\r\n",
    b"Content-Type: text/plain; charset*0*=utf-8''%ff\r\n",
    b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Transfer-Encoding: x-uuencode\r\n",
    b"Subject: =?utf-8?b?////?=\r\n",
    b"From: \xff\xfe <x@y>\r\n",
    b"\r\n",
    b"--b\r\n",
    b"--b--\r\n",
    b"Final-Recipient: rfc822; a@b\r\n",
    b"Action: failed\r\n",
    b"Status: 5.1.1\r\n",
    b"Feedback-Type: abuse\r\n",
    b" folded\r\n",
    b"=ff=00\r\n",
]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=30))
def test_no_order_of_pieces_of_reports_makes_the_parsers_raise(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    understood(content)


def nested(depth: int) -> bytes:
    return b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth))


@pytest.mark.parametrize(
    "content",
    [
        nested(20_000),
        b"Content-Type: message/rfc822\r\n\r\n" * 20_000,
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\n" * 200_000,
        b'Content-Type: text/plain; x="' + b';"' * 500_000,
        b"Content-Type: text/plain;" + b"\r\n a=b;" * 200_000,
        b"Subject: x\r\n\r\n" + b"your message " * 100_000,
        b"\r\n\r\nHi. This is the\n" + b"<a>:\n" * 200_000,
        b"Subject: " + b"=?utf-8?q?=41?= " * 100_000,
        b"\r\n" * 700_000,
        b"X: y\r\n" * 200_000,
        report("Final-Recipient: x\nAction: failed\n\n" * 20_000),
    ],
    ids=range(11),
)
def test_work_is_bounded_whatever_comes(content: bytes) -> None:
    began = time.process_time()
    understood(content)
    assert time.process_time() - began < 4.0  # a second or less when nothing else runs


@pytest.mark.parametrize(
    "pattern",
    ["\n", ">\n", " \n", "--\n", "> -\n"],
    ids=["empty lines", "quoted empty lines", "blank lines", "rules", "quoted dashes"],
)
def test_a_text_of_very_many_lines_costs_no_more_than_as_many_characters(pattern: str) -> None:
    """It may come from anybody, and while a pattern is looked for nothing else in the relay is done."""

    def seconds(characters: int) -> float:
        body = "x\n" + pattern * (characters // len(pattern))
        times = []
        for _ in range(3):
            began = time.process_time()
            recognise([], body)
            times.append(time.process_time() - began)
        return min(times)

    assert seconds(20_000) < 8 * seconds(5_000)  # four times as much; sixteen times if it were quadratic
