"""What drifts is put back, what is not ours is left alone, and nothing is written when nothing would change."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.operator.conftest import data

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.conftest import Kubectl
    from tests.integration.operator.conftest import Eventually, Replica, Start, Tenancy

pytestmark = pytest.mark.cluster


def containers(statefulset: dict[str, Any]) -> dict[str, bool]:
    """The containers' names, and whether each is given an environment."""
    return {one["name"]: "env" in one for one in statefulset["spec"]["template"]["spec"]["containers"]}


def test_foreign_containers_env_ports_and_data_are_taken_out_again(
    operator: Replica, sending: Tenancy, eventually: Eventually, kubectl: Kubectl
) -> None:
    name, relays = f"{sending.name}-relay", sending.platform.relays
    intruder = (
        '{"spec":{"template":{"spec":{"hostNetwork":false,"containers":['
        '{"name":"spy","image":"spy:1"},{"name":"relay","env":[{"name":"LD_PRELOAD","value":"/tmp/x.so"}]}]}}}}'
    )
    kubectl("patch", "statefulset", name, "-n", relays, "-p", intruder)
    eventually(lambda: containers(sending.child("statefulset", name)) == {"relay": False})

    kubectl("patch", "service", name, "-n", relays, "-p", '{"spec":{"ports":[{"name":"back-door","port":4444}]}}')
    eventually(lambda: [port["port"] for port in sending.child("service", name)["spec"]["ports"]] == [587, 465])
    kubectl("patch", "networkpolicy", name, "-n", relays, "--type=merge", "-p", '{"spec":{"ingress":[{}]}}')
    eventually(lambda: len(sending.child("networkpolicy", name)["spec"]["ingress"]) == 2)

    # Secrets are not watched: they are compared with every regular look (four seconds here).
    key = base64.b64encode(b"stolen").decode()
    keys = f"{sending.name}-relay-keys"
    own = sending.child("secret", keys)["data"]
    kubectl("patch", "secret", keys, "-n", relays, "-p", f'{{"data":{{"other.pem":"{key}"}}}}')
    eventually(lambda: sending.child("secret", keys)["data"] == own)


def test_a_changed_password_in_a_copy_is_put_back_and_a_deleted_copy_made_again(
    operator: Replica, sending: Tenancy, eventually: Eventually, kubectl: Kubectl
) -> None:
    name = f"{sending.name}-smtp-app"
    right = sending.child("secret", name, sending.namespace)["data"]
    wrong = base64.b64encode(b"guessed").decode()
    kubectl("patch", "secret", name, "-n", sending.namespace, "-p", f'{{"data":{{"password":"{wrong}"}}}}')
    eventually(lambda: sending.child("secret", name, sending.namespace)["data"] == right)
    kubectl("delete", "secret", name, "-n", sending.namespace)
    eventually(lambda: sending.child("secret", name, sending.namespace)["data"] == right)


def test_deleted_children_come_back_with_the_same_keys(
    operator: Replica, sending: Tenancy, eventually: Eventually, kubectl: Kubectl
) -> None:
    shown = [(one["name"], one["value"]) for one in sending.records()]
    keys = {one["metadata"]["name"]: one["data"] for one in sending.children() if one["kind"] == "Secret"}
    dkim = next(name for name in keys if "-dkim-" in name)
    kubectl("delete", "service", f"{sending.name}-relay", "-n", sending.platform.relays)
    kubectl("delete", "configmap", f"{sending.name}-state", "-n", sending.platform.relays)
    kubectl("delete", "secret", dkim, f"{sending.name}-tls", "-n", sending.platform.relays)

    def back() -> bool:
        names = {one["metadata"]["name"] for one in sending.children()}
        return {f"{sending.name}-relay", f"{sending.name}-state", dkim, f"{sending.name}-tls"} <= names

    # The key's own Secret is needed again only when the copy is; that is when the relay's keys are written anew.
    eventually(lambda: sending.child("service", f"{sending.name}-relay"))
    eventually(lambda: sending.child("configmap", f"{sending.name}-state"))
    eventually(lambda: sending.child("secret", f"{sending.name}-tls"))
    eventually(back)
    assert sending.child("secret", dkim)["data"] == keys[dkim]
    assert [(one["name"], one["value"]) for one in sending.records()] == shown
    eventually(sending.ready)


def test_keys_survive_the_operator_and_the_loss_of_what_it_remembers(
    start: Start, sending_started: Tenancy, eventually: Eventually, kubectl: Kubectl
) -> None:
    sending = sending_started
    shown = [(one["name"], one["value"]) for one in sending.records()]
    password = data(sending.child("secret", f"{sending.name}-smtp-app"))["password"]
    assert start.replicas[0].terminate() == 0
    kubectl("delete", "configmap", f"{sending.name}-state", "-n", sending.platform.relays)
    start()
    eventually(lambda: sending.child("configmap", f"{sending.name}-state"))
    eventually(sending.ready)
    assert [(one["name"], one["value"]) for one in sending.records()] == shown
    assert data(sending.child("secret", f"{sending.name}-smtp-app"))["password"] == password
    assert sum("-dkim-" in one["metadata"]["name"] for one in sending.children()) == 1


@pytest.fixture
def sending_started(start: Start, acme: Tenancy, eventually: Eventually) -> Tenancy:
    start()
    return acme.sends(eventually)


