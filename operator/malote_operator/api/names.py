"""The names of everything made for a tenant (docs: "Objects made for Tenant T")."""

from __future__ import annotations

from malote_operator.settings import Settings


def relay(tenant: str) -> str:
    """StatefulSet, Service, NetworkPolicy and the Secret with the configuration."""
    return f"{tenant}-relay"


def headless(tenant: str) -> str:
    """The Service that gives each relay pod a name of its own."""
    return f"{tenant}-relay-headless"


def relay_keys(tenant: str) -> str:
    """The Secret with the DKIM keys in use."""
    return f"{tenant}-relay-keys"


def return_paths(tenant: str) -> str:
    """The immutable Secret that the tenant's return paths are made with."""
    return f"{tenant}-return-paths"


def notices_dkim(tenant: str) -> str:
    """The immutable Secret of the DKIM key that the relay signs its own messages with."""
    return f"{tenant}-notices-dkim"


def dkim_key(tenant: str, selector: str) -> str:
    """The immutable Secret of one DKIM key."""
    return f"{tenant}-dkim-{selector}"


def tls(tenant: str) -> str:
    """The Secret with the relay's certificate."""
    return f"{tenant}-tls"


def state(tenant: str) -> str:
    """The ConfigMap with what cannot be seen again in the world."""
    return f"{tenant}-state"


def account_secret(tenant: str, account: str) -> str:
    """The Secret with an account's credentials, in the relay namespace and in the tenant's."""
    return f"{tenant}-smtp-{account}"


def username(tenant: str, account: str) -> str:
    """The account's user name, unique in the fleet."""
    return f"{account}@{tenant}"


def endpoint_host(tenant: str, settings: Settings) -> str:
    """The host that the tenant's clients connect to."""
    return settings.endpoint.host_template.format(tenant=tenant)


def certificate_names(tenant: str, settings: Settings) -> tuple[str, ...]:
    """The DNS names the relay's certificate is for: the endpoint, and the Service from within the cluster."""
    service = f"{relay(tenant)}.{settings.relay_namespace}.svc"
    return (endpoint_host(tenant, settings), service, f"{service}.cluster.local")
