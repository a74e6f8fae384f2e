"""A tenant for which everything is in order, and what is decided of it when something is not."""

from __future__ import annotations

import datetime as dt
from typing import Any

from malote_operator.api.tenant import Tenant
from malote_operator.policy import domain as domain_policy
from malote_operator.policy import tenant as policy
from malote_operator.policy.model import (
    DomainDecision,
    DomainWorld,
    PodObservation,
    RelayObservation,
    TenantDecision,
    TenantMemory,
    TenantWorld,
    Welcome,
)

from . import worlds
from .worlds import KEY, NOW, SETTINGS, seen

HASH = "a" * 64


def verdict(**observed: Any) -> DomainDecision:
    world = DomainWorld(
        tenant=worlds.tenant(),
        plan=worlds.plan(),
        ranking=worlds.ranked(worlds.domain()),
        claim=worlds.claim(),
        keys=(KEY,),
        observation=seen(**observed),
    )
    return domain_policy.decide(worlds.domain(), world, SETTINGS, NOW)


def pod(config_hash: str = HASH, *, ready: bool = True, is_open: bool = True, error: str = "") -> PodObservation:
    return PodObservation("acme-relay-0", ready, config_hash, is_open, error)


def relay(*pods: PodObservation, message: str = "") -> RelayObservation:
    return RelayObservation(True, 1, sum(one.ready for one in pods), pods, message)


IN_ORDER = TenantWorld(
    plan=worlds.plan(),
    domains=(verdict(),),
    relay=relay(pod()),
    wanted_hash=HASH,
    credentials=frozenset({("acme", "app")}),
    memory=TenantMemory(welcome_sent_at=NOW),
    welcome=Welcome(configured=True),
)


def decide(
    world: TenantWorld = IN_ORDER, tenant: Tenant | None = None, now: dt.datetime = NOW, **spec: Any
) -> TenantDecision:
    return policy.decide(tenant or worlds.tenant(**spec), world, SETTINGS, now)
