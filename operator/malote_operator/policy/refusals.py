"""What the API server would not take, as problems that name the field a person has to change.

Its own words are about objects that the reader never wrote; they follow behind.
"""

from __future__ import annotations

from malote_operator.api.plan import Plan

from .model import Problem


def applying(kind: str, name: str, plan: Plan, error: str) -> Problem:
    """An object of the relay namespace was refused as such."""
    if kind != "StatefulSet":
        return Problem("ApplyRefused", f"{kind} {name} was refused: {error}")
    if plan.spec.relay.resources:
        where = f"spec.relay.resources of Plan {plan.metadata.name}"
    else:
        where = "the chart's value relay.resources"
    return Problem(
        "ApplyRefused",
        f"the relay's StatefulSet {name} was refused: what it is asked for comes from {where}, from"
        f" spec.relay.storage of Plan {plan.metadata.name} and from the chart's values under relay: {error}",
    )


def credentials(namespace: str, error: str) -> Problem:
    """The Secret with an account's credentials was refused in a tenant's namespace."""
    if "exceeded quota" in error:
        what = "its ResourceQuota has no room for the Secrets: the quota is raised, or Secrets are deleted"
    elif "cannot " in error and 'resource "secrets"' in error:
        what = (
            "the operator has no rights there: the platform team adds it to the chart's value"
            " rbac.credentialNamespaces, or takes it off spec.namespaces"
        )
    else:
        what = "the cluster does not take the Secrets there"
    return Problem("CredentialsRefused", f"no credentials in namespace {namespace}: {what} ({error})")