def test_an_object_that_is_not_ours_is_named_and_never_overwritten(
    operator: Replica, acme: Tenancy, eventually: Eventually, kubectl: Kubectl
) -> None:
    name = f"{acme.name}-smtp-app"
    kubectl("create", "secret", "generic", name, "-n", acme.namespace, "--from-literal=password=theirs")
    kubectl("label", "secret", name, "-n", acme.namespace, "app.kubernetes.io/managed-by=malote-operator")
    acme.apply(acme.plan(), acme.tenant(), acme.sending_domain())
    eventually(lambda: acme.reason() == "NameConflict")
    condition = acme.condition("Ready")
    assert f"Secret {acme.namespace}/{name} exists" in condition["message"]
    assert acme.condition("Stalled")["status"] == "True"
    assert data(acme.child("secret", name, acme.namespace)) == {"password": "theirs"}
    kubectl("delete", "secret", name, "-n", acme.namespace)
    eventually(lambda: acme.reason() != "NameConflict")
    assert data(acme.child("secret", name, acme.namespace))["username"] == f"app@{acme.name}"


def test_a_label_that_got_lost_in_the_relay_namespace_is_put_back(
    operator: Replica, sending: Tenancy, eventually: Eventually, kubectl: Kubectl
) -> None:
    label, relays = "app.kubernetes.io/managed-by", sending.platform.relays
    for kind, name in (("service", f"{sending.name}-relay"), ("secret", f"{sending.name}-smtp-app")):
        kubectl("label", kind, name, "-n", relays, f"{label}-")
        eventually(lambda kind=kind, name=name: label in sending.child(kind, name)["metadata"]["labels"])
    assert sending.ready()


def test_nothing_is_written_when_nothing_changes(
    operator: Replica, sending: Tenancy, eventually: Eventually, kubectl: Kubectl
) -> None:
    kinds = "statefulset,service,networkpolicy,secret,configmap"
    own = ("-l", f"malote.dev/tenant={sending.name}")

    def versions() -> dict[str, str]:
        items = [
            *kubectl.json("get", kinds, "-n", sending.platform.relays, *own)["items"],
            *kubectl.json("get", "secret,sendingdomain", "-n", sending.namespace)["items"],
            kubectl.json("get", "tenant", sending.name),
            kubectl.json("get", "plan", sending.name),
        ]
        return {f"{one['kind']}/{one['metadata']['name']}": one["metadata"]["resourceVersion"] for one in items}

    def written() -> float:
        lease = 'malote_operator_writes_total{kind="Lease",verb="update"}'
        return operator.metric("malote_operator_writes_total") - operator.metric(lease)

    def written_in_a_dozen_looks() -> str:
        before, writes = versions(), written()
        looks = operator.metric("malote_operator_reconcile_seconds_count")
        eventually(lambda: operator.metric("malote_operator_reconcile_seconds_count") > looks + 12)
        changed = {name for name, version in versions().items() if before.get(name) != version}
        # checkedAt moves once a minute.
        quiet = changed <= {f"SendingDomain/{sending.name}"} and written() - writes <= len(changed)
        return "" if quiet else f"{changed}, {written() - writes} writes"

    # Tenants of the tests before this one are still being cleared away.
    eventually(lambda: kubectl.json("get", "tenant")["items"] == [kubectl.json("get", "tenant", sending.name)])
    eventually(lambda: sending.condition("Reconciling").get("status") == "False")
    # The first look at the EHLO name's records comes some seconds later, and is news.
    eventually(lambda: sending.condition("EgressRecordsPublished").get("reason") not in {None, "NotLookedUp"})
    said: list[str] = []
    while said[-2:] != ["", ""]:  # what was news may still be written down; after that there is none
        assert len(said) < 4, said
        said.append(written_in_a_dozen_looks())


def test_a_restarted_operator_writes_nothing_either(
    start: Start, sending_started: Tenancy, eventually: Eventually
) -> None:
    eventually(lambda: sending_started.condition("Reconciling").get("status") == "False")
    assert start.replicas[0].terminate() == 0
    again = start()
    eventually(lambda: again.metric("malote_operator_reconcile_seconds_count") > 8)
    assert again.metric('malote_operator_writes_total{kind="StatefulSet",verb="apply"}') == 0
    assert again.metric('malote_operator_writes_total{kind="Secret",verb="apply"}') == 0
    assert again.metric('malote_operator_writes_total{kind="Secret",verb="create"}') == 0
    eventually(sending_started.ready)


def test_credentials_are_withdrawn_from_a_namespace_that_is_no_longer_listed(
    operator: Replica, tenancies: Callable[[], Tenancy], eventually: Eventually, kubectl: Kubectl
) -> None:
    acme = tenancies()
    other = f"{acme.namespace}-b"
    acme.apply(acme.plan(maxAccounts=2), acme.tenant(namespaces=[acme.namespace, other], accounts=[{"name": "app"}]))
    eventually(lambda: acme.child("secret", f"{acme.name}-smtp-app", acme.namespace))
    # The second namespace does not exist yet: that is said, and hinders nothing else.
    eventually(lambda: acme.condition("RelayAvailable").get("status") == "True")
    kubectl("create", "namespace", other)
    try:
        eventually(lambda: acme.child("secret", f"{acme.name}-smtp-app", other))
        acme.apply(acme.tenant(accounts=[{"name": "app"}, {"name": "news", "class": "Bulk"}]))
        eventually(lambda: not kubectl("get", "secret", f"{acme.name}-smtp-app", "-n", other, "--ignore-not-found"))
        eventually(lambda: acme.child("secret", f"{acme.name}-smtp-news", acme.namespace))
        acme.apply(acme.tenant())
        gone = f"{acme.name}-smtp-news"
        for namespace in (acme.namespace, acme.platform.relays):
            eventually(
                lambda namespace=namespace: not kubectl("get", "secret", gone, "-n", namespace, "--ignore-not-found")
            )
        assert acme.child("secret", f"{acme.name}-smtp-app", acme.namespace)
    finally:
        kubectl("delete", "namespace", other, "--wait=false")
