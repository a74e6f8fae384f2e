"""Who may send what: decisions without a socket."""

from __future__ import annotations

import msgspec
import pytest

from malote_relay.config import (
    Account,
    AccountClass,
    Delivery,
    Domain,
    OverLimitReply,
    Plan,
    RelayConfig,
    Submission,
)
from malote_relay.metrics import Refused
from malote_relay.quota import OverLimit
from malote_relay.submission.address import Mailbox
from malote_relay.submission.headers import split
from malote_relay.submission.policy import Rules, over_limit
from malote_relay.submission.replies import Reply

APP = Account(name="app", username="app@acme", verifier="")
NEWS = Account(name="news", username="news@acme", verifier="", account_class=AccountClass.BULK)
CONFIG = RelayConfig(
    tenant="acme",
    hostname="acme.smtp.example",
    plan=Plan(name="smtp-1", display_name="SMTP I", messages_per_hour=3000),
    delivery=Delivery(helo_name="out.example"),
    submission=Submission(open=True),
    accounts=(APP, NEWS),
    domains=(
        Domain(name="acme.example", sending=True),
        Domain(name="two.example", sending=True),
        Domain(name="new.example", refusal="SPF is missing"),
    ),
)
RULES = Rules(CONFIG)
ANA = Mailbox("ana", "acme.example")


def decide(header: str, account: Account = APP) -> Mailbox | Reply:
    return RULES.header(split(header.encode() + b"\r\n")[0], account)


def test_while_closed_nobody_submits_and_reads_the_reason() -> None:
    closed = Rules(msgspec.structs.replace(CONFIG, submission=Submission(reason="payment is pending")))
    refusal = closed.may_submit(APP)
    assert refusal is not None
    assert (refusal.code, refusal.enhanced, refusal.refused) == (550, "5.7.1", Refused.SUBMISSION_CLOSED)
    assert "payment is pending" in refusal.text
    assert RULES.may_submit(APP) is None


def test_a_suspended_account_does_not_submit() -> None:
    refusal = RULES.may_submit(msgspec.structs.replace(APP, suspended=True))
    assert refusal is not None
    assert refusal.refused is Refused.ACCOUNT_SUSPENDED


@pytest.mark.parametrize("sender", [None, ANA, Mailbox("x", "two.example")])
def test_reverse_paths_of_verified_domains_and_the_null_one_are_taken(sender: Mailbox | None) -> None:
    assert RULES.reverse_path(sender) is None


def test_the_postmaster_is_who_is_configured_else_that_of_the_senders_domain() -> None:
    assert RULES.postmaster(ANA) == Mailbox("postmaster", "acme.example")
    assert RULES.postmaster(None) is None
    submission = Submission(open=True, postmaster="help@platform.example")
    rules = Rules(msgspec.structs.replace(CONFIG, submission=submission))
    assert rules.postmaster(None) == rules.postmaster(ANA) == Mailbox("help", "platform.example")


@pytest.mark.parametrize(
    "domain", ["other.example", "sub.acme.example", "example", "new.example", "acme.example.evil.example"]
)
def test_any_other_reverse_path_is_refused_naming_the_domain(domain: str) -> None:
    refusal = RULES.reverse_path(Mailbox("x", domain))
    assert refusal is not None
    assert (refusal.code, refusal.enhanced) == (550, "5.7.1")
    assert domain in refusal.text


def test_the_author_may_differ_from_the_reverse_path_within_the_tenants_domains() -> None:
    assert decide("From: x@two.example\r\nSender: ana@acme.example\r\n") == Mailbox("x", "two.example")


@pytest.mark.parametrize(
    "header",
    [
        "Subject: x\r\n",
        "From: ana@acme.example\r\nFROM: ana@acme.example\r\n",
        "From: ana@acme.example\r\nSender: a@other.example\r\n",
        "From: ana@acme.example\r\nSender: ana@acme.example\r\nSender: ana@acme.example\r\n",
        "From: ana@acme.example\r\nSender: (\r\n",
        "From: ana@acme.example\r\nResent-From: ana@acme.example, a@other.example\r\n",
        "From: ana@acme.example\r\nResent-Sender: a@other.example\r\n",
        "From: a@new.example\r\n",
        "From: a@sub.acme.example\r\n",
    ],
)
def test_any_doubt_about_the_originator_refuses(header: str) -> None:
    answer = decide(header)
    assert isinstance(answer, Reply)
    assert answer.code == 550
    assert answer.refused is Refused.HEADER_FROM


ONE_CLICK = "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
LINK = "List-Unsubscribe: <https://acme.example/u>\r\n"


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        (LINK + ONE_CLICK, True),
        ("List-Unsubscribe: <mailto:u@acme.example>,\r\n <https://acme.example/u>\r\n" + ONE_CLICK, True),
        ("", False),
        (LINK, False),
        (ONE_CLICK, False),
        ("List-Unsubscribe: <http://acme.example/u>\r\n" + ONE_CLICK, False),
        ("List-Unsubscribe: https://acme.example/u\r\n" + ONE_CLICK, False),
        (LINK + LINK + ONE_CLICK, False),
        (LINK + "List-Unsubscribe-Post: yes\r\n", False),
    ],
)
def test_bulk_accounts_offer_one_click_unsubscription(fields: str, taken: bool) -> None:
    header = "From: ana@acme.example\r\n" + fields
    assert (decide(header, NEWS) == ANA) is taken
    assert decide(header, APP) == ANA


def test_a_loop_is_cut_after_fifty_servers() -> None:
    assert decide("Received: x\r\n" * 50 + "From: ana@acme.example\r\n") == ANA
    answer = decide("Received: x\r\n" * 51 + "From: ana@acme.example\r\n")
    assert isinstance(answer, Reply)
    assert (answer.code, answer.enhanced) == (554, "5.4.6")


def test_over_the_limit_the_client_reads_plan_limit_and_when_it_returns() -> None:
    reply = over_limit(CONFIG.plan, OverLimit(returns_at=1_795_453_200.0, limit=3000, tolerance=600))
    assert (reply.code, reply.enhanced) == (550, "5.7.1")
    assert reply.text == (
        "hourly limit reached: plan SMTP I takes 3000 accepted recipients per clock hour (UTC) and 600 more held "
        "for the next hour; capacity returns at 2026-11-23 17:00 UTC"
    )
    temporary = msgspec.structs.replace(CONFIG.plan, over_limit_reply=OverLimitReply.TEMPORARY)
    reply = over_limit(temporary, OverLimit(returns_at=0.0, limit=3000, tolerance=600))
    assert (reply.code, reply.enhanced) == (451, "4.7.1")
