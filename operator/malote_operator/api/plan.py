"""Plan: what a tenant may send and what it costs. Cluster-scoped, written by the platform team."""

from __future__ import annotations

import enum
from typing import Any

from .egress import Egress
from .meta import Condition, Metadata, Struct


class OverLimitReply(enum.StrEnum):
    """Whether mail beyond limit and tolerance is refused for good or for now."""

    PERMANENT = "Permanent"
    TEMPORARY = "Temporary"


class Price(Struct, frozen=True, kw_only=True):
    """What the plan costs; amounts are decimal strings of the currency's main unit."""

    currency: str
    monthly: str = ""
    annual: str = ""


class SupportChannel(Struct, frozen=True, kw_only=True):
    """A way to reach support: its kind, hours and contact, shown to the tenant as written."""

    type: str
    hours: str = ""
    contact: str = ""


class Support(Struct, frozen=True, kw_only=True):
    """The plan's support channels."""

    channels: tuple[SupportChannel, ...] = ()


class Storage(Struct, frozen=True, kw_only=True):
    """The spool's volume. An empty size is derived from limit and retention."""

    size: str = ""
    storage_class_name: str = ""


class RelayResources(Struct, frozen=True, kw_only=True):
    """Resources of the plan's relays; `resources` is a container's ResourceRequirements, passed through."""

    resources: dict[str, Any] = {}
    storage: Storage = Storage()


class PlanSpec(Struct, frozen=True, kw_only=True):
    """`spec` of a Plan."""

    display_name: str = ""
    messages_per_hour: int
    tolerance_percent: int = 20
    over_limit_reply: OverLimitReply = OverLimitReply.PERMANENT
    max_domains: int = 1
    max_accounts: int = 1
    max_message_bytes: int = 26_214_400
    max_recipients: int = 100
    report_retention_days: int = 90
    price: Price | None = None
    support: Support = Support()
    egress: Egress = Egress()
    relay: RelayResources = RelayResources()


class PlanStatus(Struct, frozen=True, kw_only=True):
    """`status` of a Plan."""

    observed_generation: int = 0
    tenants: int = 0
    conditions: tuple[Condition, ...] = ()


class Plan(Struct, frozen=True, kw_only=True):
    """A Plan as read from the API server."""

    metadata: Metadata
    spec: PlanSpec
    status: PlanStatus = PlanStatus()
