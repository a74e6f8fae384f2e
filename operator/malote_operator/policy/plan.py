"""Plan: nothing can be wrong with one that the API server has taken; its status says who uses it."""

from __future__ import annotations

import datetime as dt

from malote_operator.api.plan import Plan, PlanStatus

from .conditions import merge, no, yes
from .model import PlanDecision, PlanWorld


def decide(plan: Plan, world: PlanWorld) -> PlanDecision:
    """What holds for this plan now."""
    used = f"{world.tenants} tenant{'s' if world.tenants != 1 else ''}"
    conditions = (
        yes("Ready", "InUse" if world.tenants else "Available", f"{used} on {plan.spec.messages_per_hour} an hour"),
        no("Reconciling", "Settled"),
        no("Stalled", "Settled"),
    )
    return PlanDecision(conditions=conditions, tenants=world.tenants)


def status(plan: Plan, decision: PlanDecision, now: dt.datetime) -> PlanStatus:
    """The whole status to write."""
    generation = plan.metadata.generation
    return PlanStatus(
        observed_generation=generation,
        tenants=decision.tenants,
        conditions=merge(plan.status.conditions, decision.conditions, generation, now),
    )
