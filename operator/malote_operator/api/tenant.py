"""Tenant: a customer of the platform with a relay of its own. Cluster-scoped, written by the platform team."""

from __future__ import annotations

import datetime as dt
import enum

import msgspec

from .egress import Egress, EgressStatus
from .meta import Condition, LocalReference, Metadata, Struct


class SuspendReason(enum.StrEnum):
    """Why a tenant is suspended: Abuse freezes its queue, Payment and Request let it drain."""

    ABUSE = "Abuse"
    PAYMENT = "Payment"
    REQUEST = "Request"


class AccountClass(enum.StrEnum):
    """What an account sends; Bulk mail needs one-click List-Unsubscribe (RFC 8058)."""

    TRANSACTIONAL = "Transactional"
    BULK = "Bulk"


class SenderMode(enum.StrEnum):
    """How the existence of a sender address is established."""

    CALLOUT = "Callout"
    LIST = "List"
    OFF = "Off"


class UnknownSender(enum.StrEnum):
    """What happens to a sender whose existence cannot be established either way."""

    ACCEPT = "Accept"
    DEFER = "Defer"


class Language(enum.StrEnum):
    """A language of mails and panel (BCP 47)."""

    PT_BR = "pt-BR"
    EN = "en"


class BillingCycle(enum.StrEnum):
    """How often an invoice is made."""

    MONTHLY = "Monthly"
    ANNUAL = "Annual"


class Suspend(Struct, frozen=True, kw_only=True):
    """Present: the tenant is suspended."""

    reason: SuspendReason


class Approval(Struct, frozen=True, kw_only=True):
    """The platform team's approval and the terms the tenant accepted."""

    approved: bool = False
    terms_version: str = ""
    accepted_at: dt.datetime | None = None


class Contact(Struct, frozen=True, kw_only=True):
    """Whom to write to, and in which language."""

    name: str = ""
    email: str
    language: Language = Language.EN


class Billing(Struct, frozen=True, kw_only=True):
    """How the tenant pays. `paid_until` is the last day that is paid for: the platform's billing writes it."""

    cycle: BillingCycle = BillingCycle.MONTHLY
    method: str = ""
    due_day: int = 10
    emails: tuple[str, ...] = ()
    paid_until: dt.date | None = None


class Account(Struct, frozen=True, kw_only=True):
    """An SMTP account wanted; its user name becomes NAME@TENANT."""

    name: str
    account_class: AccountClass = msgspec.field(name="class", default=AccountClass.TRANSACTIONAL)
    suspended: bool = False


class SenderVerification(Struct, frozen=True, kw_only=True):
    """The sender policy; `senders` are the declared addresses of mode List."""

    mode: SenderMode = SenderMode.CALLOUT
    unknown: UnknownSender = UnknownSender.ACCEPT
    senders: tuple[str, ...] = ()


class TenantSpec(Struct, frozen=True, kw_only=True):
    """`spec` of a Tenant."""

    plan_ref: LocalReference
    display_name: str = ""
    namespaces: tuple[str, ...] = ()
    suspend: Suspend | None = None
    cancel_after: dt.date | None = None
    approval: Approval = Approval()
    contact: Contact
    billing: Billing = Billing()
    accounts: tuple[Account, ...] = ()
    sender_verification: SenderVerification = SenderVerification()
    egress: Egress = Egress()


class Endpoint(Struct, frozen=True, kw_only=True):
    """Where the tenant sends: host and Service ports. URLs are empty while nothing answers there."""

    host: str
    submission_port: int = 587
    submissions_port: int = 465
    api_url: str = msgspec.field(name="apiURL", default="")
    panel_url: str = msgspec.field(name="panelURL", default="")


class AccountPaused(Struct, frozen=True, kw_only=True):
    """That the relay has paused an account by itself, and why; without `until` somebody has to resume it."""

    since: dt.datetime
    until: dt.datetime | None = None
    reason: str = ""


class AccountStatus(Struct, frozen=True, kw_only=True):
    """An account as provisioned and the Secret that carries its credentials. `paused`: while it is."""

    name: str
    username: str
    secret_name: str
    paused: AccountPaused | None = None


class TenantStatus(Struct, frozen=True, kw_only=True):
    """`status` of a Tenant; every part can be rebuilt from the world."""

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    endpoint: Endpoint | None = None
    accounts: tuple[AccountStatus, ...] = ()
    egress: EgressStatus | None = None


class Tenant(Struct, frozen=True, kw_only=True):
    """A Tenant as read from the API server."""

    metadata: Metadata
    spec: TenantSpec
    status: TenantStatus = TenantStatus()
