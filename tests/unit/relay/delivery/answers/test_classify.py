from __future__ import annotations

from pathlib import Path

import pytest

from malote_relay.delivery.answers.classify import CLASSES, RULES, Verdict, classify, permanent, too_many_recipients
from malote_relay.delivery.reply import Failure, parse

REPLIES = [
    ("550 5.1.1 The email account that you tried to reach does not exist. gsmtp", True, "bad-mailbox"),
    (
        "550 5.1.1 <x@d.example>: Recipient address rejected: User unknown in virtual mailbox table",
        True,
        "bad-mailbox",
    ),
    (
        "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient x@d.example not found by SMTP address lookup",
        True,
        "bad-mailbox",
    ),
    ("550 Requested action not taken: mailbox unavailable", True, "bad-mailbox"),
    ("553 sorry, no mailbox here by that name", True, "bad-mailbox"),
    ("550 5.4.1 Recipient address rejected: Access denied", True, "bad-mailbox"),
    ("550 5.1.0 <x@d.example>: Recipient address rejected", True, "bad-mailbox"),
    ("550 5.1.0 <app@acme.example>: Sender address rejected", True, "bad-sender"),
    ("554 5.7.1 <app@acme.example>: Sender address rejected: Access denied", True, "policy"),
    ("556 5.1.10 d.example accepts no mail (null MX)", True, "bad-domain"),
    ("550 5.1.2 Bad destination system", True, "bad-domain"),
    ("550 5.2.1 The email account that you tried to reach is disabled.", True, "inactive"),
    ("554 delivery error: dd This user doesn't have a yahoo.com account", True, "bad-mailbox"),
    ("552 5.2.2 The email account that you tried to reach is over quota.", True, "quota"),
    ("452 4.2.2 Mailbox full", False, "quota"),
    ("552 5.3.4 Message size exceeds fixed limit", True, "too-big"),
    ("550 5.7.26 This mail has been blocked because the sender is unauthenticated: DMARC", True, "auth"),
    ("550 5.7.23 The message was rejected because of Sender Policy Framework violation", True, "auth"),
    ("554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", True, "reputation"),
    ("550 5.7.1 Message rejected as spam by Content Filtering.", True, "spam-content"),
    ("550 5.7.1 Refused by local policy", True, "policy"),
    ("554 5.7.1 <x@d.example>: Relay access denied", True, "routing"),
    ("451 4.7.1 Greylisted, come back later", False, "greylist"),
    ("450 4.2.0 <x@d.example>: Recipient address rejected: Greylisting in action", False, "greylist"),
    ("421 4.7.28 Our system has detected an unusual rate of unsolicited mail", False, "rate-limit"),
    ("421 4.7.0 [TSS04] Messages temporarily deferred due to unexpected volume", False, "rate-limit"),
    ("452 4.5.3 Too many recipients", False, "rate-limit"),
    ("530 5.7.0 Must issue a STARTTLS command first", True, "tls"),
    ("554 5.4.6 Too many hops", True, "routing"),
    ("554 transaction failed", True, "policy"),
    ("451 4.3.0 Temporary server error", False, "system"),
    ("500 what?", True, "protocol"),
    ("599 what?", True, "other"),
]


@pytest.mark.parametrize(("reply", "permanent", "bounce_class"), REPLIES)
def test_a_refusal_is_read(reply: str, permanent: bool, bounce_class: str) -> None:
    assert classify(parse(reply)) == Verdict(permanent, bounce_class)


@pytest.mark.parametrize(
    ("reply", "host", "bounce_class"),
    [
        ("550 5.1.1 <a@example.net> user unknown [192.0.2.104]", "smtp-in.orange.fr", "bad-mailbox"),
        ("550 5.7.1 [192.0.2.104] refused OFR007_506", "smtp-in.orange.fr", "spam-content"),
        ("550 5.2.1 [192.0.2.103] LPN007_426 Service refuse", "smtpz4.laposte.net", "inactive"),
        ("550 5.1.1 <a@example.net> user unknown (416 of 630)", "smtpz4.laposte.net", "bad-mailbox"),
        ("554 5.1.1 630 user unknown", "smtpz4.laposte.net", "bad-mailbox"),
    ],
)
def test_numbers_of_a_provider_are_not_looked_for_in_addresses(reply: str, host: str, bounce_class: str) -> None:
    assert classify(parse(reply), host).bounce_class == bounce_class


