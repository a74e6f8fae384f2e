"""Whose relay it is: the plan's limits, accounts, domains and their keys, and whether mail is taken at all."""

from __future__ import annotations

import enum

import msgspec

from malote_relay.config.fields import NotNegative, Positive, Struct, Text


class AccountClass(enum.StrEnum):
    """What an account sends; Bulk mail must carry one-click List-Unsubscribe (RFC 8058)."""

    TRANSACTIONAL = "Transactional"
    BULK = "Bulk"


class OverLimitReply(enum.StrEnum):
    """How a recipient beyond limit and tolerance is refused: 550 5.7.1 or 451 4.7.1."""

    PERMANENT = "Permanent"
    TEMPORARY = "Temporary"


class Account(Struct, frozen=True, kw_only=True):
    """One SMTP account. `verifier` is made by `malote_relay.passwords.verifier`, never the password."""

    name: Text
    username: Text
    verifier: str
    account_class: AccountClass = msgspec.field(name="class", default=AccountClass.TRANSACTIONAL)
    suspended: bool = False


class DkimKey(Struct, frozen=True, kw_only=True):
    """A private key in `keys/`, used for signing under `selector` (RFC 6376 section 3.1)."""

    selector: str
    file: str


class Domain(Struct, frozen=True, kw_only=True):
    """A sending domain of the tenant. While `sending` is false, mail from it is refused with `refusal`.

    Mail whose reverse-path is at this domain leaves with one at the domain `return_path` instead, by which bounces
    come back to the relay (VERP); "" leaves it as it is. SPF then looks at `return_path`: a subdomain of this one
    keeps DMARC's SPF aligned.
    """

    name: str
    sending: bool = False
    refusal: str = ""
    keys: tuple[DkimKey, ...] = ()
    return_path: str = ""


class Plan(Struct, frozen=True, kw_only=True):
    """The plan's limits as the relay enforces them; the unit of `messages_per_hour` is an accepted recipient."""

    name: str
    display_name: str = ""
    messages_per_hour: Positive
    tolerance_percent: NotNegative = 20
    over_limit_reply: OverLimitReply = OverLimitReply.PERMANENT
    max_message_bytes: Positive = 26_214_400
    max_recipients: Positive = 100
    report_retention_days: Positive = 90


class Submission(Struct, frozen=True, kw_only=True):
    """Whether mail is taken at all; `reason` is what a client reads while it is not.

    `postmaster` is where mail for <postmaster> without a domain goes (RFC 5321 section 4.5.1); "" means to
    that of the domain it comes from.
    """

    open: bool = False
    reason: str = "the tenant is not ready to send"
    postmaster: str = ""
