"""A cert-manager Certificate for a tenant's relay, where cert-manager issues certificates."""

from __future__ import annotations

from malote_operator.api import names
from malote_operator.api.tenant import Tenant
from malote_operator.settings import Settings

from .common import Manifest, manifest


def render(tenant: Tenant, settings: Settings) -> Manifest:
    """The Certificate; cert-manager writes Secret T-tls. Only for the endpoint: public issuers refuse the rest."""
    name = tenant.metadata.name
    body = manifest("cert-manager.io/v1", "Certificate", tenant, names.relay(name), settings.relay_namespace)
    body["spec"] = {
        "secretName": names.tls(name),
        "dnsNames": [names.endpoint_host(name, settings)],
        "issuerRef": {"group": "cert-manager.io", "kind": settings.tls.issuer_kind, "name": settings.tls.issuer_name},
        "privateKey": {"rotationPolicy": "Always"},
    }
    return body
