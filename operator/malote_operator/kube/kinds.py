"""The kinds of object the operator touches: how each is addressed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """A resource of the API server. `group` is empty for the core group."""

    name: str
    group: str
    version: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """What objects of this kind carry in `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The path below the server's address. Without a namespace a namespaced kind is addressed in all of them."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/" + "/".join(parts)


PLAN = Kind("Plan", "malote.dev", "v1alpha1", "plans", namespaced=False)
TENANT = Kind("Tenant", "malote.dev", "v1alpha1", "tenants", namespaced=False)
SENDING_DOMAIN = Kind("SendingDomain", "malote.dev", "v1alpha1", "sendingdomains")
DOMAIN_CLAIM = Kind("DomainClaim", "malote.dev", "v1alpha1", "domainclaims", namespaced=False)

SECRET = Kind("Secret", "", "v1", "secrets")
CONFIG_MAP = Kind("ConfigMap", "", "v1", "configmaps")
SERVICE = Kind("Service", "", "v1", "services")
POD = Kind("Pod", "", "v1", "pods")
STATEFUL_SET = Kind("StatefulSet", "apps", "v1", "statefulsets")
NETWORK_POLICY = Kind("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies")
CERTIFICATE = Kind("Certificate", "cert-manager.io", "v1", "certificates")
LEASE = Kind("Lease", "coordination.k8s.io", "v1", "leases")
EVENT = Kind("Event", "events.k8s.io", "v1", "events")

BY_NAME = {
    (kind.api_version, kind.name): kind
    for kind in (SECRET, CONFIG_MAP, SERVICE, STATEFUL_SET, NETWORK_POLICY, CERTIFICATE, DOMAIN_CLAIM)
}
"""Kinds the operator makes, by apiVersion and kind of a rendered object."""
