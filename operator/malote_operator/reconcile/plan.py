"""Plans: their status says who uses them. Their tenants are woken by the cache when a plan changes."""

from __future__ import annotations

from malote_operator.kube.kinds import PLAN
from malote_operator.policy import plan as policy
from malote_operator.policy.model import PlanWorld

from .context import Context, tell, write_status
from .queue import Key


class Plans:
    """Reconciles Plans."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self, key: Key) -> float | None:
        """Look at one Plan."""
        context = self._context
        plan = context.cache.plans.get(key.name)
        if plan is None or plan.metadata.deletion_timestamp is not None:
            return None
        decision = policy.decide(plan, PlanWorld(tenants=len(context.cache.tenants_of(key.name))))
        status = policy.status(plan, decision, context.now())
        if await write_status(context, PLAN, plan.metadata, plan.status, status):
            await tell(context, PLAN, plan.metadata, plan.status.conditions, status.conditions)
        return None
