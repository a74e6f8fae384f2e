"""Variables of a container as the kubelet puts them together."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from malote_dev.processnode.environment import ConfigError, container_environment, expand, field_value

POD: dict[str, Any] = {
    "metadata": {"name": "web-0", "namespace": "shop", "uid": "u1", "labels": {"app": "web", "tier": 'a"b'}},
    "spec": {"nodeName": "process-node", "serviceAccountName": "runner"},
    "status": {"podIP": "127.64.0.1", "hostIP": "127.0.0.1"},
}
OBJECTS = {
    ("Secret", "login"): {"kind": "Secret", "data": {"user": base64.b64encode(b"ana").decode()}},
    ("ConfigMap", "colours"): {"kind": "ConfigMap", "data": {"sky": "blue"}},
}


async def lookup(kind: str, name: str) -> dict[str, Any] | None:
    return OBJECTS.get((kind, name))


async def environment(**container: Any) -> dict[str, str]:
    return await container_environment(POD, {"name": "c", **container}, {"BASE": "1"}, {"memory": "2Gi"}, lookup)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$$(A)", "$(A)"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$A $ $(", "$A $ $("),
        ("$$$(A)", "$1"),
    ],
)
def test_references_are_expanded_by_kubernetes_rules(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


async def test_a_value_sees_the_variables_before_it_and_not_those_after() -> None:
    variables = await environment(
        env=[{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(C)$(BASE)"}, {"name": "C", "value": "3"}]
    )
    assert variables["B"] == "1$(C)1"


async def test_values_come_from_secrets_config_maps_and_the_pod_itself() -> None:
    variables = await environment(
        envFrom=[{"prefix": "C_", "configMapRef": {"name": "colours"}}],
        env=[
            {"name": "USER", "valueFrom": {"secretKeyRef": {"name": "login", "key": "user"}}},
            {"name": "SKY", "valueFrom": {"configMapKeyRef": {"name": "colours", "key": "sky"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "URL", "value": "http://$(USER)@$(IP)"},
            {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        ],
    )
    assert variables == {
        "BASE": "1",
        "C_sky": "blue",
        "USER": "ana",
        "SKY": "blue",
        "IP": "127.64.0.1",
        "URL": "http://ana@127.64.0.1",
        "MEMORY": "2048",
    }


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"secretKeyRef": {"name": "gone", "key": "k"}}, 'secret "gone" not found'),
        ({"configMapKeyRef": {"name": "gone", "key": "k"}}, 'configmap "gone" not found'),
        ({"secretKeyRef": {"name": "login", "key": "pin"}}, "couldn't find key pin in Secret shop/login"),
        ({"fieldRef": {"fieldPath": "spec.volumes"}}, "unsupported fieldPath: spec.volumes"),
    ],
)
async def test_what_does_not_exist_is_refused_in_the_kubelets_words(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        await environment(env=[{"name": "X", "valueFrom": source}])
    assert str(refused.value) == message


async def test_what_is_optional_may_be_absent() -> None:
    variables = await environment(
        envFrom=[{"secretRef": {"name": "gone", "optional": True}}],
        env=[
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "k", "optional": True}}},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "login", "key": "pin", "optional": True}}},
        ],
    )
    assert variables == {"BASE": "1"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "web-0"),
        ("metadata.namespace", "shop"),
        ("metadata.labels['app']", "web"),
        ("metadata.annotations['none']", ""),
        ("metadata.labels", 'app="web"\ntier="a\\"b"'),
        ("spec.nodeName", "process-node"),
        ("spec.serviceAccountName", "runner"),
        ("status.hostIP", "127.0.0.1"),
    ],
)
def test_a_field_of_the_pod_is_given_by_its_path(path: str, expected: str) -> None:
    assert field_value(POD, path) == expected
