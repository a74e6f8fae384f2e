"""NetworkPolicies become packet filter rules that say the same."""

from __future__ import annotations

from typing import Any

import pytest

from malote_dev.realnode.policies import PolicyError, rules

ACCEPTED_BEFORE = "-A MALOTE -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"


def pod(name: str, address: str, namespace: str = "relays", **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {},
        "status": {"podIP": address} if address else {},
    }


def policy(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "namespace": "relays"}, "spec": {"podSelector": {}, **spec}}


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, **labels}}}


SPACES = [namespace("relays"), namespace("system"), namespace("acme")]


def lines(policies: list[dict[str, Any]], pods: list[dict[str, Any]]) -> list[str]:
    return [line for line in rules(policies, pods, SPACES).splitlines() if line.startswith("-A")]


def test_without_a_policy_everything_passes() -> None:
    assert lines([], [pod("a", "10.244.0.2")]) == [ACCEPTED_BEFORE]


def test_a_selected_pod_is_closed_but_for_what_a_rule_names() -> None:
    ingress = [{"ports": [{"port": 2587, "protocol": "TCP"}]}]
    assert lines([policy(policyTypes=["Ingress"], ingress=ingress)], [pod("a", "10.244.0.2")]) == [
        ACCEPTED_BEFORE,
        "-A MALOTE -d 10.244.0.2 -j MALOTE-IN-10.244.0.2",
        "-A MALOTE-IN-10.244.0.2 -p tcp --dport 2587 -j RETURN",
        "-A MALOTE-IN-10.244.0.2 -j REJECT",
    ]


def test_egress_looks_at_the_other_end() -> None:
    found = lines(
        [policy(policyTypes=["Egress"], egress=[{"ports": [{"port": 53, "protocol": "UDP"}]}])], [pod("a", "1.1.1.1")]
    )
    assert "-A MALOTE -s 1.1.1.1 -j MALOTE-EG-1.1.1.1" in found
    assert "-A MALOTE-EG-1.1.1.1 -p udp --dport 53 -j RETURN" in found


def test_peers_are_the_pods_of_the_selected_namespaces() -> None:
    pods = [pod("a", "10.0.0.1"), pod("operator", "10.0.0.2", "system"), pod("app", "10.0.0.3", "acme")]
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "system"}}}
    found = lines([policy(policyTypes=["Ingress"], ingress=[{"from": [peer]}])], pods)
    assert "-A MALOTE-IN-10.0.0.1 -s 10.0.0.2 -j RETURN" in found
    assert not [line for line in found if "10.0.0.3" in line]


def test_only_pods_of_the_policys_namespace_with_its_labels_are_selected() -> None:
    pods = [pod("a", "10.0.0.1", tenant="acme"), pod("b", "10.0.0.2"), pod("c", "10.0.0.3", "acme", tenant="acme")]
    selected = policy(policyTypes=["Ingress"]) | {
        "spec": {"podSelector": {"matchLabels": {"tenant": "acme"}}, "policyTypes": ["Ingress"]}
    }
    assert [line for line in lines([selected], pods) if "REJECT" in line] == ["-A MALOTE-IN-10.0.0.1 -j REJECT"]


@pytest.mark.parametrize(
    "ingress",
    [
        [{"ports": [{"port": "observe"}]}],
        [{"ports": [{"port": 1, "endPort": 9}]}],
        [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}],
        [{"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}]}],
    ],
)
def test_what_it_does_not_know_it_refuses(ingress: list[dict[str, Any]]) -> None:
    with pytest.raises(PolicyError):
        lines([policy(policyTypes=["Ingress"], ingress=ingress)], [pod("a", "10.0.0.1"), pod("b", "10.0.0.2")])
