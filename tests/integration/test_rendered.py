"""What is rendered for a tenant, on a real API server with its controllers and Pod Security `restricted`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from malote_operator.api.plan import Plan
from malote_operator.api.tenant import Tenant
from malote_operator.policy.model import TenantDecision
from malote_operator.render import state
from malote_operator.render.children import Material, children
from malote_operator.settings import Settings

if TYPE_CHECKING:
    from tests.integration.conftest import Kubectl

pytestmark = pytest.mark.cluster

CRDS = Path(__file__).parents[2] / "crds"
NAME = "rendered"
PLAN = msgspec.convert({"metadata": {"name": "any"}, "spec": {"messagesPerHour": 100}}, Plan)


@pytest.fixture
def tenant(kubectl: Kubectl) -> Iterator[Tenant]:
    kubectl.serve(CRDS)
    body = {
        "apiVersion": "malote.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": NAME},
        "spec": {
            "planRef": {"name": "any"},
            "contact": {"email": "a@b.example"},
            "approval": {"approved": True},
            "accounts": [{"name": "app"}],
        },
    }
    yield msgspec.convert(json.loads(kubectl("apply", "-f", "-", "-o", "json", stdin=json.dumps(body))), Tenant)
    kubectl("delete", "tenant", NAME, "--ignore-not-found")


def test_objects_are_taken_start_a_pod_and_go_with_their_tenant_spool_included(
    kubectl: Kubectl, namespace: str, tenant: Tenant, eventually: Callable[..., Any]
) -> None:
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    settings = Settings(relay_namespace=namespace)
    decision = TenantDecision(conditions=(), relay_wanted=True, accounts=tenant.spec.accounts)
    material = Material(
        config=b"{}",
        passwords={"app": "secret"},
        keys={"m0.x.example.pem": b"x"},
        certificate=b"c",
        certificate_key=b"k",
    )
    objects = [
        *children(tenant, PLAN, decision, material, settings, "malote-system"),
        state.config_map(tenant, state.parse(None), settings),
    ]
    said = kubectl(
        "apply", "--server-side", "--field-manager=malote-operator", "-f", "-",
        stdin="\n---\n".join(json.dumps(one) for one in objects),
    )  # fmt: skip
    assert said.count("serverside-applied") == len(objects)
    # The controller makes the pod only if Pod Security lets it, and the claim from its template.
    pod = eventually(lambda: kubectl.json("get", "pod", f"{NAME}-relay-0", "-n", namespace))
    assert pod["spec"]["containers"][0]["command"] == ["malote-relay"]
    claim = kubectl.json("get", "pvc", f"spool-{NAME}-relay-0", "-n", namespace)
    assert claim["metadata"]["ownerReferences"][0]["uid"] == tenant.metadata.uid

    # Deleting the StatefulSet alone keeps the mail …
    kubectl("delete", "statefulset", f"{NAME}-relay", "-n", namespace)
    assert "deletionTimestamp" not in kubectl.json("get", "pvc", f"spool-{NAME}-relay-0", "-n", namespace)["metadata"]

    # … and deleting the Tenant leaves nothing.
    kubectl("delete", "tenant", NAME)

    def gone() -> bool:
        left = kubectl(
            "get", "statefulset,service,networkpolicy,secret,configmap,pvc,pod", "-n", namespace,
            "-l", f"malote.dev/tenant={NAME}", "-o", "name",
        )  # fmt: skip
        assert left == "", left
        return True

    # The garbage collector learns of kinds every 30 s: in a cluster with fresh CRDs this takes that long.
    eventually(gone, within=200)
