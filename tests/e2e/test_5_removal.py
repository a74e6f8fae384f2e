"""Deleting a Tenant, and then the platform, leaves nothing behind but what is said to stay."""

from __future__ import annotations

import pytest

from malote_dev.realnode.commands import CommandError

from .conftest import RELAYS, RELEASE, Platform, Tenants, until


def left_over(platform: Platform, tenant: str, namespace: str) -> list[str]:
    kinds = "statefulsets,pods,services,secrets,configmaps,networkpolicies,persistentvolumeclaims"
    found = platform.node.get(kinds, "-n", namespace, "-l", f"malote.dev/tenant={tenant}")
    return [f"{item['kind']}/{item['metadata']['name']}" for item in found["items"]]


def claims(platform: Platform) -> list[str]:
    return [item["metadata"]["name"] for item in platform.node.get("domainclaims")["items"]]


def test_a_deleted_tenant_takes_everything_of_its_own_with_it_and_nothing_else(
    platform: Platform, tenants: Tenants
) -> None:
    assert len(left_over(platform, "globex", RELAYS)) >= 8
    assert left_over(platform, "globex", "globex") == ["Secret/globex-smtp-web"]
    platform.node.kubectl("delete", "tenant", "globex")
    until(lambda: not left_over(platform, "globex", RELAYS), "the relay's objects to go", within=120)
    until(lambda: not left_over(platform, "globex", "globex"), "the credentials to go", within=90)
    until(lambda: claims(platform) == ["acme.example"], "the claim to go", within=90)
    assert len(left_over(platform, "acme", RELAYS)) >= 8
    pods = platform.node.get("pods", "-n", RELAYS)["items"]
    assert [pod["metadata"]["name"] for pod in pods] == ["acme-relay-0"]


def test_uninstalling_keeps_relays_mail_and_kinds_and_removes_the_rest(platform: Platform, tenants: Tenants) -> None:
    platform.helm("uninstall", "malote", "--wait")
    # The operator is gone; the relay goes on.
    assert platform.node.get("pod", "acme-relay-0", "-n", RELAYS)["status"]["phase"] == "Running"
    assert platform.node.get("tenants")["items"]
    found = platform.node.get(
        "deployments,configmaps,serviceaccounts,roles,rolebindings",
        "-n",
        RELEASE,
        "-l",
        "app.kubernetes.io/part-of=malote",
    )
    assert found["items"] == []
    found = platform.node.get("clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/part-of=malote")
    assert found["items"] == []


def test_without_an_operator_a_deleted_tenant_is_still_cleaned_up(platform: Platform, tenants: Tenants) -> None:
    """Owner references do it: nothing waits for a finalizer that nobody removes any more."""
    platform.node.kubectl("delete", "tenant", "acme", timeout=60)
    until(lambda: not left_over(platform, "acme", RELAYS), "the relay's objects to go", within=120)
    until(lambda: not left_over(platform, "acme", "acme"), "the credentials to go", within=90)
    with pytest.raises(CommandError, match="NotFound"):
        platform.node.kubectl("get", "secret", "acme-smtp-app", "-n", "acme")


def test_the_last_step_removes_all(platform: Platform, tenants: Tenants) -> None:
    platform.node.kubectl("delete", "namespace", RELAYS, "--timeout=90s")
    kinds = [item["metadata"]["name"] for item in platform.node.get("crds")["items"]]
    ours = [name for name in kinds if name.endswith(".malote.dev")]
    assert len(ours) == 4
    platform.node.kubectl("delete", "crd", *ours, "--timeout=60s")
