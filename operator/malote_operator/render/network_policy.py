"""The NetworkPolicy of a tenant's relay: clients in, mail and DNS out, metrics for those who may look."""

from __future__ import annotations

from malote_operator.api import names
from malote_operator.api.plan import Plan
from malote_operator.api.tenant import Tenant
from malote_operator.settings import Settings

from . import egress
from .common import Manifest, manifest, relay_selector
from .relay_config import BOUNCE_PORT
from .stateful_set import OBSERVE_PORT, SUBMISSION_PORT, SUBMISSIONS_PORT

MONITORING_LABEL = "malote.dev/monitoring"
"""A namespace with this label set to "true" may read the relays' metrics."""


def render(tenant: Tenant, plan: Plan, settings: Settings, operator_namespace: str) -> Manifest:
    """The policy. Kubelet probes come from the pod's node and pass in any case."""
    name = tenant.metadata.name
    bounces = [_port(BOUNCE_PORT)] if settings.bounces.enabled else []
    outgoing = egress.ports(egress.delivery(tenant, plan, settings))
    body = manifest("networking.k8s.io/v1", "NetworkPolicy", tenant, names.relay(name), settings.relay_namespace)
    body["spec"] = {
        "podSelector": {"matchLabels": relay_selector(name)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"ports": [_port(SUBMISSION_PORT), _port(SUBMISSIONS_PORT), *bounces]},
            {
                "from": [
                    {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": operator_namespace}}},
                    {"namespaceSelector": {"matchLabels": {MONITORING_LABEL: "true"}}},
                ],
                "ports": [_port(OBSERVE_PORT)],
            },
        ],
        "egress": [
            {"ports": [_port(settings.relay.dns_port, "UDP"), _port(settings.relay.dns_port)]},
            {"ports": [_port(port) for port in outgoing]},
        ],
    }
    return body


def _port(port: int, protocol: str = "TCP") -> Manifest:
    return {"port": port, "protocol": protocol}
