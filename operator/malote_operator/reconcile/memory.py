"""ConfigMap T-state: the little that cannot be seen again in the world, one writer at a time per tenant.

Besides what decisions need (`policy.model.TenantMemory`) it names the Secrets that were made in tenants'
namespaces: the operator may not list Secrets there, so that one which is no longer wanted is found by its name
alone. It is therefore written before such a Secret is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec

from malote_operator.api import names
from malote_operator.api.tenant import Tenant
from malote_operator.kube.apply import Applier
from malote_operator.kube.client import Object
from malote_operator.kube.kinds import CONFIG_MAP
from malote_operator.policy.model import DomainMemory, TenantMemory
from malote_operator.render import state
from malote_operator.settings import Settings

_KEY = "operator.json"


class Made(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What the operator did outside of the relay namespace.

    `credentials`: (namespace, account) of every credentials Secret that may exist. `welcome_request`: the value of
    the resend annotation that was answered last.
    """

    credentials: tuple[tuple[str, str], ...] = ()
    welcome_request: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """The whole content of T-state."""

    memory: TenantMemory = field(default_factory=TenantMemory)
    made: Made = field(default_factory=Made)

    def with_domain(self, uid: str, domain: DomainMemory) -> Kept:
        """The same with another memory of one SendingDomain."""
        return replace(self, memory=replace(self.memory, domains={**self.memory.domains, uid: domain}))


class Memories:
    """Reads T-state once per leadership, then writes through."""

    def __init__(self, applier: Applier, settings: Settings) -> None:
        self._applier = applier
        self._settings = settings
        self._kept: dict[str, Kept] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def clear(self) -> None:
        """Read everything again (another replica may have written)."""
        self._kept.clear()

    def forget(self, tenant_uid: str) -> None:
        """The tenant is gone."""
        self._kept.pop(tenant_uid, None)
        self._locks.pop(tenant_uid, None)

    async def get(self, tenant: Tenant) -> Kept:
        """What is kept of the tenant. Raises NameConflict when the ConfigMap's name is taken."""
        if (kept := self._kept.get(tenant.metadata.uid)) is None:
            async with self._lock(tenant):
                kept = await self._load(tenant)
        return kept

    async def change(self, tenant: Tenant, change: Callable[[Kept], Kept]) -> Kept:
        """Replace what is kept by `change` of it, and write that before returning. Nothing new: nothing written."""
        async with self._lock(tenant):
            before = await self._load(tenant)
            after = change(before)
            if after != before:
                await self._applier.ensure(self._config_map(tenant, after), tenant.metadata.uid)
                self._kept[tenant.metadata.uid] = after
            return after

    async def ensure(self, tenant: Tenant) -> None:
        """Put T-state back if somebody changed or deleted it."""
        async with self._lock(tenant):
            kept = await self._load(tenant)
            if kept != Kept():
                await self._applier.ensure(self._config_map(tenant, kept), tenant.metadata.uid)

    def _lock(self, tenant: Tenant) -> asyncio.Lock:
        return self._locks.setdefault(tenant.metadata.uid, asyncio.Lock())

    async def _load(self, tenant: Tenant) -> Kept:
        kept = self._kept.get(tenant.metadata.uid)
        if kept is None:
            live = await self._applier.find(
                CONFIG_MAP,
                names.state(tenant.metadata.name),
                self._settings.relay_namespace,
                tenant.metadata.uid,
            )
            kept = self._kept[tenant.metadata.uid] = Kept(state.parse(live), _parse(live))
        return kept

    def _config_map(self, tenant: Tenant, kept: Kept) -> Object:
        body = state.config_map(tenant, kept.memory, self._settings)
        body["data"][_KEY] = msgspec.json.encode(kept.made, order="deterministic").decode()
        return body


def _parse(live: Object | None) -> Made:
    text = ((live or {}).get("data") or {}).get(_KEY, "{}")
    try:
        return msgspec.json.decode(text, type=Made)
    except msgspec.DecodeError:
        return Made()
