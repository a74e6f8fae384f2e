"""The Helm chart on a real API server, with helm and kubectl to look at it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from malote_dev.controlplane import ControlPlane
from malote_dev.toolchain import Toolchain

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts/malote"
RELEASE = "malote-system"
RELAYS = "malote-relays"
OPERATOR = f"system:serviceaccount:{RELEASE}:malote-operator"


@dataclass
class Chart:
    """helm and kubectl on a control plane that no other test uses: the chart's names are fixed."""

    helm_program: Path
    kubectl_program: Path
    kubeconfig: Path
    home: Path

    def helm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        home = {f"HELM_{part}_HOME": str(self.home) for part in ("CACHE", "CONFIG", "DATA")}
        return subprocess.run(
            [self.helm_program, f"--kubeconfig={self.kubeconfig}", *arguments],
            env={**os.environ, **home},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def render(self, *options: str) -> list[dict[str, Any]]:
        done = self.helm("template", "malote", str(CHART), "-n", RELEASE, "--kube-version=1.34.4", *options)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    def refusal(self, *options: str) -> str:
        done = self.helm("template", "malote", str(CHART), "-n", RELEASE, "--kube-version=1.34.4", *options)
        assert done.returncode != 0, f"accepted: {options}"
        return done.stderr

    def kubectl(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.kubectl_program, f"--kubeconfig={self.kubeconfig}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def allows(self, user: str, verb: str, resource: str, namespace: str) -> bool:
        """`kubectl auth can-i`; namespace "*" asks for the whole cluster."""
        place = ["--all-namespaces"] if namespace == "*" else ["--namespace", namespace]
        # To kubectl, KIND/NAME is an object: a subresource has an option of its own.
        kind, _, subresource = resource.partition("/")
        answer = self.kubectl("auth", "can-i", verb, kind, f"--subresource={subresource}", "--as", user, *place)
        assert answer.stdout.strip() in {"yes", "no"}, answer.stderr
        return answer.stdout.strip() == "yes"


@pytest.fixture(scope="session")
def chart(toolchain: Toolchain, cluster_loop: Any, tmp_path_factory: pytest.TempPathFactory) -> Chart:
    plane = cluster_loop.enter(ControlPlane(toolchain, tmp_path_factory.mktemp("chart")))
    return Chart(toolchain["helm"], toolchain["kubectl"], plane.kubeconfig, tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def installed(chart: Chart) -> Chart:
    done = chart.helm("install", "malote", str(CHART), "-n", RELEASE, "--create-namespace")
    assert done.returncode == 0, done.stderr
    for namespace in ("acme", "globex"):
        assert chart.kubectl("create", "namespace", namespace).returncode == 0
    bound = ["--clusterrole=edit", "--user=ana", "--namespace=acme"]
    assert chart.kubectl("create", "rolebinding", "ana", *bound).returncode == 0
    bound = ["--clusterrole=malote-platform-admin", "--user=platform"]
    assert chart.kubectl("create", "clusterrolebinding", "platform", *bound).returncode == 0
    return chart
