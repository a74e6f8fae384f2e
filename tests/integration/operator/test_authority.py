"""The authority that clients trust outlives what is deleted by mistake; its loss is told, never papered over."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.operator.conftest import data

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.conftest import Kubectl
    from tests.integration.operator.conftest import Eventually, Start, Tenancy

pytestmark = pytest.mark.cluster

HEADER = "-----BEGIN CERTIFICATE-----"


def test_the_authority_comes_back_and_its_loss_is_told_and_breaks_no_client(
    start: Start, tenancies: Callable[[], Tenancy], eventually: Eventually, kubectl: Kubectl
) -> None:
    acme, bolt = tenancies(), tenancies()
    relays = acme.platform.relays
    first = start()

    def secret(name: str, namespace: str = relays) -> dict[str, str]:
        return data(kubectl.json("get", "secret", name, "-n", namespace))

    def trusted() -> str:
        text: str = kubectl.json("get", "configmap", "malote-ca", "-n", relays)["data"]["ca.crt"]
        return text

    def lost() -> list[dict[str, Any]]:
        events = kubectl.json("get", "events", "-n", relays)["items"]
        return [one for one in events if one["reason"] == "AuthorityLost"]

    acme.apply(acme.plan(), acme.tenant(), acme.sending_domain())
    eventually(lambda: acme.condition("RelayAvailable").get("status") == "True")
    authority, certificate, known = secret("malote-ca"), secret(f"{acme.name}-tls"), trusted()
    assert known == authority["tls.crt"]

    # Deleted while an operator runs: both come back as they were.
    kubectl("delete", "secret", "malote-ca", "-n", relays)
    kubectl("delete", "configmap", "malote-ca", "-n", relays)
    eventually(lambda: secret("malote-ca") == authority)
    eventually(lambda: trusted() == known)

    # What others write into the list of trusted certificates does not stay there.
    patch = json.dumps({"data": {"ca.crt": known + certificate["tls.crt"]}})
    kubectl("patch", "configmap", "malote-ca", "-n", relays, "-p", patch)
    eventually(lambda: trusted() == known)

    # Deleted while none runs: what it issued stays in use, and the loss is told.
    backup = kubectl.json("get", "secret", "malote-ca", "-n", relays)
    assert first.terminate() == 0
    kubectl("delete", "secret", "malote-ca", "-n", relays)
    second = start()
    eventually(lost)
    eventually(lambda: acme.condition("Reconciling").get("status") == "False")
    assert secret(f"{acme.name}-tls") == certificate
    assert not kubectl("get", "secret", "malote-ca", "-n", relays, "--ignore-not-found"), "no other one silently"
    assert second.process.poll() is None

    # Restored from a backup, as tools do it: taken as it is.
    for part in ("uid", "resourceVersion", "creationTimestamp", "managedFields"):
        backup["metadata"].pop(part, None)
    kubectl("create", "-f", "-", stdin=json.dumps(backup))
    eventually(lambda: "malote-operator" in _managers(kubectl, relays))
    assert secret("malote-ca") == authority

    # Lost for good, and a certificate has to be issued: another authority, and both are trusted.
    assert second.terminate() == 0
    kubectl("delete", "secret", "malote-ca", "-n", relays)
    start()
    bolt.apply(bolt.plan(), bolt.tenant())
    eventually(lambda: bolt.condition("RelayAvailable").get("status") == "True")
    another = secret("malote-ca")
    assert another["tls.crt"] != authority["tls.crt"]
    assert trusted() == another["tls.crt"] + authority["tls.crt"]
    assert secret(f"{acme.name}-tls") == certificate, "clients that trust the old one alone go on as before"
    for one in (acme, bolt):
        name = f"{one.name}-smtp-app"
        eventually(lambda one=one, name=name: secret(name, one.namespace)["certificates"].count(HEADER) == 2)
    eventually(lambda: "another authority was made" in "".join(one["message"] for one in lost()))


def _managers(kubectl: Kubectl, namespace: str) -> set[str]:
    text = kubectl("get", "secret", "malote-ca", "-n", namespace, "-o", "json", "--show-managed-fields")
    return {one["manager"] for one in json.loads(text)["metadata"].get("managedFields", ())}
