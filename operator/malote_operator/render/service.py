"""The two Services of a tenant's relay: the one that clients connect to, and the headless one that names pods."""

from __future__ import annotations

from malote_operator.api import names
from malote_operator.api.tenant import Tenant
from malote_operator.settings import Settings

from .common import Manifest, manifest, relay_selector
from .stateful_set import OBSERVE_PORT


def render(tenant: Tenant, settings: Settings) -> Manifest:
    """The clients' Service, with the ports that clients know (RFC 6409 section 3.1, RFC 8314 section 3.3)."""
    name = tenant.metadata.name
    body = manifest(
        "v1",
        "Service",
        tenant,
        names.relay(name),
        settings.relay_namespace,
        annotations=dict(settings.relay.service_annotations),
    )
    body["spec"] = {
        "type": settings.relay.service_type,
        "selector": relay_selector(name),
        "ports": [
            _port("submission", settings.endpoint.submission_port, "submission"),
            _port("submissions", settings.endpoint.submissions_port, "submissions"),
        ],
    }
    if settings.bounces.enabled:
        body["spec"]["ports"].append(_port("bounces", settings.bounces.port, "bounces"))
    if settings.relay.service_type in {"LoadBalancer", "NodePort"}:
        body["spec"]["externalTrafficPolicy"] = "Local"  # keeps the client's address, which limits go by
    return body


def headless(tenant: Tenant, settings: Settings) -> Manifest:
    """The StatefulSet's own Service; pods are named before they are ready, so that metrics show why they are not."""
    name = tenant.metadata.name
    body = manifest("v1", "Service", tenant, names.headless(name), settings.relay_namespace)
    body["spec"] = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": relay_selector(name),
        "ports": [_port("observe", OBSERVE_PORT, "observe")],
    }
    return body


def _port(name: str, port: int, target: str) -> Manifest:
    return {"name": name, "port": port, "targetPort": target, "protocol": "TCP"}
