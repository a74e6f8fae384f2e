"""Reports to senders, whatever a host has said and whatever comes back of the message: whole, and readable."""

from __future__ import annotations

import email
import email.policy
import itertools

from tests.fuzz.target import Target

from malote_relay.config import Language
from malote_relay.delivery.answers.classify import classify
from malote_relay.delivery.notices.dsn import Reporter, Returned, notice
from malote_relay.delivery.notices.due import Due, Kind, Reported
from malote_relay.delivery.reply import BadReply, Reply, ReplyParser
from malote_relay.store.model import Outcome, Queued, Result

_NOW = 1_800_000_000.0
_LONGEST = 998


def check(data: bytes) -> None:
    said, _, header = data.partition(b"\0")
    parser = ReplyParser()
    try:
        replies = parser.feed(said)
    except BadReply as error:
        replies = list(error.before)
    words = said.decode("utf-8", "replace")[:1000]
    for reply in replies[:3]:
        _tell(str(reply), classify(reply, "mx.dest.example").bounce_class, header, None)
    _tell(str(Reply(550, (words,))), "other", header, Reported("", words, header))


def _tell(reply: str, bounce_class: str, header: bytes, reported: Reported | None) -> None:
    recipient = Queued(
        1, "m1", "bob@dest.example", "app@acme.example", "app", 100, False, False, _NOW, _NOW, 0, _NOW
    )  # fmt: skip
    outcome = Outcome(recipient, Result.FAILED, _NOW, reply, bounce_class, "mx.dest.example[192.0.2.1]")
    kinds = (Kind.FAILED, Kind.DELAYED) if reported is None else (Kind.BOUNCED,)
    for kind, language, whole in itertools.product(kinds, Language, (False, True)):
        made = notice(
            Due(kind, [outcome], reported),
            Returned(header, whole),
            Reporter("relay.example", language),
            retry_until=_NOW + 1000,
            now=_NOW,
            id="n1",
        )
        assert isinstance(made.content, bytes)
        head = made.content.partition(b"\r\n\r\n")[0]
        assert head.isascii()
        report = email.message_from_bytes(made.content, policy=email.policy.SMTP)
        assert report.get_content_type() == "multipart/report"
        _, status, *_ = report.iter_parts()
        fields = bytes(status).split(b"\r\n")
        assert all(len(line) <= _LONGEST and line.isascii() for line in fields)


TARGET = Target(
    "notice",
    check,
    words=(
        b"550 5.1.1 ",
        b"450-4.7.1 ",
        "5.\u0661.\u0661 ".encode(),
        b"x" * 700,
        "é".encode() * 300,
        "\u2028\u202e".encode(),
        b"\x1b[2J",
        b"\0",
        b"Subject: ",
        b"--=_",
        b"; ",
    ),
    seeds=(b"550 5.1.1 no such user\r\n\0From: a@acme.example\r\nSubject: x\r\n",),
)
