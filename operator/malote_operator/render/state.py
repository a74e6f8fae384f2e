"""ConfigMap T-state: the little that cannot be seen again in the world, written and read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from malote_operator.api import names
from malote_operator.api.tenant import Tenant
from malote_operator.policy.model import TenantMemory
from malote_operator.settings import Settings

from .common import Manifest, manifest

_KEY = "state.json"


def config_map(tenant: Tenant, memory: TenantMemory, settings: Settings) -> Manifest:
    """The ConfigMap that keeps `memory`; equal memories give equal objects."""
    body = manifest("v1", "ConfigMap", tenant, names.state(tenant.metadata.name), settings.relay_namespace)
    body["data"] = {_KEY: msgspec.json.encode(memory, order="deterministic").decode()}
    return body


def parse(kept: Mapping[str, Any] | None) -> TenantMemory:
    """What the ConfigMap says; an absent or unreadable one is as if nothing had happened yet."""
    text = ((kept or {}).get("data") or {}).get(_KEY, "{}")
    try:
        return msgspec.json.decode(text, type=TenantMemory)
    except msgspec.DecodeError:
        return TenantMemory()
