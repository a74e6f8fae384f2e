"""One real node for the session, with the platform installed on it and the made-up Internet around it.

Everything is inside the node's network namespace, and so is the session's thread: tests reach Services, pods and
the cluster's DNS as the node does, and nothing else.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from malote_dev import toolchain
from malote_dev.mailworld.client import Endpoint, Security
from malote_dev.realnode import images, internet, node
from malote_dev.realnode.commands import CommandError
from malote_dev.realnode.internet import Internet
from malote_dev.realnode.node import RealNode
from malote_dev.realnode.zones import quoted

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "malote:e2e"
RELEASE = "malote-system"
RELAYS = "malote-relays"

T = TypeVar("T")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the pods said last: when the run has ended, they are gone."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(cluster, RealNode):
        for namespace in (RELEASE, RELAYS, internet.NAMESPACE):
            with contextlib.suppress(CommandError):
                report.sections.append((f"pods in {namespace}", cluster.kubectl("get", "pods", "-n", namespace)))
                for pod in cluster.get("pods", "-n", namespace)["items"]:
                    name = pod["metadata"]["name"]
                    said = cluster.kubectl("logs", "-n", namespace, name, "--tail=25")
                    report.sections.append((f"{namespace}/{name}", said))
    return report


@pytest.fixture(scope="session")
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Shows progress whatever pytest captures: building and starting take minutes the first time."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    started = time.monotonic()

    def show(line: str) -> None:
        with capture.global_and_fixture_disabled():
            sys.stderr.write(f"\n[{time.monotonic() - started:6.1f} s] {line}")
            sys.stderr.flush()

    return show


@pytest.fixture(scope="session")
def cluster(say: Callable[[str], None], request: pytest.FixtureRequest) -> Iterator[RealNode]:
    if os.geteuid() != 0:
        pytest.exit("the end-to-end tests run a real node: run them as root, with `make e2e`", returncode=2)
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        programs = node.find_programs()
    built = images.Builder(ROOT, toolchain.cache_directory(), say).all(IMAGE)
    with node.running(built, programs, say) as running:
        say(f"the node is ready; its state and logs are in {running.state}")
        with running.namespace.inside():
            yield running


@pytest.fixture(scope="session")
def world(cluster: RealNode, say: Callable[[str], None]) -> Internet:
    say("starting the made-up Internet's mail hosts")
    return internet.bring_up(cluster)


@dataclass
class Platform:
    """The platform team's hands: helm and kubectl on the node, and the values it installed with."""

    node: RealNode
    values: Path

    def helm(self, *arguments: str) -> str:
        return self.node.helm(*arguments, "-n", RELEASE)

    def upgrade(self, *settings: str) -> None:
        """`helm upgrade --set …`, waited for."""
        sets = [part for setting in settings for part in ("--set", setting)]
        self.helm("upgrade", "malote", str(ROOT / "charts/malote"), "-f", str(self.values), *sets, "--wait")

    def secret(self, name: str, namespace: str) -> dict[str, str]:
        data = self.node.get("secret", name, "-n", namespace)["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}


@pytest.fixture(scope="session")
def platform(
    cluster: RealNode, world: Internet, say: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Platform:
    """Malote installed as its README says."""
    say("helm install")
    values = tmp_path_factory.mktemp("platform") / "values.yaml"
    values.write_text(json.dumps(internet.chart_values(IMAGE)))
    platform = Platform(cluster, values)
    platform.helm(
        "install", "malote", str(ROOT / "charts/malote"), "-f", str(values), "--create-namespace", "--wait",
        "--timeout", "120s",
    )  # fmt: skip
    return platform


def condition(found: dict[str, Any], kind: str) -> dict[str, str]:
    conditions = found.get("status", {}).get("conditions", [])
    return next((item for item in conditions if item["type"] == kind), {"status": "", "reason": "", "message": ""})


def until(look: Callable[[], T | None], what: str, within: float) -> T:
    """What *look* gives once it is something true. Raises AssertionError after *within* seconds."""
    deadline = time.monotonic() + within
    while not (seen := look()):
        assert time.monotonic() < deadline, f"waited {within:.0f} s for {what}"
        time.sleep(0.2)
    return seen


@dataclass(frozen=True)
class Application:
    """What a tenant's application is given: its Secret."""

    tenant: str
    domain: str
    secret: dict[str, str]
    ca_file: Path
    address: str

    def endpoint(self, security: Security = Security.STARTTLS) -> Endpoint:
        port = 465 if security is Security.TLS else int(self.secret["port"])
        return Endpoint(self.secret["host"], port, security, self.ca_file, self.address)


@dataclass(frozen=True)
class Tenants:
    """Both tenants' first applications, and how long their way took in seconds."""

    acme: Application
    globex: Application
    records_shown: float
    ready: float


@pytest.fixture(scope="session")
def applied(platform: Platform, world: Internet, say: Callable[[str], None]) -> float:
    """examples/ applied, each domain shows its records; how long that took."""
    say("applying examples/")
    for domain in ("acme.example", "globex.example"):
        # What was there before Malote: the domain's mail is at its office provider.
        platform.node.zones.set(
            domain,
            [f"@ IN MX 10 mx.{internet.OFFICE}.", f'@ IN TXT "v=spf1 include:_spf.{internet.OFFICE} ~all"'],
        )
    world.office.mailboxes(
        *(f"{name}@{tenant}.example" for name in ("hello", "ana") for tenant in ("acme", "globex"))
    )
    started = time.monotonic()
    platform.node.kubectl("apply", "-f", str(ROOT / "examples"))
    until(lambda: _records_are_shown(platform.node), "the records to paste", within=90)
    return time.monotonic() - started


@pytest.fixture(scope="session")
def tenants(
    platform: Platform, applied: float, say: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Tenants:
    """The tenants have published what their domains' status shows, word for word, and are Ready."""
    say("publishing the records")
    cluster = platform.node
    for domain in cluster.get("sendingdomains", "-A")["items"]:
        zone = domain["spec"]["domain"]
        cluster.zones.drop(zone, '@ IN TXT "v=spf1')
        for record in domain["status"]["records"]:
            cluster.zones.add(zone, f"{record['name']}. IN {record['type']} {quoted(record['value'])}")
    started = time.monotonic()
    until(lambda: _all_ready(cluster), "the tenants to be Ready", within=120)
    ready = time.monotonic() - started
    folder = tmp_path_factory.mktemp("applications")
    return Tenants(
        _application(platform, "acme", "app", folder), _application(platform, "globex", "web", folder), applied, ready
    )


def _application(platform: Platform, tenant: str, account: str, folder: Path) -> Application:
    secret = platform.secret(f"{tenant}-smtp-{account}", tenant)
    service = platform.node.get("service", f"{tenant}-relay", "-n", RELAYS)
    address = str(service["spec"]["clusterIP"])
    # The platform's part: the endpoint's name leads to the relay's Service.
    host, zone = secret["host"], internet.PLATFORM
    platform.node.zones.add(zone, f"{host}. IN A {address}")
    ca_file = folder / f"{tenant}.crt"
    ca_file.write_text(secret["certificates"])
    return Application(tenant, f"{tenant}.example", secret, ca_file, address)


def _records_are_shown(cluster: RealNode) -> bool:
    domains = cluster.get("sendingdomains", "-A")["items"]
    return len(domains) == 2 and all(len(domain.get("status", {}).get("records", [])) == 3 for domain in domains)


def _all_ready(cluster: RealNode) -> bool:
    tenants = cluster.get("tenants")["items"]
    return len(tenants) == 2 and all(condition(tenant, "Ready")["status"] == "True" for tenant in tenants)