@pytest.mark.parametrize(
    "reply",
    [
        "550 5.7.1 Your IP address is not listed in our allow list",
        "550 IP address [192.0.2.1] not found in DNS",
        "550 IP address blocked",
        "554 IP address 192.0.2.1 unknown here",
        "550 5.7.1 Client address is not registered",
        "550 The sender's mailbox could not be found",
        "550 Your account has been suspended for abuse",
        "550 Sender's account does not exist",
        "554 5.7.1 You are not a registered user of this server",
        "550 You do not have a valid account here",
        "550 Bad address in From header",
        "550 Invalid address in Reply-To",
        "550 Your email address is not registered with this list",
        "550 Your domain is not known to this mailbox's owner",
        "550-Callback of the sender failed: 550 550 5.1.1 unknown",
        "550 Recipient refuses mail from hosts not found in DNS",
    ],
)
def test_what_is_said_of_us_is_no_reason_to_suppress_the_recipient(reply: str) -> None:
    assert classify(parse(reply)).bounce_class not in {"bad-mailbox", "inactive", "bad-domain"}


@pytest.mark.parametrize(
    ("number", "bounce_class"),
    [("IB103", "reputation"), ("IB106", "reputation"), ("IB504", "rate-limit"), ("IB212", "spam-content")],
)
def test_godaddys_numbers_mean_what_its_help_says(number: str, bounce_class: str) -> None:
    reply = parse(f"554 p3plibsmtp01-10.prod.phx3.secureserver.net ESMTP {number}. <http://x.example/>")
    assert classify(reply, "smtp.secureserver.net").bounce_class == bounce_class


def test_552_for_too_many_recipients_means_452() -> None:
    """RFC 5321 section 4.5.3.1.10."""
    assert classify(parse("552 too many recipients")) == Verdict(False, "rate-limit")


def test_552_for_the_full_mailboxes_of_recipients_means_552() -> None:
    assert classify(parse("552 mailbox of one or more recipients is full")) == Verdict(True, "quota")


def test_a_failure_of_ours_says_its_own_class_or_is_read_like_a_reply() -> None:
    assert classify(Failure("451 4.4.2 gone", "connection")) == Verdict(False, "connection")
    greeting = Failure("554 5.7.1 blocked using zen.spamhaus.org (mx[192.0.2.1], greeting)", "", permanent=True)
    assert classify(greeting) == Verdict(True, "reputation")


def test_what_the_relay_says_of_where_it_was_refused_is_no_word_of_the_remotes() -> None:
    said = "554 5.7.1 Your address is listed"
    greeting, hello = (
        Failure(f"{said} (mx.shop.example[192.0.2.1], {stage})", "", said=said) for stage in ("greeting", "EHLO")
    )
    assert classify(hello) == classify(greeting)
    assert classify(hello).bounce_class == "policy"


def test_the_host_decides_where_providers_say_the_same_for_different_reasons() -> None:
    words = "550 Mailbox unavailable or access denied"
    assert classify(parse(words)).bounce_class == "bad-mailbox"
    assert classify(parse(words), "mx3.qq.com[192.0.2.1]").bounce_class == "rate-limit"
    failure = Failure("421 4.7.0 HL:REP", "")
    assert classify(failure, "163mx01.mxmail.netease.com").bounce_class == "reputation"


def test_whether_a_refusal_is_final_needs_no_class() -> None:
    assert permanent(parse("550 5.1.1 no"))
    assert not permanent(parse("450 4.2.0 later"))
    assert not permanent(parse("552 too many recipients"))
    assert permanent(Failure("550 5.4.4 nowhere", "routing", permanent=True))
    assert not permanent(Failure("451 4.4.2 gone", "connection"))


def test_the_manual_explains_the_classes_in_the_same_words() -> None:
    manual = (Path(__file__).parents[5] / "docs" / "operations.md").read_text("utf-8")
    assert [name for name, meaning in CLASSES.items() if f"| `{name}` | {meaning} |" not in manual] == []


def test_every_class_is_explained_and_every_class_and_provider_has_a_rule() -> None:
    assert all(CLASSES.values())
    assert {rule.bounce_class for rule in RULES.rules} == set(CLASSES) - {"other"}


@pytest.mark.parametrize(
    ("words", "crowded"),
    [
        ("452 4.5.3 Error: too many recipients", True),
        ("552 5.5.3 too many", True),
        ("452 Too many recipients", True),
        ("552 recipients limit", True),
        ("452 4.2.2 mailbox full", False),
        ("452 4.2.2 the recipients' mailbox is full", False),
        ("452 out of room", False),
        ("552 Maximum number of recipients exceeded", True),
        ("552 too many RCPTs", True),
        ("552 mailbox of one or more recipients is full", False),
        ("452 mailbox of one or more recipients is full", False),
        ("552 message exceeds the limit for these recipients", False),
        ("550 5.5.3 too many recipients", False),
    ],
)
def test_too_many_recipients_in_a_transaction_is_told_from_other_refusals(words: str, crowded: bool) -> None:
    assert too_many_recipients(parse(words)) is crowded
    if crowded:
        assert classify(parse(words)) == Verdict(False, "rate-limit")
