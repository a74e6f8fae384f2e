"""Looks at the records of relays' EHLO names, beside the workers: a tenant is visited only when an answer changed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from malote_operator.api.tenant import Tenant
from malote_operator.dns.model import Observation, Question
from malote_operator.kube.kinds import TENANT
from malote_operator.policy.domain import AGE_SHARE, fraction, jitter

from .cache import Wake
from .context import Context
from .queue import Key

LEAST_PAUSE = 10
"""A new tenant's records are looked for at intervals of so many `pendingRecheck`s. An older one's by its age as a
domain's, up to `verifiedRecheck`: nothing waits for them."""


@dataclass(slots=True)
class _Watch:
    name: str
    selector: str
    smart_host: bool
    timer: asyncio.TimerHandle | None = None


class EgressChecks:
    """What the DNS says of EHLO names. Looks share slots and metrics with those at domains."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._watches: dict[str, _Watch] = {}

    def clear(self) -> None:
        """Look no more (leadership was lost, or begins)."""
        for uid in list(self._watches):
            self.forget(uid)

    def forget(self, tenant_uid: str) -> None:
        """The tenant is gone, or has another name."""
        watch = self._watches.pop(tenant_uid, None)
        if watch is not None and watch.timer is not None:
            watch.timer.cancel()
        self._context.checks.forget(tenant_uid)

    def of(self, tenant: Tenant, name: str, selector: str, *, smart_host: bool) -> Observation | None:
        """What was seen last; None: nothing yet. From now on it is looked for; behind a smart host only the key."""
        uid = tenant.metadata.uid
        watch = self._watches.get(uid)
        if watch is None or (watch.name, watch.selector, watch.smart_host) != (name, selector, smart_host):
            first = watch is None
            self.forget(uid)
            watch = self._watches[uid] = _Watch(name, selector, smart_host)
            if first:
                # At the operator's start all tenants come at once. Where something is shown that can wait longer.
                shown = tenant.status.egress is not None
                within = self._interval(tenant) if shown else LEAST_PAUSE * self._context.settings.dns.pending_recheck
                watch.timer = asyncio.get_running_loop().call_later(fraction(uid) * within, self._look, tenant, watch)
            else:
                self._look(tenant, watch)
        return self._context.checks.observation(uid, selector)

    def _look(self, tenant: Tenant, watch: _Watch) -> None:
        context, uid = self._context, tenant.metadata.uid
        if not context.leading:
            return
        before = context.checks.observation(uid, watch.selector)

        def ended() -> None:
            seen = context.checks.observation(uid, watch.selector)
            if seen is not None and (before is None or replace(seen, at=before.at) != before):
                context.wake([Wake(Key(TENANT.name, "", tenant.metadata.name))])
            loop = asyncio.get_running_loop()
            watch.timer = loop.call_later(self._interval(tenant), self._look, tenant, watch)

        # No DMARC record is expected at this name: that of the domain above it counts (RFC 7489 section 6.6.3).
        visible = not watch.smart_host
        question = Question(watch.name, watch.selector, spf=visible, dmarc=False, host=visible)
        context.checks.start(uid, question, ended)

    def _interval(self, tenant: Tenant) -> float:
        dns, born = self._context.settings.dns, tenant.metadata.creation_timestamp
        age = (self._context.now() - born).total_seconds() if born is not None else 0.0
        interval = max(LEAST_PAUSE * dns.pending_recheck, min(age * AGE_SHARE, dns.verified_recheck))
        return interval * jitter(tenant.metadata.uid)
