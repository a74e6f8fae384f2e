"""Events about accounts that a relay has paused, or lets send again."""

from __future__ import annotations

from malote_operator.api.tenant import Tenant, TenantStatus
from malote_operator.kube.kinds import TENANT

from .context import Context, regarding


async def tell_of_pauses(context: Context, before: Tenant, after: TenantStatus) -> None:
    """An Event for each account whose pause began or ended between the status that was there and this one."""
    was = {one.name: one.paused for one in before.status.accounts}
    for one in after.accounts:
        earlier, now = was.get(one.name), one.paused
        if now is not None and (earlier is None or earlier.since != now.since):
            reason, note = "AccountPaused", f"account {one.name}: {now.reason}"
        elif now is None and earlier is not None:
            reason, note = "AccountResumed", f"account {one.name} may send again; it was paused: {earlier.reason}"
        else:
            continue
        await context.events.record(
            regarding(TENANT, before.metadata), reason=reason, note=note, action="Reconcile", warning=now is not None
        )
