"""Events about a return path that mail leaves with from now on, or no longer."""

from __future__ import annotations

from collections.abc import Iterable

from malote_operator.api.meta import Condition, ConditionStatus
from malote_operator.api.sendingdomain import SendingDomain, SendingDomainStatus
from malote_operator.kube.kinds import SENDING_DOMAIN
from malote_operator.policy.returnpath import CONDITION, GRACE_EXPIRED

from .context import Context, regarding


async def tell_of_return_path(context: Context, before: SendingDomain, after: SendingDomainStatus) -> None:
    """An Event when its records were found, when they were lost, and when the grace period after that has ended.

    One that was never found is nothing to tell of, nor one that nobody can judge now: the condition says as much.
    """
    was, now = _condition(before.status.conditions), _condition(after.conditions)
    if now is None or now.status is ConditionStatus.UNKNOWN:
        return
    found = now.status is ConditionStatus.TRUE
    was_found = was is not None and was.status is ConditionStatus.TRUE
    expired = now.reason == GRACE_EXPIRED and (was is None or was.reason != GRACE_EXPIRED)
    if found is was_found and not expired:
        return
    await context.events.record(
        regarding(SENDING_DOMAIN, before.metadata),
        reason="ReturnPathVerified" if found else "ReturnPathLost",
        note=now.message or now.reason,
        action="Reconcile",
        warning=not found,
    )


def _condition(conditions: Iterable[Condition]) -> Condition | None:
    return next((one for one in conditions if one.type == CONDITION), None)
