"""The true operator as a process, with the chart's rights, on the session's API server and process node."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from malote_dev.controlplane import ControlPlane
from malote_dev.mailworld.dns import DnsServer
from malote_dev.toolchain import Toolchain

if TYPE_CHECKING:
    from tests.integration.conftest import Kubectl, LoopThread

ROOT = Path(__file__).parents[3]
Eventually = Callable[..., Any]
Object = dict[str, Any]


@pytest.fixture(scope="session")
def dns(cluster_loop: LoopThread) -> DnsServer:
    """The made-up Internet's name server."""
    return cluster_loop.enter(DnsServer("127.0.0.1"))


def data(secret: Object) -> dict[str, str]:
    """What a Secret holds, decoded."""
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


@dataclass
class Platform:
    """One installation: its namespaces and its rights."""

    namespace: str
    relays: str
    server: str
    authority: Path
    token: Path
    settings: Path

    def kubeconfig(self, path: Path, server: str = "") -> Path:
        """A kubeconfig of the operator's service account, for the API server or for something in front of it."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "op", "namespace": self.namespace}}],
            "clusters": [
                {
                    "name": "here",
                    "cluster": {"server": server or self.server, "certificate-authority": str(self.authority)},
                }
            ],
            "users": [{"name": "op", "user": {"tokenFile": str(self.token)}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path


@pytest.fixture(scope="session")
def crds(kubectl: Kubectl) -> None:
    kubectl.serve(ROOT / "crds")


@pytest.fixture(scope="module")
def platform(
    crds: None,
    kubectl: Kubectl,
    control_plane: ControlPlane,
    toolchain: Toolchain,
    dns: DnsServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Platform]:
    """Namespaces, the chart's roles, and settings that point at the made-up Internet."""
    mark = secrets.token_hex(3)
    namespace, relays = f"malote-{mark}", f"relays-{mark}"
    directory = tmp_path_factory.mktemp("platform")
    kubectl("create", "namespace", namespace)
    kubectl("create", "namespace", relays)
    roles = subprocess.run(
        [
            *(toolchain["helm"], "template", "malote", ROOT / "charts/malote", "--namespace", namespace),
            *("--show-only", "templates/rbac-operator.yaml", "--kube-version", "1.34.4"),
            *("--set", f"relayNamespace.name={relays}"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    kubectl("apply", "-f", "-", stdin=roles)
    token = directory / "token"
    token.write_text(kubectl("create", "token", "malote-operator", "-n", namespace, "--duration=1h"))
    admin = yaml.safe_load(control_plane.kubeconfig.read_text())["clusters"][0]["cluster"]
    authority = directory / "ca.crt"
    if "certificate-authority-data" in admin:
        authority.write_bytes(base64.b64decode(admin["certificate-authority-data"]))
    else:
        authority.write_bytes((control_plane.kubeconfig.parent / admin["certificate-authority"]).read_bytes())
    settings = directory / "settings.yaml"
    settings.write_text(
        yaml.safe_dump(
            {
                "relayNamespace": relays,
                "resyncSeconds": 4.0,
                "dns": {
                    "nameservers": [dns.address],
                    "port": dns.port,
                    "allowNetworks": ["127.0.0.0/8"],
                    "pendingRecheck": 1.0,
                    "verifiedRecheck": 2.0,
                },
                "egress": {"allowNetworks": ["127.0.0.0/8"]},
                "relay": {"nameservers": [dns.address], "dnsPort": dns.port},
            }
        )
    )
    yield Platform(namespace, relays, admin["server"], authority, token, settings)
    kubectl("delete", "namespace", namespace, relays, "--wait=false")


@dataclass
class Replica:
    """A running operator."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path

    def metric(self, name: str) -> float:
        """A sample's value, by its name with labels as in the exposition; the sum of all with that name otherwise."""
        with urllib.request.urlopen(f"http://{self.address}:8080/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}:8080/readyz", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@dataclass
class Start:
    """Starts replicas, and ends them with the test."""

    platform: Platform
    directory: Path
    replicas: list[Replica] = field(default_factory=list)
    settings: Object = field(default_factory=dict)
    """What differs from the platform's settings, by section."""

    def __call__(self, server: str = "", *, wait: bool = True) -> Replica:
        number = len(self.replicas)
        address = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(256)}.{secrets.randbelow(250) + 2}"
        config = self.platform.kubeconfig(self.directory / f"kubeconfig-{number}", server)
        log = self.directory / f"operator-{number}.log"
        settings = self.directory / f"settings-{number}.yaml"
        whole = yaml.safe_load(self.platform.settings.read_text())
        for section, values in self.settings.items():
            whole[section] = whole.get(section, {}) | values
        settings.write_text(yaml.safe_dump(whole))
        with log.open("wb") as output:
            process = subprocess.Popen(
                [Path(sys.executable).parent / "malote-operator", "--settings", settings],
                env=os.environ
                | {"KUBECONFIG": str(config), "MALOTE_LISTEN": address, "POD_NAMESPACE": self.platform.namespace},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        replica = Replica(process, address, log)
        self.replicas.append(replica)
        deadline = time.monotonic() + 90
        while wait and not replica.ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        return replica


@pytest.fixture
def start(platform: Platform, tmp_path: Path) -> Iterator[Start]:
    starter = Start(platform, tmp_path)
    yield starter
    for replica in starter.replicas:
        if replica.process.poll() is None:
            try:
                replica.terminate()
            except subprocess.TimeoutExpired:
                replica.process.kill()
                replica.process.wait()


@pytest.fixture
def operator(start: Start) -> Replica:
    """One replica, ready."""
    return start()


@dataclass
class Tenancy:
    """A tenant of this test alone: manifests to apply, and looks at what came of them."""

    name: str
    namespace: str
    domain: str
    kubectl: Kubectl
    platform: Platform
    dns: DnsServer

    def plan(self, **spec: Any) -> Object:
        return self._object("Plan", self.name, {"messagesPerHour": 3000, **spec})

    def tenant(self, **spec: Any) -> Object:
        common: Object = {
            "planRef": {"name": self.name},
            "namespaces": [self.namespace],
            "approval": {"approved": True, "termsVersion": "2026-10", "acceptedAt": "2026-10-01T00:00:00Z"},
            "contact": {"name": "Ana", "email": f"ana@{self.domain}", "language": "pt-BR"},
            "accounts": [{"name": "app"}],
        }
        return self._object("Tenant", self.name, common | spec)

    def sending_domain(self, namespace: str = "", **spec: Any) -> Object:
        body = self._object(
            "SendingDomain", self.name, {"tenantRef": {"name": self.name}, "domain": self.domain, **spec}
        )
        body["metadata"]["namespace"] = namespace or self.namespace
        return body

    def apply(self, *objects: Object) -> None:
        self.kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(one) for one in objects))

    def status(self, kind: str = "tenant") -> Object:
        where = ("-n", self.namespace) if kind == "sendingdomain" else ()
        status: Object = self.kubectl.json("get", kind, self.name, *where).get("status", {})
        return status

    def condition(self, condition: str, kind: str = "tenant") -> Object:
        """A condition; {} while there is none."""
        return next((one for one in self.status(kind).get("conditions", ()) if one["type"] == condition), {})

    def reason(self, kind: str = "tenant") -> str:
        reason: str = self.condition("Ready", kind).get("reason", "")
        return reason

    def ready(self) -> bool:
        return bool(self.condition("Ready").get("status") == "True")

    def records(self) -> list[Object]:
        records: list[Object] = self.status("sendingdomain").get("records", [])
        return records

    def publish(self, *purposes: str) -> None:
        """Do what the tenant does: publish the records, or some of them, exactly as the status shows them."""
        self.dns.add_zone(self.domain)
        for record in self.records():
            if not purposes or record["purpose"] in purposes:
                self.dns.set(record["name"], record["type"], record["value"])

    def sends(self, eventually: Eventually) -> Tenancy:
        """Bring it to where it can send."""
        self.apply(self.plan(), self.tenant(), self.sending_domain())
        eventually(self.records)
        self.publish()
        eventually(self.ready)
        return self

    def child(self, kind: str, name: str, namespace: str = "") -> Object:
        return self.kubectl.json("get", kind, name, "-n", namespace or self.platform.relays)

    def children(self) -> list[Object]:
        """Everything with the tenant's label in the relay namespace."""
        kinds = "statefulset,service,networkpolicy,secret,configmap,pod,pvc"
        items: list[Object] = self.kubectl.json(
            "get", kinds, "-n", self.platform.relays, "-l", f"malote.dev/tenant={self.name}"
        )["items"]
        return items

    @staticmethod
    def _object(kind: str, name: str, spec: Object) -> Object:
        return {"apiVersion": "malote.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def tenancies(
    platform: Platform, kubectl: Kubectl, dns: DnsServer, process_node: object, namespace: str
) -> Iterator[Callable[[], Tenancy]]:
    """Makes tenants that are gone after the test."""
    made: list[Tenancy] = []

    def make() -> Tenancy:
        name = f"t{secrets.token_hex(3)}"
        made.append(Tenancy(name, namespace, f"{name}.example", kubectl, platform, dns))
        return made[-1]

    yield make
    for one in made:
        kubectl("delete", "tenant,plan", one.name, "--ignore-not-found", "--wait=false")
        kubectl("delete", "sendingdomain", one.name, "-n", one.namespace, "--ignore-not-found", "--wait=false")
        kubectl("delete", "domainclaim", one.domain, "--ignore-not-found", "--wait=false")


@pytest.fixture
def acme(tenancies: Callable[[], Tenancy]) -> Tenancy:
    return tenancies()


@pytest.fixture
def sending(acme: Tenancy, eventually: Eventually) -> Tenancy:
    """A tenant that can send."""
    return acme.sends(eventually)
