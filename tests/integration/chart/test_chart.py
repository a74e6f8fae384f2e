"""What the chart installs, what it keeps, and what it tells those who install it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.chart.conftest import CHART, RELAYS, RELEASE, ROOT, Chart


class TestInstalled:
    def test_the_api_server_serves_every_kind(self, installed: Chart, eventually: Callable[..., Any]) -> None:
        kinds = [yaml.safe_load(file.read_text()) for file in (ROOT / "crds").glob("*.yaml")]
        assert len(kinds) == 4
        for kind in kinds:  # each of them a moment after it was installed
            plural = kind["spec"]["names"]["plural"]
            eventually(lambda plural=plural: installed.kubectl("get", plural).returncode == 0)

    def test_a_kind_is_installed_as_the_repository_has_it(self, installed: Chart) -> None:
        rendered = {d["metadata"]["name"]: d["spec"] for d in installed.render() if "CustomResource" in d["kind"]}
        for file in (ROOT / "crds").glob("*.yaml"):
            kind = yaml.safe_load(file.read_text())
            assert rendered[kind["metadata"]["name"]] == kind["spec"]

    def test_the_relay_namespace_refuses_a_pod_that_is_not_restricted(
        self, installed: Chart, eventually: Callable[..., Any]
    ) -> None:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "intruder", "namespace": RELAYS},
            "spec": {"containers": [{"name": "c", "image": "x"}]},
        }

        def refusal() -> str:
            answer = installed.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
            assert answer.returncode != 0
            return answer.stderr

        # Without a service account, which a new namespace gets a moment later, it is refused for that.
        eventually(lambda: 'violates PodSecurity "restricted' in refusal())

    def test_the_operators_pod_would_pass_restricted(self, installed: Chart, eventually: Callable[..., Any]) -> None:
        template = json.loads(
            installed.kubectl("get", "deployment", "malote-operator", "-n", RELEASE, "-o", "json").stdout
        )
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "operator", "namespace": RELAYS},
            "spec": {**template["spec"]["template"]["spec"], "serviceAccountName": "default"},
        }
        done = eventually(
            lambda: installed.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod)).stdout
        )
        assert "created (server dry run)" in done

    def test_all_optional_parts_are_valid_objects(self, installed: Chart) -> None:
        options = [
            "--set",
            "networkPolicy.enabled=true",
            "--set",
            "networkPolicy.from[0].podSelector.matchLabels.a=b",
        ]
        documents = [d for d in installed.render(*options) if not d["apiVersion"].startswith("monitoring")]
        answer = installed.kubectl(
            "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-",
            stdin="\n---\n".join(json.dumps(d) for d in documents),
        )  # fmt: skip
        assert answer.returncode == 0, answer.stderr

    def test_uninstalling_keeps_the_kinds_and_the_mail(self, chart: Chart, installed: Chart) -> None:
        documents = installed.render()
        kept = {
            (d["kind"], d["metadata"]["name"])
            for d in documents
            if d["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep"
        }
        assert ("Namespace", RELAYS) in kept
        assert {name for kind, name in kept if kind == "CustomResourceDefinition"} == {
            f"{plural}.malote.dev" for plural in ("plans", "tenants", "sendingdomains", "domainclaims")
        }

    def test_what_was_kept_is_taken_over_by_the_next_installation(self, installed: Chart) -> None:
        removed = installed.helm("uninstall", "malote", "-n", RELEASE, "--wait")
        assert removed.returncode == 0, removed.stderr
        assert installed.kubectl("get", "namespace", RELAYS).returncode == 0
        again = installed.helm("install", "malote", str(CHART), "-n", RELEASE)
        assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("networkPolicy.enabled=false", False),
        ("networkPolicy.enabled=true", True),
        ("networkPolicy.enabled=true,networkPolicy.from[0].podSelector.matchLabels.a=b", False),
    ],
)
def test_who_shuts_out_prometheus_is_told_so(chart: Chart, given: str, said: bool) -> None:
    options = ("-n", RELEASE, "--dry-run=client", "--set", given)
    done = chart.helm("install", "malote", str(CHART), *options)
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert "kubectl get plans,tenants" in notes
    assert ("nothing can read the operator's metrics" in notes) is said


def test_the_packaged_chart_holds_the_kinds(chart: Chart, tmp_path: Path) -> None:
    """The kinds are reached by a symbolic link, which a packaged chart must not be."""
    done = chart.helm("package", str(CHART), "-d", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tgz")
    rendered = chart.helm("template", "malote", str(archive), "-n", RELEASE, "--kube-version=1.34.4").stdout
    assert rendered.count("kind: CustomResourceDefinition") == 4


def test_the_chart_has_nothing_to_complain_about(chart: Chart) -> None:
    done = chart.helm("lint", "--strict", str(CHART), "--set", "metrics.prometheusRule.enabled=true")
    assert done.returncode == 0, done.stdout


def test_monitoring_objects_select_what_the_chart_and_the_operator_make(chart: Chart) -> None:
    documents = chart.render("--set", "metrics.podMonitor.enabled=true,metrics.prometheusRule.enabled=true")
    (deployment,) = [d for d in documents if d["kind"] == "Deployment"]
    monitors = {d["metadata"]["name"]: d for d in documents if d["kind"] == "PodMonitor"}
    operator = monitors["malote-operator"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert operator["spec"]["selector"]["matchLabels"].items() <= labels.items()
    ports = [port["name"] for port in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]]
    assert operator["spec"]["podMetricsEndpoints"][0]["port"] in ports
    assert monitors["malote-relay"]["metadata"]["namespace"] == RELAYS
    (rule,) = [d for d in documents if d["kind"] == "PrometheusRule"]
    assert rule["spec"] == yaml.safe_load((CHART / "dashboards/alerts.yaml").read_text())
