"""What the API server refused, in words about what a person wrote."""

import pytest

from malote_operator.policy import refusals

from . import worlds

DENIED = (
    'PATCH /api/v1/namespaces/acme/secrets/acme-smtp-app: secrets "acme-smtp-app" is forbidden: User'
    ' "system:serviceaccount:malote-system:malote-operator" cannot patch resource "secrets" in API group "" in the'
    ' namespace "acme"'
)
FULL = 'POST …: secrets "acme-smtp-app" is forbidden: exceeded quota: small, requested: secrets=1, used: secrets=5'


def test_a_refused_stateful_set_names_the_plans_field_or_else_the_charts() -> None:
    own = worlds.plan(relay={"resources": {"limits": {"cpu": "1"}}})
    problem = refusals.applying("StatefulSet", "acme-relay", own, "spec.x: Invalid value")
    assert problem.reason == "ApplyRefused"
    assert problem.permanent
    assert "spec.relay.resources of Plan smtp-1" in problem.message
    assert problem.message.endswith("spec.x: Invalid value")
    without = refusals.applying("StatefulSet", "acme-relay", worlds.plan(), "spec.x: Invalid value")
    assert "the chart's value relay.resources" in without.message
    assert "resources of Plan" not in without.message


def test_another_refused_object_is_named() -> None:
    problem = refusals.applying("Service", "acme-relay", worlds.plan(), "spec.x: Invalid value")
    assert problem.message == "Service acme-relay was refused: spec.x: Invalid value"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (DENIED, "rbac.credentialNamespaces"),
        (FULL, "its ResourceQuota has no room"),
        ("admission webhook denied the request", "the cluster does not take the Secrets there"),
    ],
)
def test_refused_credentials_say_where_and_who_can_help(error: str, says: str) -> None:
    problem = refusals.credentials("acme", error)
    assert problem.reason == "CredentialsRefused"
    assert "namespace acme" in problem.message
    assert says in problem.message
    assert error in problem.message
