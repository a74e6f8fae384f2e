"""The relays' NetworkPolicies: what a relay needs goes through (the other tests), and this does not."""

from __future__ import annotations

import json

import pytest

from malote_dev.realnode.internet import Internet

from .conftest import IMAGE, RELAYS, RELEASE, Platform, Tenants, until

CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 3).close()
    print("connected")
except OSError as error:
    print("refused")
"""


def address(platform: Platform, tenant: str) -> str:
    return str(platform.node.get("pod", f"{tenant}-relay-0", "-n", RELAYS)["status"]["podIP"])


def connects(platform: Platform, namespace: str, pod: str, host: str, port: int) -> bool:
    platform.node.policies.settle()
    said = platform.node.kubectl("exec", "-n", namespace, pod, "--", "python3", "-c", CONNECT, host, str(port))
    assert said.strip() in {"connected", "refused"}
    return said.strip() == "connected"


def operator(platform: Platform) -> str:
    """The operator's pod; the one before an upgrade may still be ending beside it."""
    pods = [pod["metadata"] for pod in platform.node.get("pods", "-n", RELEASE)["items"]]
    (name,) = (str(pod["name"]) for pod in pods if "deletionTimestamp" not in pod)
    return name


@pytest.fixture(scope="module")
def neighbour(platform: Platform, tenants: Tenants) -> str:
    """A pod of another tenant's."""
    platform.node.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "neighbour", "namespace": "globex"},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {"name": "c", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "infinity"]}
                ],
            },
        }
    )
    platform.node.kubectl("wait", "--for=condition=Ready", "pod/neighbour", "-n", "globex", "--timeout=120s")
    return "neighbour"


def test_any_pod_reaches_the_submission_ports(platform: Platform, tenants: Tenants, neighbour: str) -> None:
    assert connects(platform, "globex", neighbour, address(platform, "acme"), 2587)
    assert connects(platform, "globex", neighbour, tenants.acme.address, 465)


def test_a_tenants_pod_does_not_reach_a_relays_metrics(platform: Platform, tenants: Tenants, neighbour: str) -> None:
    assert not connects(platform, "globex", neighbour, address(platform, "acme"), 9090)


def test_the_operator_reaches_a_relays_readiness(platform: Platform, tenants: Tenants) -> None:
    assert connects(platform, RELEASE, operator(platform), address(platform, "acme"), 9090)


def test_a_monitoring_namespace_reaches_a_relays_metrics(
    platform: Platform, tenants: Tenants, neighbour: str
) -> None:
    platform.node.kubectl("label", "namespace", "globex", "malote.dev/monitoring=true")
    try:
        # The node learns of a label a moment later.
        until(
            lambda: connects(platform, "globex", neighbour, address(platform, "acme"), 9090),
            "the way to the metrics",
            within=60,
        )
    finally:
        platform.node.kubectl("label", "namespace", "globex", "malote.dev/monitoring-")


def test_a_relay_reaches_mail_hosts_and_nothing_else(platform: Platform, tenants: Tenants, world: Internet) -> None:
    host = world.recipients.address
    assert connects(platform, RELAYS, "acme-relay-0", host, 25)
    assert not connects(platform, RELAYS, "acme-relay-0", host, 8025)
    assert not connects(platform, RELAYS, "acme-relay-0", address(platform, "globex"), 9090)


def test_metrics_are_read_through_the_policy(platform: Platform, tenants: Tenants) -> None:
    """What a scrape from an allowed namespace sees."""
    script = (
        "import json, sys, urllib.request as r;"
        "print(json.dumps(r.urlopen(f'http://{sys.argv[1]}:9090/metrics', timeout=5).read().decode()))"
    )
    said = platform.node.kubectl(
        "exec", "-n", RELEASE, operator(platform), "--", "python3", "-c", script, address(platform, "acme")
    )
    assert "malote_messages_accepted_total" in json.loads(said)
    assert "malote_hour_limit 3000" in json.loads(said)
