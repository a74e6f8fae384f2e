"""What every object of a tenant has in common: metadata, labels, owner reference."""

from __future__ import annotations

from typing import Any

from malote_operator.api import API_VERSION
from malote_operator.api.tenant import Tenant

MANAGER = "malote-operator"
"""Field manager of every apply, and value of the managed-by label."""
TENANT_LABEL = "malote.dev/tenant"
COMPONENT_LABEL = "app.kubernetes.io/component"
RELAY = "relay"
"""The component label of everything that belongs to relay pods."""

Manifest = dict[str, Any]


def labels(tenant: str, component: str) -> dict[str, str]:
    """The labels of a tenant's object."""
    return {
        "app.kubernetes.io/name": "malote",
        "app.kubernetes.io/instance": tenant,
        COMPONENT_LABEL: component,
        "app.kubernetes.io/part-of": "malote",
        "app.kubernetes.io/managed-by": MANAGER,
        TENANT_LABEL: tenant,
    }


def relay_selector(tenant: str) -> dict[str, str]:
    """The labels that tell a tenant's relay pods from all others; immutable in a StatefulSet."""
    return {TENANT_LABEL: tenant, COMPONENT_LABEL: RELAY}


def owner(tenant: Tenant) -> Manifest:
    """The reference that lets garbage collection remove the object with its Tenant."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Tenant",
        "name": tenant.metadata.name,
        "uid": tenant.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def manifest(
    api_version: str,
    kind: str,
    tenant: Tenant,
    name: str,
    namespace: str,
    *,
    component: str = RELAY,
    extra_labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
) -> Manifest:
    """The start of an object that belongs to `tenant`; an empty namespace makes it cluster-scoped."""
    metadata: Manifest = {
        "name": name,
        "labels": labels(tenant.metadata.name, component) | (extra_labels or {}),
        "ownerReferences": [owner(tenant)],
    }
    if namespace:
        metadata["namespace"] = namespace
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}
