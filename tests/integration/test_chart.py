"""The Helm chart on a real API server: what it installs, what its roles allow and forbid, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from malote_dev.controlplane import ControlPlane
from malote_dev.toolchain import Toolchain
from malote_operator import settings

ROOT = Path(__file__).resolve().parents[2]
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
            timeout=120,
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
            timeout=60,
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


@pytest.fixture(scope="module")
def chart(toolchain: Toolchain, cluster_loop: Any, tmp_path_factory: pytest.TempPathFactory) -> Chart:
    plane = cluster_loop.enter(ControlPlane(toolchain, tmp_path_factory.mktemp("chart")))
    return Chart(toolchain["helm"], toolchain["kubectl"], plane.kubeconfig, tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="module")
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


def settings_of(documents: list[dict[str, Any]]) -> settings.Settings:
    (found,) = [
        d for d in documents if d["kind"] == "ConfigMap" and d["metadata"]["name"] == "malote-operator-settings"
    ]
    return msgspec.yaml.decode(found["data"]["settings.yaml"], type=settings.Settings)


class TestInstalled:
    def test_the_api_server_serves_every_kind(self, installed: Chart) -> None:
        kinds = [yaml.safe_load(file.read_text()) for file in (ROOT / "crds").glob("*.yaml")]
        assert len(kinds) == 4
        for kind in kinds:
            assert installed.kubectl("get", kind["spec"]["names"]["plural"]).returncode == 0

    def test_a_kind_is_installed_as_the_repository_has_it(self, installed: Chart) -> None:
        rendered = {d["metadata"]["name"]: d["spec"] for d in installed.render() if "CustomResource" in d["kind"]}
        for file in (ROOT / "crds").glob("*.yaml"):
            kind = yaml.safe_load(file.read_text())
            assert rendered[kind["metadata"]["name"]] == kind["spec"]

    def test_the_relay_namespace_refuses_a_pod_that_is_not_restricted(self, installed: Chart) -> None:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "intruder", "namespace": RELAYS},
            "spec": {"containers": [{"name": "c", "image": "x"}]},
        }
        answer = installed.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
        assert answer.returncode != 0
        assert 'violates PodSecurity "restricted' in answer.stderr

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


MAY = [
    ("watch", "tenants.malote.dev", "*"),
    ("list", "plans.malote.dev", "*"),
    ("watch", "sendingdomains.malote.dev", "*"),
    ("patch", "tenants.malote.dev/status", "*"),
    ("patch", "sendingdomains.malote.dev/status", "*"),
    ("create", "domainclaims.malote.dev", "*"),
    ("delete", "domainclaims.malote.dev", "*"),
    ("create", "events.events.k8s.io", "acme"),
    ("get", "secrets", "acme"),
    ("create", "secrets", "acme"),
    ("patch", "secrets", "acme"),
    ("delete", "secrets", "acme"),
    ("create", "statefulsets.apps", RELAYS),
    ("create", "services", RELAYS),
    ("patch", "pods", RELAYS),
    ("create", "networkpolicies.networking.k8s.io", RELAYS),
    ("patch", "configmaps", RELAYS),
    ("delete", "persistentvolumeclaims", RELAYS),
    ("create", "leases.coordination.k8s.io", RELEASE),
    ("update", "leases.coordination.k8s.io", RELEASE),
]
MAY_NOT = [
    # Discover Secrets anywhere, its own namespaces included.
    ("list", "secrets", "*"),
    ("watch", "secrets", "*"),
    ("list", "secrets", RELAYS),
    ("list", "secrets", "kube-system"),
    # Write what people write.
    ("create", "tenants.malote.dev", "*"),
    ("patch", "tenants.malote.dev", "*"),
    ("delete", "tenants.malote.dev", "*"),
    ("update", "tenants.malote.dev/finalizers", "*"),
    ("patch", "plans.malote.dev", "*"),
    ("patch", "sendingdomains.malote.dev", "acme"),
    ("update", "sendingdomains.malote.dev/finalizers", "acme"),
    ("delete", "sendingdomains.malote.dev", "acme"),
    # What it has no use for: a status comes with its object, an Event is written once.
    ("get", "tenants.malote.dev/status", "*"),
    ("get", "sendingdomains.malote.dev/status", "acme"),
    ("patch", "events.events.k8s.io", "acme"),
    # Run or enter anything.
    ("create", "pods", RELAYS),
    ("create", "pods/exec", RELAYS),
    ("create", "statefulsets.apps", "acme"),
    ("create", "deployments.apps", RELEASE),
    ("get", "pods", "acme"),
    ("get", "configmaps", "acme"),
    ("create", "services", "acme"),
    ("delete", "persistentvolumeclaims", "acme"),
    # Reach further than it was given.
    ("create", "clusterrolebindings.rbac.authorization.k8s.io", "*"),
    ("escalate", "clusterroles.rbac.authorization.k8s.io", "*"),
    ("create", "rolebindings.rbac.authorization.k8s.io", RELAYS),
    ("create", "serviceaccounts/token", RELAYS),
    ("impersonate", "users", "*"),
    ("get", "nodes", "*"),
    ("list", "namespaces", "*"),
    ("patch", "customresourcedefinitions.apiextensions.k8s.io", "*"),
    ("update", "leases.coordination.k8s.io", "kube-system"),
]


class TestTheOperatorsRights:
    @pytest.mark.parametrize(("verb", "resource", "namespace"), MAY)
    def test_it_may(self, installed: Chart, verb: str, resource: str, namespace: str) -> None:
        assert installed.allows(OPERATOR, verb, resource, namespace)

    @pytest.mark.parametrize(("verb", "resource", "namespace"), MAY_NOT)
    def test_it_may_not(self, installed: Chart, verb: str, resource: str, namespace: str) -> None:
        assert not installed.allows(OPERATOR, verb, resource, namespace)

    def test_no_rule_has_a_wildcard(self, chart: Chart) -> None:
        roles = [
            d for d in chart.render("--set", "tls.mode=CertManager,tls.issuerName=x") if d["kind"].endswith("Role")
        ]
        assert len(roles) >= 6
        for role in roles:
            for rule in role["rules"]:
                assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], role["metadata"]["name"]

    def test_credentials_can_be_confined_to_named_namespaces(self, chart: Chart) -> None:
        documents = chart.render("--set", "rbac.credentialNamespaces={acme,globex}")
        bindings = [
            (d["kind"], d["metadata"].get("namespace"))
            for d in documents
            if d["kind"].endswith("Binding") and d["roleRef"]["name"] == "malote-operator-credentials"
        ]
        assert bindings == [("RoleBinding", "acme"), ("RoleBinding", "globex")]


class TestPeoplesRights:
    @pytest.mark.parametrize("verb", ["create", "patch", "delete", "list"])
    def test_a_tenant_writes_its_sending_domains(
        self, installed: Chart, eventually: Callable[..., Any], verb: str
    ) -> None:
        eventually(lambda: installed.allows("ana", verb, "sendingdomains.malote.dev", "acme"))

    @pytest.mark.parametrize(
        ("verb", "resource", "namespace"),
        [
            ("create", "sendingdomains.malote.dev", "globex"),
            ("patch", "sendingdomains.malote.dev/status", "acme"),
            ("create", "tenants.malote.dev", "*"),
            ("patch", "tenants.malote.dev", "*"),
            ("patch", "plans.malote.dev", "*"),
            ("create", "domainclaims.malote.dev", "*"),
            ("get", "secrets", RELAYS),
            ("get", "pods", RELAYS),
            ("get", "configmaps", RELAYS),
            ("get", "secrets", RELEASE),
        ],
    )
    def test_a_tenant_may_not(self, installed: Chart, verb: str, resource: str, namespace: str) -> None:
        assert not installed.allows("ana", verb, resource, namespace)

    @pytest.mark.parametrize("resource", ["plans", "tenants", "sendingdomains"])
    def test_the_platform_team_writes_plans_and_tenants(self, installed: Chart, resource: str) -> None:
        assert installed.allows("platform", "create", f"{resource}.malote.dev", "*")

    def test_the_platform_teams_role_gives_no_secrets(self, installed: Chart) -> None:
        assert not installed.allows("platform", "get", "secrets", RELAYS)


class TestSettings:
    def test_the_charts_defaults_are_the_operators(self, chart: Chart) -> None:
        assert settings_of(chart.render()) == settings.Settings()

    def test_every_setting_can_be_given(self, chart: Chart, tmp_path: Path) -> None:
        """Each field gets a value that is not its default, and the operator reads that very value."""
        given: dict[str, Any] = {
            "image": {
                "repository": "registry.example/malote",
                "tag": "1",
                "pullPolicy": "Always",
                "pullSecrets": ["s"],
            },
            "relayNamespace": {"name": "relays"},
            "endpoint": {"hostTemplate": "{tenant}.mail.test", "submissionPort": 1587, "submissionsPort": 1465},
            "dns": {
                "spfInclude": "spf.test",
                "dkimZone": "dkim.test",
                "dmarcPolicy": "v=DMARC1; p=reject",
                "nameservers": ["192.0.2.53"],
                "port": 5353,
                "allowNetworks": ["127.0.0.0/8"],
                "timeout": 1,
                "pendingRecheck": 2,
                "verifiedRecheck": 3,
                "gracePeriod": 4,
            },
            "egress": {
                "heloTemplate": "out.test",
                "sourceAddress": "2001:db8::1",
                "smtpPort": 2525,
                "allowNetworks": ["::1/128"],
            },
            "tls": {"mode": "CertManager", "secretName": "s", "issuerName": "i", "issuerKind": "Issuer"},
            "relay": {
                "resources": {"limits": {"memory": "1Gi"}},
                "storageClassName": "fast",
                "nameservers": ["192.0.2.54"],
                "dnsPort": 5354,
                "serviceType": "LoadBalancer",
                "serviceAnnotations": {"a": "b"},
                "config": {"limits": {"maxBodyBytesInFlight": 1_073_741_824}, "listen": {"processes": 2}},
                "credentialsSecret": "passwords",
                "keysSecret": "shared-keys",
                "nodeSelector": {"mail": "yes"},
                "terminationGraceSeconds": 30,
            },
            "operator": {"workers": 3, "resyncSeconds": 60},
            "notices": {
                "host": "mail.platform.example",
                "port": 465,
                "security": "TLS",
                "username": "malote",
                "fromAddress": "post@platform.example",
                "passwordSecret": {"name": "mail-password"},
            },
            "bounces": {"enabled": True, "port": 2525, "gracePeriod": 600},
            "rehearsal": {"clockOffsetSeconds": 3600},
        }
        values = tmp_path / "values.yaml"
        values.write_text(json.dumps(given))
        read = msgspec.to_builtins(settings_of(chart.render("-f", str(values))))
        defaults = msgspec.to_builtins(settings.Settings())
        # A dictionary with defaults of the chart's is merged by helm, as helm does.
        same = [path for path, value in leaves(read) if dict(leaves(defaults)).get(path) == value]
        # The password's file is named to the operator by its environment, as a mount path is where it is mounted.
        assert [p for p in same if not p.startswith(("relay.resources", "notices.passwordFile"))] == []
        assert read["image"]["reference"] == "registry.example/malote:1"
        assert read["rehearsal"]["clockOffsetSeconds"] == 3600
        assert read["relay"]["config"] == given["relay"]["config"]

    def test_a_changed_setting_starts_new_pods(self, chart: Chart) -> None:
        def checksum(*options: str) -> str:
            (found,) = [d for d in chart.render(*options) if d["kind"] == "Deployment"]
            return str(found["spec"]["template"]["metadata"]["annotations"]["checksum/settings"])

        assert checksum() == checksum()
        assert checksum() != checksum("--set", "rehearsal.clockOffsetSeconds=1")

    def test_the_notices_password_is_mounted_where_the_operator_is_told(self, chart: Chart) -> None:
        options = ("--set", "notices.passwordSecret.name=mail,notices.passwordSecret.key=token")
        documents = chart.render(*options)
        (pod,) = [d["spec"]["template"]["spec"] for d in documents if d["kind"] == "Deployment"]
        env = {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}
        (mount,) = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "notices"]
        (volume,) = [v for v in pod["volumes"] if v["name"] == "notices"]
        assert volume["secret"] == {"secretName": "mail", "items": [{"key": "token", "path": "password"}]}
        assert env["MALOTE_NOTICES_PASSWORD_FILE"] == f"{mount['mountPath']}/password"

    def test_a_digest_wins_over_the_tag(self, chart: Chart) -> None:
        digest = "sha256:" + "0" * 64
        assert settings_of(chart.render("--set", f"image.digest={digest}")).image.reference == f"malote@{digest}"


def leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [found for key, part in value.items() for found in leaves(part, f"{path}.{key}".lstrip("."))]
    return [(path, json.dumps(value))]


class TestRefusedValues:
    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ("dns.spfIncude=x", "additional properties 'spfIncude' not allowed"),
            ("tls.mode=operator", "must be one of 'Operator', 'Secret', 'CertManager'"),
            ("dns.gracePeriod=72h", "at '/dns/gracePeriod': got string, want number"),
            ("dns.port=70000", "at '/dns/port': maximum: got 70,000, want 65,535"),
            ("operator.replicas=0", "at '/operator/replicas': minimum: got 0, want 1"),
            ("operator.workers=0", "at '/operator/workers': minimum: got 0, want 1"),
            ("egress.allowNetworks={10.0.0.0}", "write a network in CIDR form, such as 10.0.0.0/8"),
            ("dns.nameservers={resolver}", "write an IPv4 or IPv6 address, such as 192.0.2.53"),
            ("endpoint.hostTemplate=smtp.example.net", "write a host name with {tenant} in it"),
            ("endpoint.hostTemplate=x\\{tenant\\}.Example.net.", "write a host name in lower case"),
            (
                "tls.mode=Secret",
                "name the Secret of type kubernetes.io/tls in namespace malote-relays in tls.secretName",
            ),
            ("tls.mode=CertManager", "name the issuer in tls.issuerName"),
            ("relay.config.delivry.maxConnections=5", "additional properties 'delivry' not allowed"),
            ("bounces.enabled=true,bounces.port=587", "write 25, or another port that leads to it"),
            ("notices.host=mail.test", "write the address that notices come from in notices.fromAddress"),
            ("notices.username=malote", "in namespace malote-system, in notices.passwordSecret.name"),
            ("relayNamespace.name=malote-system", "relays need one of their own, such as malote-relays"),
            ("dns.dmarcPolicy=p=none", "write a DMARC record, such as v=DMARC1; p=none"),
            ("image.digest=sha256:1", "write sha256: and 64 hexadecimal digits"),
        ],
    )
    def test_a_wrong_value_is_refused_with_what_to_write(self, chart: Chart, given: str, says: str) -> None:
        assert says in chart.refusal("--set", given)


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
