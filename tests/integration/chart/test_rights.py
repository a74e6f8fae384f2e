"""What the chart's roles allow and forbid: the operator, tenants, and the platform team."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.chart.conftest import OPERATOR, RELAYS, RELEASE, Chart

MAY = [
    ("watch", "tenants.malote.dev", "*"),
    ("list", "plans.malote.dev", "*"),
    ("watch", "sendingdomains.malote.dev", "*"),
    ("patch", "tenants.malote.dev/status", "*"),
    ("patch", "sendingdomains.malote.dev/status", "*"),
    ("create", "domainclaims.malote.dev", "*"),
    ("delete", "domainclaims.malote.dev", "*"),
    ("create", "events.events.k8s.io", "acme"),
    ("get", "secrets", "acme"),
    ("create", "secrets", "acme"),
    ("patch", "secrets", "acme"),
    ("delete", "secrets", "acme"),
    ("create", "statefulsets.apps", RELAYS),
    ("create", "services", RELAYS),
    ("patch", "pods", RELAYS),
    ("create", "networkpolicies.networking.k8s.io", RELAYS),
    ("patch", "configmaps", RELAYS),
    ("delete", "secrets", RELAYS),
    ("create", "leases.coordination.k8s.io", RELEASE),
    ("update", "leases.coordination.k8s.io", RELEASE),
]
MAY_NOT = [
    # Discover Secrets anywhere, its own namespaces included.
    ("list", "secrets", "*"),
    ("watch", "secrets", "*"),
    ("list", "secrets", RELAYS),
    ("list", "secrets", "kube-system"),
    # Write what people write.
    ("create", "tenants.malote.dev", "*"),
    ("patch", "tenants.malote.dev", "*"),
    ("delete", "tenants.malote.dev", "*"),
    ("update", "tenants.malote.dev/finalizers", "*"),
    ("patch", "plans.malote.dev", "*"),
    ("patch", "sendingdomains.malote.dev", "acme"),
    ("update", "sendingdomains.malote.dev/finalizers", "acme"),
    ("delete", "sendingdomains.malote.dev", "acme"),
    # What it has no use for: a status comes with its object, an Event is written once.
    ("get", "tenants.malote.dev/status", "*"),
    ("get", "sendingdomains.malote.dev/status", "acme"),
    ("patch", "events.events.k8s.io", "acme"),
    # What goes with its Tenant by itself; volumes hold mail that was accepted.
    ("delete", "persistentvolumeclaims", RELAYS),
    ("list", "persistentvolumeclaims", RELAYS),
    ("delete", "statefulsets.apps", RELAYS),
    ("delete", "services", RELAYS),
    ("delete", "configmaps", RELAYS),
    ("delete", "networkpolicies.networking.k8s.io", RELAYS),
    # Run or enter anything.
    ("create", "pods", RELAYS),
    ("create", "pods/exec", RELAYS),
    ("create", "statefulsets.apps", "acme"),
    ("create", "deployments.apps", RELEASE),
    ("get", "pods", "acme"),
    ("get", "configmaps", "acme"),
    ("create", "services", "acme"),
    ("delete", "persistentvolumeclaims", "acme"),
    # Reach further than it was given.
    ("create", "clusterrolebindings.rbac.authorization.k8s.io", "*"),
    ("escalate", "clusterroles.rbac.authorization.k8s.io", "*"),
    ("create", "rolebindings.rbac.authorization.k8s.io", RELAYS),
    ("create", "serviceaccounts/token", RELAYS),
    ("impersonate", "users", "*"),
    ("get", "nodes", "*"),
    ("list", "namespaces", "*"),
    ("patch", "customresourcedefinitions.apiextensions.k8s.io", "*"),
    ("update", "leases.coordination.k8s.io", "kube-system"),
]


class TestTheOperatorsRights:
    @pytest.mark.parametrize(("verb", "resource", "namespace"), MAY)
    def test_it_may(
        self, installed: Chart, eventually: Callable[..., Any], verb: str, resource: str, namespace: str
    ) -> None:
        eventually(lambda: installed.allows(OPERATOR, verb, resource, namespace))  # a moment after it was given

    @pytest.mark.parametrize(("verb", "resource", "namespace"), MAY_NOT)
    def test_it_may_not(self, installed: Chart, verb: str, resource: str, namespace: str) -> None:
        assert not installed.allows(OPERATOR, verb, resource, namespace)

    def test_no_rule_has_a_wildcard(self, chart: Chart) -> None:
        roles = [
            d for d in chart.render("--set", "tls.mode=CertManager,tls.issuerName=x") if d["kind"].endswith("Role")
        ]
        assert len(roles) >= 6
        for role in roles:
            for rule in role["rules"]:
                assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], role["metadata"]["name"]

    def test_credentials_can_be_confined_to_named_namespaces(self, chart: Chart) -> None:
        documents = chart.render("--set", "rbac.credentialNamespaces={acme,globex}")
        bindings = [
            (d["kind"], d["metadata"].get("namespace"))
            for d in documents
            if d["kind"].endswith("Binding") and d["roleRef"]["name"] == "malote-operator-credentials"
        ]
        assert bindings == [("RoleBinding", "acme"), ("RoleBinding", "globex")]


class TestPeoplesRights:
    @pytest.mark.parametrize("verb", ["create", "patch", "delete", "list"])
    def test_a_tenant_writes_its_sending_domains(
        self, installed: Chart, eventually: Callable[..., Any], verb: str
    ) -> None:
        eventually(lambda: installed.allows("ana", verb, "sendingdomains.malote.dev", "acme"))

    @pytest.mark.parametrize(
        ("verb", "resource", "namespace"),
        [
            ("create", "sendingdomains.malote.dev", "globex"),
            ("patch", "sendingdomains.malote.dev/status", "acme"),
            ("create", "tenants.malote.dev", "*"),
            ("patch", "tenants.malote.dev", "*"),
            ("patch", "plans.malote.dev", "*"),
            ("create", "domainclaims.malote.dev", "*"),
            ("get", "secrets", RELAYS),
            ("get", "pods", RELAYS),
            ("get", "configmaps", RELAYS),
            ("get", "secrets", RELEASE),
        ],
    )
    def test_a_tenant_may_not(self, installed: Chart, verb: str, resource: str, namespace: str) -> None:
        assert not installed.allows("ana", verb, resource, namespace)

    @pytest.mark.parametrize("resource", ["plans", "tenants", "sendingdomains"])
    def test_the_platform_team_writes_plans_and_tenants(
        self, installed: Chart, eventually: Callable[..., Any], resource: str
    ) -> None:
        eventually(lambda: installed.allows("platform", "create", f"{resource}.malote.dev", "*"))

    def test_the_platform_teams_role_gives_no_secrets(self, installed: Chart) -> None:
        assert not installed.allows("platform", "get", "secrets", RELAYS)
