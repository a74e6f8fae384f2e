"""All objects of one tenant, in the order in which they are applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from malote_operator.api.plan import Plan
from malote_operator.api.tenant import Tenant
from malote_operator.policy.model import TenantDecision
from malote_operator.settings import Settings, TlsMode

from . import certificate, network_policy, secrets, service, stateful_set
from .common import Manifest


@dataclass(frozen=True, slots=True)
class Material:
    """What goes into Secrets and was made elsewhere, once.

    `config`: the text of relay.json. `passwords`: by account name. `keys`: PEM by file name (`secrets.key_files`).
    `certificate`, `certificate_key`: PEM, in TLS mode Operator. `ca`: PEM, for clients to trust.
    """

    config: bytes
    passwords: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, bytes] = field(default_factory=dict)
    certificate: bytes = b""
    certificate_key: bytes = b""
    ca: bytes = b""


def children(
    tenant: Tenant,
    plan: Plan,
    decision: TenantDecision,
    material: Material,
    settings: Settings,
    operator_namespace: str,
    claim_templates: Sequence[Manifest] | None = None,
) -> list[Manifest]:
    """The objects to apply: keys before the configuration that names them, everything before the pods that need it.

    `claim_templates`: spec.volumeClaimTemplates of the StatefulSet that is there, which cannot be changed.
    """
    objects = [secrets.relay_keys(tenant, material.keys, settings)]
    if settings.tls.mode is TlsMode.OPERATOR and material.certificate:
        objects.append(secrets.tls(tenant, material.certificate, material.certificate_key, settings))
    elif settings.tls.mode is TlsMode.CERT_MANAGER:
        objects.append(certificate.render(tenant, settings))
    objects += [
        secrets.relay(tenant, material.config, settings),
        service.headless(tenant, settings),
        service.render(tenant, settings),
        network_policy.render(tenant, plan, settings, operator_namespace),
        stateful_set.render(tenant, plan, settings, claim_templates),
    ]
    return objects + credentials(tenant, decision, material, settings)


def credentials(tenant: Tenant, decision: TenantDecision, material: Material, settings: Settings) -> list[Manifest]:
    """The accounts' Secrets: the master copy in the relay namespace first, then those in the tenant's namespaces."""
    namespaces = dict.fromkeys((settings.relay_namespace, *decision.credential_namespaces))
    return [
        secrets.account(tenant, account.name, material.passwords[account.name], settings, namespace, material.ca)
        for account in decision.accounts
        if account.name in material.passwords
        for namespace in namespaces
    ]
