"""DomainClaim: one holder a domain, made by POST, so that of two the second gets a conflict."""

from __future__ import annotations

from malote_operator.api import API_VERSION
from malote_operator.api.sendingdomain import SendingDomain
from malote_operator.api.tenant import Tenant

from .common import Manifest, manifest


def domain_claim(tenant: Tenant, domain: SendingDomain) -> Manifest:
    """The claim of this SendingDomain on its domain; cluster-scoped, goes with the Tenant."""
    body = manifest(API_VERSION, "DomainClaim", tenant, domain.spec.domain, "", component="domain-claim")
    body["spec"] = {
        "domain": domain.spec.domain,
        "tenant": tenant.metadata.name,
        "namespace": domain.metadata.namespace,
        "name": domain.metadata.name,
        "uid": domain.metadata.uid,
    }
    return body
