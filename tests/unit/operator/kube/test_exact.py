"""Exact comparison: what somebody added is found and taken out; what the server or other tools may do is left."""

from __future__ import annotations

import copy
from typing import Any

from malote_operator.kube import exact

WANTED: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "StatefulSet",
    "metadata": {"name": "acme-relay", "labels": {"a": "1"}},
    "spec": {
        "replicas": 1,
        "template": {
            "metadata": {"labels": {"a": "1"}},
            "spec": {"containers": [{"name": "relay", "image": "malote:1", "ports": [{"containerPort": 2587}]}]},
        },
    },
}
OURS = {
    "manager": "malote-operator",
    "operation": "Apply",
    "fieldsV1": {
        "f:metadata": {"f:labels": {"f:a": {}}},
        "f:spec": {
            "f:replicas": {},
            "f:template": {
                "f:metadata": {"f:labels": {"f:a": {}}},
                "f:spec": {
                    "f:containers": {
                        'k:{"name":"relay"}': {
                            ".": {},
                            "f:name": {},
                            "f:image": {},
                            "f:ports": {
                                'k:{"containerPort":2587,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}
                            },
                        }
                    }
                },
            },
        },
    },
}


def live(*theirs: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """The object as the server shows it: defaults filled in, book-keeping added, `theirs` in managedFields."""
    obj = copy.deepcopy(WANTED)
    obj["metadata"] |= {"uid": "u", "resourceVersion": "7", "managedFields": [OURS, *theirs]}
    obj["spec"]["template"]["spec"]["containers"][0]["ports"][0]["protocol"] = "TCP"
    obj["spec"]["template"]["spec"] |= {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst"}
    obj["spec"] |= spec
    obj["status"] = {"readyReplicas": 1}
    return obj


def by(manager: str, fields: dict[str, Any], subresource: str = "") -> dict[str, Any]:
    entry: dict[str, Any] = {"manager": manager, "operation": "Update", "fieldsV1": fields}
    return entry | ({"subresource": subresource} if subresource else {})


def in_pod(fields: dict[str, Any]) -> dict[str, Any]:
    return {"f:spec": {"f:template": {"f:spec": fields}}}


def test_the_servers_defaults_and_status_are_no_excess() -> None:
    obj = live(by("kube-controller-manager", {"f:status": {"f:readyReplicas": {}}}, "status"))
    assert exact.excess(obj, WANTED) == {}
    assert exact.includes(obj, WANTED)


def test_an_added_container_is_excess_and_is_taken_out_alone() -> None:
    obj = live(by("kubectl", in_pod({"f:containers": {'k:{"name":"spy"}': {".": {}, "f:image": {}, "f:name": {}}}})))
    obj["spec"]["template"]["spec"]["containers"].insert(0, {"name": "spy", "image": "spy:1"})
    found = exact.excess(obj, WANTED)
    cleaned = exact.without(obj, found)
    assert [one["name"] for one in cleaned["spec"]["template"]["spec"]["containers"]] == ["relay"]
    assert len(obj["spec"]["template"]["spec"]["containers"]) == 2, "the original is left as it is"


def test_a_field_added_within_our_container_is_excess() -> None:
    fields: dict[str, Any] = {
        "f:containers": {'k:{"name":"relay"}': {"f:env": {".": {}, 'k:{"name":"X"}': {".": {}, "f:value": {}}}}}
    }
    obj = live(by("kubectl", in_pod(fields)))
    obj["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "X", "value": "1"}]
    cleaned = exact.without(obj, exact.excess(obj, WANTED))
    assert "env" not in cleaned["spec"]["template"]["spec"]["containers"][0]


def test_a_switch_of_the_pod_that_we_do_not_name_is_excess() -> None:
    obj = live(by("kubectl", in_pod({"f:hostNetwork": {}})))
    obj["spec"]["template"]["spec"]["hostNetwork"] = True
    assert "hostNetwork" not in exact.without(obj, exact.excess(obj, WANTED))["spec"]["template"]["spec"]


def test_an_added_key_of_a_secret_is_excess_and_a_set_item_too() -> None:
    wanted = {"metadata": {"name": "s"}, "data": {"a": "MQ=="}, "set": ["x"]}
    obj = {
        "metadata": {"managedFields": [by("kubectl", {"f:data": {"f:b": {}}, "f:set": {'v:"y"': {}, 'v:"x"': {}}})]},
        "data": {"a": "MQ==", "b": "Mg=="},
        "set": ["x", "y"],
    }
    cleaned = exact.without(obj, exact.excess(obj, wanted))
    assert (cleaned["data"], cleaned["set"]) == ({"a": "MQ=="}, ["x"])


def test_labels_and_a_requested_restart_of_other_tools_stay() -> None:
    restart = {
        "f:metadata": {"f:annotations": {"f:tool": {}}},
        "f:spec": {
            "f:template": {"f:metadata": {"f:annotations": {".": {}, "f:kubectl.kubernetes.io/restartedAt": {}}}}
        },
    }
    obj = live(by("kubectl-rollout", restart))
    obj["spec"]["template"]["metadata"]["annotations"] = {"kubectl.kubernetes.io/restartedAt": "now"}
    assert exact.excess(obj, WANTED) == {}
    assert not exact.contested(obj, "malote-operator")


def test_a_field_that_another_manager_took_over_is_contested_even_if_its_value_agrees() -> None:
    atomic: dict[str, Any] = {"f:spec": {"f:selector": {}}}
    assert exact.contested(live(by("kubectl", atomic)), "malote-operator")
    shared: dict[str, Any] = {"f:spec": {"f:replicas": {}}}
    assert not exact.contested(live(by("kubectl", shared)), "malote-operator")


def test_a_different_value_a_missing_field_and_a_longer_list_are_not_included() -> None:
    assert not exact.includes(live(replicas=2), WANTED)
    assert not exact.includes({"a": {}}, {"a": {"b": 1}})
    assert not exact.includes({"a": [1, 2]}, {"a": [1]})
    assert exact.includes({"a": [{"b": 1, "c": 2}]}, {"a": [{"b": 1}]})


def test_labels_that_we_once_applied_and_no_longer_want_are_noticed() -> None:
    assert not exact.stale_metadata(live(), WANTED, "malote-operator")
    without_label = WANTED | {"metadata": {"name": "acme-relay"}}
    assert exact.stale_metadata(live(), without_label, "malote-operator")


def test_the_digest_follows_content_and_not_book_keeping() -> None:
    one = live()
    other = copy.deepcopy(one)
    other["metadata"] |= {"resourceVersion": "8", "generation": 9, "managedFields": []}
    other["status"] = {}
    assert exact.digest(one) == exact.digest(other)
    other["spec"]["replicas"] = 2
    assert exact.digest(one) != exact.digest(other)


def test_what_a_clusters_load_balancer_writes_into_a_service_stays() -> None:
    wanted: dict[str, Any] = {"metadata": {"name": "acme-relay"}, "spec": {"type": "LoadBalancer"}}
    # A webhook's part in a request counts as the request's own.
    webhook = {
        "manager": "malote-operator",
        "operation": "Update",
        "fieldsV1": {"f:spec": {"f:loadBalancerClass": {}}},
    }
    controller = by("kube-vip", {"f:spec": {"f:loadBalancerIP": {}}})
    other = by("kubectl", {"f:spec": {"f:externalIPs": {}}})
    present: dict[str, Any] = {
        "spec": {"type": "LoadBalancer", "loadBalancerClass": "c", "loadBalancerIP": "192.0.2.1"}
    }
    present["metadata"] = {"name": "acme-relay", "managedFields": [webhook, controller]}
    assert exact.excess(present, wanted) == {}
    assert not exact.contested(present, "malote-operator")
    present["spec"]["externalIPs"] = ["192.0.2.2"]
    present["metadata"]["managedFields"].append(other)
    assert exact.excess(present, wanted) == {"f:spec": {"f:externalIPs": {}}}
    assert exact.contested(present, "malote-operator")
