"""DomainClaim: a domain's one holder. Cluster-scoped, named by the domain, written by the operator alone."""

from __future__ import annotations

from .meta import Metadata, Struct


class DomainClaimSpec(Struct, frozen=True, kw_only=True):
    """Who holds the domain: the tenant and the SendingDomain (by uid) whose DKIM record was seen."""

    domain: str
    tenant: str
    namespace: str
    name: str
    uid: str


class DomainClaim(Struct, frozen=True, kw_only=True):
    """A DomainClaim as read from the API server."""

    metadata: Metadata
    spec: DomainClaimSpec
