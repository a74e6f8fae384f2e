"""The objects of a tenant, as the API server and the relay will read them."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from tests.unit.operator.policy import worlds
from tests.unit.operator.policy.tenants import IN_ORDER, decide

from malote_operator.policy.model import DomainDecision, TenantDecision
from malote_operator.render import spool, state, stateful_set
from malote_operator.render.children import Material, children
from malote_operator.render.claim import domain_claim
from malote_operator.settings import Settings
from malote_relay.control.program import DEFAULT_SPOOL

SETTINGS = Settings()
OPERATOR_NAMESPACE = "malote-system"
MATERIAL = Material(
    config=b"{}\n",
    passwords={"app": "pass/word"},
    keys={"m0.acme.example.pem": b"PEM"},
    certificate=b"CHAIN",
    certificate_key=b"KEY",
    ca=b"CA",
)


def rendered(settings: Settings = SETTINGS, decision: TenantDecision | None = None, **plan: Any) -> dict[str, Any]:
    objects = children(
        worlds.tenant(), worlds.plan(**plan), decision or decide(), MATERIAL, settings, OPERATOR_NAMESPACE
    )
    return {f"{one['kind']} {one['metadata']['namespace']}/{one['metadata']['name']}": one for one in objects}


def changed(settings: Settings, part: str, **values: Any) -> Settings:
    return msgspec.structs.replace(settings, **{part: msgspec.structs.replace(getattr(settings, part), **values)})


def data(secret: dict[str, Any]) -> dict[str, bytes]:
    return {name: base64.b64decode(value) for name, value in secret["data"].items()}


def test_the_objects_have_the_names_that_users_rely_on_in_the_order_they_are_needed() -> None:
    assert list(rendered()) == [
        "Secret malote-relays/acme-relay-keys",
        "Secret malote-relays/acme-tls",
        "Secret malote-relays/acme-relay",
        "Service malote-relays/acme-relay-headless",
        "Service malote-relays/acme-relay",
        "NetworkPolicy malote-relays/acme-relay",
        "StatefulSet malote-relays/acme-relay",
        "Secret malote-relays/acme-smtp-app",
        "Secret acme/acme-smtp-app",
    ]


def test_every_object_carries_the_labels_and_belongs_to_the_tenant() -> None:
    claim = domain_claim(worlds.tenant(), worlds.domain())
    for one in [*rendered().values(), claim]:
        labels = one["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == labels["app.kubernetes.io/part-of"] == "malote"
        assert labels["app.kubernetes.io/instance"] == labels["malote.dev/tenant"] == "acme"
        assert labels["app.kubernetes.io/managed-by"] == "malote-operator"
        assert labels["app.kubernetes.io/component"]
        (owner,) = one["metadata"]["ownerReferences"]
        assert (owner["apiVersion"], owner["kind"], owner["uid"]) == ("malote.dev/v1alpha1", "Tenant", "uid-of-acme")
    assert claim["metadata"]["name"] == "acme.example"
    assert "namespace" not in claim["metadata"]


def test_pods_keep_the_rules_of_pod_security_restricted() -> None:
    pod = rendered()["StatefulSet malote-relays/acme-relay"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
    }
    assert container["command"] == ["malote-relay"]
    assert container["args"] == ["--config", "/etc/malote", "--spool", "/var/spool/malote"]
    assert {probe: container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")} == {
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }


def test_what_a_relay_said_last_is_kept_with_its_pod() -> None:
    (container,) = rendered()["StatefulSet malote-relays/acme-relay"]["spec"]["template"]["spec"]["containers"]
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_the_relay_finds_its_files_where_its_arguments_say() -> None:
    body = rendered()["StatefulSet malote-relays/acme-relay"]["spec"]
    pod = body["template"]["spec"]
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"]}
    volumes |= {claim["metadata"]["name"]: "(claim)" for claim in body["volumeClaimTemplates"]}
    assert {path: volumes[name] for path, name in mounts.items()} == {
        "/etc/malote/config": "acme-relay",
        "/etc/malote/keys": "acme-relay-keys",
        "/etc/malote/tls": "acme-tls",
        "/var/spool/malote": "(claim)",
    }
    assert set(data(rendered()["Secret malote-relays/acme-relay"])) == {"relay.json"}
    assert set(data(rendered()["Secret malote-relays/acme-tls"])) == {"tls.crt", "tls.key"}


def test_who_enters_a_pod_need_not_say_where_the_spool_is() -> None:
    assert stateful_set.SPOOL_DIRECTORY == DEFAULT_SPOOL


def test_nothing_in_the_pod_template_follows_the_configuration() -> None:
    def template(**plan: Any) -> Any:
        return rendered(decision=decide(accounts=[]), **plan)["StatefulSet malote-relays/acme-relay"]["spec"][
            "template"
        ]

    assert template(messagesPerHour=1, maxAccounts=9, reportRetentionDays=1) == template()


def test_volume_claims_that_are_there_stay_as_they_are() -> None:
    live = [{"metadata": {"name": "spool"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}]
    objects = children(
        worlds.tenant(), worlds.plan(), decide(), MATERIAL, SETTINGS, OPERATOR_NAMESPACE, claim_templates=live
    )
    (found,) = [one for one in objects if one["kind"] == "StatefulSet"]
    assert found["spec"]["volumeClaimTemplates"] == live


def test_the_spool_goes_with_the_tenant_and_not_with_its_stateful_set() -> None:
    body = rendered()["StatefulSet malote-relays/acme-relay"]["spec"]
    assert body["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    (claim,) = body["volumeClaimTemplates"]
    assert [owner["kind"] for owner in claim["metadata"]["ownerReferences"]] == ["Tenant"]


@pytest.mark.parametrize(
    ("plan", "size"),
    [
        ({}, "5Gi"),  # 3.6 GiB of events in 90 days, 0.8 GiB for six hours of mail, 0.5 GiB for large messages
        ({"messagesPerHour": 20, "reportRetentionDays": 30}, "1Gi"),
        ({"messagesPerHour": 8000, "reportRetentionDays": 365}, "42Gi"),
        ({"relay": {"storage": {"size": "3Gi"}}}, "3Gi"),
    ],
)
def test_the_spools_size_follows_from_limit_and_retention_unless_the_plan_names_one(
    plan: dict[str, Any], size: str
) -> None:
    (claim,) = rendered(**plan)["StatefulSet malote-relays/acme-relay"]["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == size


def test_a_spool_holds_at_least_its_events() -> None:
    spec = worlds.plan(messagesPerHour=6000).spec
    assert int(spool.size(spec).removesuffix("Gi")) * 2**30 > 6000 * 24 * 90 * 590


def test_the_services_ports_are_those_that_clients_know() -> None:
    service = rendered()["Service malote-relays/acme-relay"]["spec"]
    container = rendered()["StatefulSet malote-relays/acme-relay"]["spec"]["template"]["spec"]["containers"][0]
    named = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {port["port"]: named[port["targetPort"]] for port in service["ports"]} == {587: 2587, 465: 2465}
    assert service["type"] == "ClusterIP"
    assert "externalTrafficPolicy" not in service
    outside = changed(SETTINGS, "relay", service_type="LoadBalancer", service_annotations={"a": "b"})
    balanced = rendered(outside)["Service malote-relays/acme-relay"]
    assert balanced["spec"]["externalTrafficPolicy"] == "Local"
    assert balanced["metadata"]["annotations"] == {"a": "b"}
    assert rendered()["Service malote-relays/acme-relay-headless"]["spec"]["clusterIP"] == "None"


def test_the_selectors_of_services_policy_and_set_match_the_pods_and_nobody_elses() -> None:
    objects = rendered()
    pod = objects["StatefulSet malote-relays/acme-relay"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        objects["StatefulSet malote-relays/acme-relay"]["spec"]["selector"]["matchLabels"],
        objects["Service malote-relays/acme-relay"]["spec"]["selector"],
        objects["Service malote-relays/acme-relay-headless"]["spec"]["selector"],
        objects["NetworkPolicy malote-relays/acme-relay"]["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= pod.items()
        assert selector["malote.dev/tenant"] == "acme"


def test_the_network_policy_lets_clients_in_and_mail_and_dns_out_and_metrics_to_few() -> None:
    settings = changed(changed(SETTINGS, "egress", smtp_port=2525), "relay", dns_port=5353)
    policy = rendered(settings)["NetworkPolicy malote-relays/acme-relay"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    clients, observers = policy["ingress"]
    assert "from" not in clients
    assert [port["port"] for port in clients["ports"]] == [2587, 2465]
    assert [port["port"] for port in observers["ports"]] == [9090]
    assert [one["namespaceSelector"]["matchLabels"] for one in observers["from"]] == [
        {"kubernetes.io/metadata.name": "malote-system"},
        {"malote.dev/monitoring": "true"},
    ]
    ports = [(port["protocol"], port["port"]) for rule in policy["egress"] for port in rule["ports"]]
    assert ports == [("UDP", 5353), ("TCP", 5353), ("TCP", 2525), ("TCP", 443)]


def test_mail_may_go_where_the_plan_and_the_platform_send_it() -> None:
    def outgoing(config: dict[str, Any], **egress: Any) -> list[int]:
        settings = changed(SETTINGS, "relay", config=config)
        policy = rendered(settings, egress=egress)["NetworkPolicy malote-relays/acme-relay"]["spec"]
        return [port["port"] for rule in policy["egress"][1:] for port in rule["ports"]]

    assert outgoing({}) == [25, 443]  # 443: MTA-STS policies and TLS reports
    assert outgoing({}, smartHost={"host": "smart"}, socks5={"host": "proxy"}) == [25, 587, 1080, 443]
    assert outgoing({"delivery": {"smartHost": {"host": "smart", "port": 26}}}) == [25, 26, 443]
    assert outgoing({"delivery": {"tls": {"policyPort": 8443}}}) == [25, 8443, 443]
    assert outgoing({"delivery": {"tlsReports": {"ports": [443, 8443]}}}) == [25, 443, 8443]
    assert outgoing({"delivery": {"tls": {"mtaSts": False}, "tlsReports": {"enabled": False}}}) == [25]


def test_bounces_come_in_at_port_25_only_where_that_is_switched_on() -> None:
    for enabled, expected in ((False, []), (True, [25])):
        objects = rendered(changed(SETTINGS, "bounces", enabled=enabled))
        service = objects["Service malote-relays/acme-relay"]["spec"]["ports"]
        assert [port["port"] for port in service if port["name"] == "bounces"] == expected
        clients = objects["NetworkPolicy malote-relays/acme-relay"]["spec"]["ingress"][0]
        assert (2525 in [port["port"] for port in clients["ports"]]) is enabled
        (container,) = objects["StatefulSet malote-relays/acme-relay"]["spec"]["template"]["spec"]["containers"]
        named = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert named.get("bounces") == (2525 if enabled else None)
        assert {port["targetPort"] for port in service} <= set(named)


def test_what_the_platform_gives_all_relays_lies_beside_the_tenants_own() -> None:
    settings = changed(SETTINGS, "relay", credentials_secret="passwords", keys_secret="shared")
    pod = rendered(settings)["StatefulSet malote-relays/acme-relay"]["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert mounts["credentials"] == "/etc/malote/credentials"
    assert volumes["credentials"]["secret"]["secretName"] == "passwords"
    assert volumes["credentials"]["secret"]["optional"] is True, "no suspension waits for it"
    assert mounts["keys"] == "/etc/malote/keys"
    sources = volumes["keys"]["projected"]["sources"]
    assert [one["secret"]["name"] for one in sources] == ["acme-relay-keys", "shared"]
    assert volumes["keys"]["projected"]["defaultMode"] == volumes["config"]["secret"]["defaultMode"]


def test_another_number_of_processes_starts_new_pods_and_no_other_shared_value_does() -> None:
    def template(**config: Any) -> Any:
        settings = changed(SETTINGS, "relay", config=config)
        return rendered(settings)["StatefulSet malote-relays/acme-relay"]["spec"]["template"]

    assert template(limits={"maxSessions": 5}) == template()
    assert template(listen={"processes": 2}) != template()
    assert template(listen={"processes": 2}) != template(listen={"processes": 3})


def test_credentials_follow_the_service_binding_convention() -> None:
    secret = rendered()["Secret acme/acme-smtp-app"]
    assert secret["type"] == "servicebinding.io/smtp"
    assert data(secret) == {
        "type": b"smtp",
        "provider": b"malote",
        "host": b"acme.smtp.example.net",
        "port": b"587",
        "username": b"app@acme",
        "password": b"pass/word",
        "uri": b"smtp://app%40acme:pass%2Fword@acme.smtp.example.net:587",
        "certificates": b"CA",
    }
    assert data(rendered()["Secret malote-relays/acme-smtp-app"]) == data(secret)


@pytest.mark.parametrize(
    ("tls", "kinds", "mounted"),
    [
        ({"mode": "Operator"}, {"Secret malote-relays/acme-tls"}, "acme-tls"),
        ({"mode": "Secret", "secretName": "wildcard"}, set(), "wildcard"),
        ({"mode": "CertManager", "issuerName": "le"}, {"Certificate malote-relays/acme-relay"}, "acme-tls"),
    ],
)
def test_certificates_come_from_where_the_platform_says(tls: dict[str, str], kinds: set[str], mounted: str) -> None:
    objects = rendered(msgspec.convert({"tls": tls}, Settings))
    assert {name for name in objects if name.endswith("-tls") or name.startswith("Certificate")} == kinds
    volumes = objects["StatefulSet malote-relays/acme-relay"]["spec"]["template"]["spec"]["volumes"]
    assert {volume["name"]: volume["secret"]["secretName"] for volume in volumes}["tls"] == mounted


def test_what_must_be_remembered_survives_the_config_map() -> None:
    decided: DomainDecision = IN_ORDER.domains[0]
    memory = msgspec.convert(
        {"welcome_sent_at": worlds.NOW, "domains": {"uid-1": decided.memory}}, type(IN_ORDER.memory)
    )
    assert state.parse(state.config_map(worlds.tenant(), memory, SETTINGS)) == memory
    assert state.parse(None) == state.parse({"data": {"state.json": "{broken"}}) == type(memory)()
