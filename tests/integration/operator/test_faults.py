"""What is wrong is said in conditions and events; an API server that goes away is waited for; one replica leads."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from tests.integration.operator.conftest import data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.conftest import Kubectl
    from tests.integration.operator.conftest import Eventually, Platform, Replica, Start, Tenancy

pytestmark = pytest.mark.cluster


class Line:
    """A TCP line to the API server that can be cut."""

    def __init__(self, server: str) -> None:
        self._target = (urlsplit(server).hostname or "", urlsplit(server).port or 443)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._cut = True
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._cut = False

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._cut:
                near.close()
                continue
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            self._open |= {near, far}
            if self._cut:  # meanwhile
                self.cut()
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    def _copy(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def line(platform: Platform) -> Iterator[Line]:
    one = Line(platform.server)
    yield one
    one.close()


def test_an_unknown_plan_is_a_reason_and_an_event_and_cures_itself_when_the_plan_comes(
    operator: Replica, acme: Tenancy, eventually: Eventually, kubectl: Kubectl
) -> None:
    acme.apply(acme.tenant(), acme.sending_domain())
    eventually(lambda: acme.reason() == "PlanNotFound")
    eventually(lambda: acme.reason("sendingdomain") == "PlanNotFound")

    def told() -> bool:
        events = kubectl.json("get", "events", "-n", "default")["items"]
        return any(one["involvedObject"]["name"] == acme.name and one["reason"] == "PlanNotFound" for one in events)

    eventually(told)
    assert acme.children() == []
    acme.apply(acme.plan())
    eventually(acme.records)


def test_a_domain_belongs_to_one_tenant_until_that_lets_it_go(
    operator: Replica, tenancies: Callable[[], Tenancy], eventually: Eventually, kubectl: Kubectl
) -> None:
    acme, bolt = tenancies(), tenancies()
    acme.domain = bolt.domain = f"shared-{acme.namespace}.example"
    acme.sends(eventually)
    bolt.apply(bolt.plan(), bolt.tenant(), bolt.sending_domain())
    eventually(lambda: bolt.reason("sendingdomain") == "DomainTaken")
    assert acme.name not in json.dumps(bolt.status("sendingdomain")), "who has it is nobody else's business"
    kubectl("delete", "sendingdomain", acme.name, "-n", acme.namespace)
    eventually(bolt.records)
    assert bolt.reason("sendingdomain") != "DomainTaken"


def test_more_domains_than_the_plan_allows_and_a_namespace_not_listed_are_refused(
    operator: Replica, acme: Tenancy, eventually: Eventually, kubectl: Kubectl
) -> None:
    acme.apply(acme.plan(), acme.tenant(), acme.sending_domain())
    eventually(acme.records)
    time.sleep(1.1)  # the older one counts, and the API server's times are whole seconds
    second = acme.sending_domain(domain=f"second.{acme.domain}")
    second["metadata"]["name"] = f"{acme.name}-second"
    elsewhere = acme.sending_domain(namespace="default", domain=f"third.{acme.domain}")
    acme.apply(second, elsewhere)

    def reason(name: str, namespace: str) -> str:
        conditions = kubectl.json("get", "sendingdomain", name, "-n", namespace)["status"]["conditions"]
        found: str = next((one["reason"] for one in conditions if one["type"] == "Accepted"), "")
        return found

    try:
        eventually(lambda: reason(f"{acme.name}-second", acme.namespace) == "TooManyDomains")
        eventually(lambda: reason(acme.name, "default") == "NamespaceNotAllowed")
    finally:
        kubectl("delete", "sendingdomain", acme.name, "-n", "default")


def test_very_many_domains_of_one_tenant_grow_no_configuration_and_keep_no_other_waiting(
    operator: Replica, tenancies: Callable[[], Tenancy], eventually: Eventually, kubectl: Kubectl
) -> None:
    flood, acme = tenancies(), tenancies()
    flood.apply(flood.plan(), flood.tenant())
    eventually(lambda: flood.condition("RelayAvailable").get("status") == "True")
    many = [flood.sending_domain(domain=f"d{number}.{flood.domain}") for number in range(300)]
    for number, one in enumerate(many):
        one["metadata"]["name"] = f"{flood.name}-{number}"
    flood.apply(*many)
    acme.apply(acme.plan(), acme.tenant(), acme.sending_domain())
    eventually(acme.records)
    acme.publish()
    eventually(acme.ready, within=120)
    eventually(lambda: operator.metric("malote_operator_leader") == 1)

    def refused() -> bool:
        items = kubectl.json("get", "sendingdomain", "-n", flood.namespace)["items"]
        reasons = [one["reason"] for item in items for one in item.get("status", {}).get("conditions", ())]
        return reasons.count("TooManyDomains") >= 299 * 2  # Ready and Accepted

    eventually(refused, within=120)
    told = json.loads(data(flood.child("secret", f"{flood.name}-relay"))["relay.json"])
    assert len(told["domains"]) == 1 + 20


def test_an_api_server_pulled_away_is_waited_for(
    line: Line, start: Start, acme: Tenancy, eventually: Eventually
) -> None:
    replica = start(line.url)
    acme.apply(acme.plan(), acme.tenant(), acme.sending_domain())
    eventually(acme.records)
    line.cut()
    acme.apply(acme.plan(messagesPerHour=7))
    # Without the Lease nobody works: its holder gives up in time.
    eventually(lambda: replica.metric("malote_operator_leader") == 0)
    assert replica.process.poll() is None
    line.mend()
    eventually(lambda: replica.metric("malote_operator_leader") == 1)
    acme.publish()
    eventually(acme.ready)
    assert replica.process.poll() is None


def test_of_two_replicas_one_works_and_the_other_takes_over(
    start: Start, acme: Tenancy, eventually: Eventually
) -> None:
    first = start()
    eventually(lambda: first.metric("malote_operator_leader") == 1)
    second = start()
    acme.apply(acme.plan(), acme.tenant(), acme.sending_domain())
    eventually(acme.records)
    assert second.metric("malote_operator_leader") == 0
    assert second.metric("malote_operator_writes_total") == 0, "a standby writes nothing"
    assert first.terminate() == 0
    lease = acme.kubectl.json("get", "lease", "malote-operator", "-n", acme.platform.namespace)
    assert not lease["spec"].get("holderIdentity", "").endswith(f"-{first.process.pid}"), "it need not run out"
    eventually(lambda: second.metric("malote_operator_leader") == 1)
    acme.publish()
    eventually(acme.ready)

    third = start()
    second.process.kill()
    second.process.wait()
    eventually(lambda: third.metric("malote_operator_leader") == 1, within=90)


def test_settings_that_cannot_be_used_are_an_error_for_people(tmp_path: Path) -> None:
    bad = tmp_path / "settings.yaml"
    bad.write_text("relayNamespace: relays\nworkerz: 3\n")
    done = subprocess.run(
        [Path(sys.executable).parent / "malote-operator", "--settings", bad],
        capture_output=True,
        text=True,
        env={**os.environ, "KUBECONFIG": "/nowhere"},
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "workerz" in done.stderr
    assert "Traceback" not in done.stderr
