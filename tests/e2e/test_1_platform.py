"""What the chart has installed runs under the rules that a cluster has for it."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from malote_dev.realnode.commands import CommandError

from .conftest import RELAYS, RELEASE, Platform

OPERATOR = f"system:serviceaccount:{RELEASE}:malote-operator"


def test_the_operator_is_available_and_has_not_restarted(platform: Platform) -> None:
    (pod,) = platform.node.get("pods", "-n", RELEASE, "-l", "app.kubernetes.io/component=operator")["items"]
    (status,) = pod["status"]["containerStatuses"]
    assert status["ready"]
    assert status["restartCount"] == 0


def test_the_operators_filesystem_is_read_only_and_its_user_is_nobody_special(platform: Platform) -> None:
    script = "import os; print(os.getuid(), os.access('/', os.W_OK), os.access('/opt/malote', os.W_OK))"
    said = platform.node.kubectl("exec", "-n", RELEASE, "deploy/malote-operator", "--", "python3", "-c", script)
    assert said.split() == ["10001", "False", "False"]


def test_a_pod_that_is_not_restricted_is_refused_where_relays_live(platform: Platform) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "intruder", "namespace": RELAYS},
        "spec": {"hostNetwork": True, "containers": [{"name": "c", "image": "localhost/pause:1"}]},
    }
    with pytest.raises(CommandError, match='violates PodSecurity "restricted'):
        platform.node.kubectl("apply", "-f", "-", manifest=pod)


@pytest.mark.parametrize(
    ("user", "verb", "resource", "namespace", "answer"),
    [
        (OPERATOR, "list", "tenants.malote.dev", "", "yes"),
        (OPERATOR, "create", "secrets", "default", "yes"),
        (OPERATOR, "create", "statefulsets.apps", RELAYS, "yes"),
        (OPERATOR, "list", "secrets", RELAYS, "no"),
        (OPERATOR, "list", "secrets", "kube-system", "no"),
        (OPERATOR, "create", "statefulsets.apps", "default", "no"),
        (OPERATOR, "patch", "tenants.malote.dev", "", "no"),
        (OPERATOR, "create", "clusterrolebindings.rbac.authorization.k8s.io", "", "no"),
        (f"system:serviceaccount:{RELAYS}:default", "get", "secrets", RELAYS, "no"),
        (f"system:serviceaccount:{RELAYS}:default", "list", "tenants.malote.dev", "", "no"),
    ],
)
def test_kubernetes_gives_each_user_the_rights_of_its_role_and_no_others(
    platform: Platform, user: str, verb: str, resource: str, namespace: str, answer: str
) -> None:
    place = ["--namespace", namespace] if namespace else ["--all-namespaces"]
    try:
        said = platform.node.kubectl("auth", "can-i", verb, resource, "--as", user, *place)
    except CommandError:
        # kubectl's exit status is the answer "no".
        said = "no"
    assert said.strip() == answer


def test_a_wrong_manifest_is_refused_in_words(platform: Platform) -> None:
    plan = {
        "apiVersion": "malote.dev/v1alpha1",
        "kind": "Plan",
        "metadata": {"name": "wrong"},
        "spec": {"messagesPerHour": 3000, "tolerancePercent": 200},
    }
    with pytest.raises(CommandError, match="tolerancePercent"):
        platform.node.kubectl("apply", "-f", "-", manifest=plan)


def test_the_image_holds_no_installer_and_no_local_world(platform: Platform) -> None:
    script = (
        "import importlib.util as u, json, shutil;"
        "print(json.dumps([bool(u.find_spec(m)) for m in ('pip', 'malote_dev', 'malote_relay')]))"
    )
    said = platform.node.kubectl("exec", "-n", RELEASE, "deploy/malote-operator", "--", "python", "-c", script)
    assert json.loads(said) == [False, False, True]


def test_nothing_of_the_node_is_outside_its_namespace(platform: Platform) -> None:
    """The network that this run was started from knows no rule and no address of the node."""
    script = "iptables-save; ip address"
    outside = subprocess.run(
        ["nsenter", f"--target={os.getppid()}", "--net", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    inside = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert "KUBE-SERVICES" in inside
    assert "KUBE-SERVICES" not in outside
    assert "192.168.77.1" not in outside
