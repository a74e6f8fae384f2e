"""Pods on the process node, seen through the API and through what their processes see."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from malote_dev.controlplane import ControlPlane
from malote_dev.processnode import ProcessNode

pytestmark = pytest.mark.cluster

Kubectl = Any
Eventually = Callable[..., Any]
Alive = Callable[[int], bool]
SLEEP = ["sleep", "300"]


def pod(name: str, *command: str, spec: dict[str, Any] | None = None, **container: Any) -> dict[str, Any]:
    main = {"name": "main", "image": "none", "command": list(command), **container}
    rest = {"terminationGracePeriodSeconds": 5, "containers": [main], **(spec or {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": rest}


class Cluster:
    """The session's cluster, seen from one namespace."""

    def __init__(self, kubectl: Kubectl, node: ProcessNode, namespace: str, eventually: Eventually) -> None:
        self.kubectl, self.node, self.namespace, self.eventually = kubectl, node, namespace, eventually

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl.apply(*objects, namespace=self.namespace)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        return self.kubectl.json("get", kind, name, "-n", self.namespace)  # type: ignore[no-any-return]  # kubectl is Any

    def delete(self, kind: str, name: str, *options: str) -> None:
        self.kubectl("delete", kind, name, "-n", self.namespace, *options)

    def log(self, name: str, container: str = "main") -> str:
        path = self.node.log(self.namespace, name, container)
        return path.read_text() if path.exists() else ""

    def ready(self, name: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            seen = self.get("pod", name)
            return seen if condition(seen, "Ready") == "True" else None

        return self.eventually(look)  # type: ignore[no-any-return]  # a fixture's callable

    def events(self, name: str) -> list[tuple[str, str]]:
        listed = self.kubectl.json("get", "events", "-n", self.namespace)["items"]
        return [(one["reason"], one["message"]) for one in listed if one["involvedObject"]["name"] == name]


def condition(pod: dict[str, Any], kind: str) -> str:
    found = [one["status"] for one in pod.get("status", {}).get("conditions", []) if one["type"] == kind]
    return str(found[0]) if found else "Unknown"


def container(pod: dict[str, Any]) -> dict[str, Any]:
    first: dict[str, Any] = pod["status"]["containerStatuses"][0]
    return first


@pytest.fixture
def cluster(kubectl: Kubectl, process_node: ProcessNode, namespace: str, eventually: Eventually) -> Cluster:
    return Cluster(kubectl, process_node, namespace, eventually)


def test_a_stateful_sets_pod_runs_becomes_ready_and_restarts_when_its_probe_fails(cluster: Cluster) -> None:
    """The whole way: claim bound, init container, readiness, a liveness probe that fails, a restart, ready again."""
    script = "echo start $(cat /data/init) >> /data/starts; rm -f /data/broken; touch /tmp/fine; exec sleep 300"
    # Generous time-outs: a probe that is late on a busy machine is no failure.
    often: dict[str, Any] = {"periodSeconds": 1, "timeoutSeconds": 30}
    intact = {"exec": {"command": ["sh", "-c", "test ! -e /data/broken"]}, **often}
    main = {
        "name": "main",
        "image": "none",
        "command": ["sh", "-c", script],
        "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/fine"]}, **often},
        # Without it a restarted container could be probed before it has removed the file, and restart once more.
        "startupProbe": {**intact, "failureThreshold": 30},
        "livenessProbe": {**intact, "failureThreshold": 1},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    prepare = {
        "name": "prepare",
        "image": "none",
        "command": ["sh", "-c", "echo prepared > /data/init"],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "terminationGracePeriodSeconds": 2,
            "initContainers": [prepare],
            "containers": [main],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }
    cluster.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "web"},
            "spec": {
                "serviceName": "web",
                "replicas": 1,
                "selector": {"matchLabels": {"app": "web"}},
                "template": template,
                "volumeClaimTemplates": [claim],
            },
        }
    )
    seen = cluster.ready("web-0")
    assert seen["status"]["phase"] == "Running"
    assert seen["status"]["podIP"].startswith("127.")
    assert cluster.eventually(lambda: cluster.get("statefulset", "web")["status"].get("readyReplicas") == 1)
    bound = cluster.get("pvc", "data-web-0")
    assert bound["status"]["phase"] == "Bound"
    volume = cluster.kubectl.json("get", "pv", bound["spec"]["volumeName"])
    folder = Path(volume["spec"]["hostPath"]["path"])
    assert (folder / "starts").read_text() == "start prepared\n"

    (folder / "broken").touch()
    cluster.eventually(lambda: container(cluster.get("pod", "web-0"))["restartCount"] == 1)
    again = cluster.ready("web-0")
    assert container(again)["lastState"]["terminated"]["exitCode"] == 143
    assert (folder / "starts").read_text() == "start prepared\n" * 2
    killing = ("Killing", "Container main failed liveness probe, will be restarted")
    cluster.eventually(lambda: killing in cluster.events("web-0"))

    # The claim's content outlives the pod, and the successor has it.
    cluster.delete("pod", "web-0")
    cluster.eventually(lambda: cluster.get("pod", "web-0")["metadata"]["uid"] != again["metadata"]["uid"])
    cluster.ready("web-0")
    assert (folder / "starts").read_text() == "start prepared\n" * 3

    # And it goes with the claim.
    cluster.delete("statefulset", "web")
    cluster.delete("pvc", "data-web-0", "--wait=false")
    cluster.eventually(lambda: not folder.exists())
    cluster.eventually(lambda: volume["metadata"]["name"] not in cluster.kubectl("get", "pv", "-o", "name"))


def test_a_changed_secret_reaches_the_file_at_once_and_whole(cluster: Cluster) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "conf"}}
    cluster.apply({**secret, "stringData": {"relay.json": "1"}})
    mounts = [{"name": "conf", "mountPath": "/etc/malote/config"}, {"name": "keys", "mountPath": "/etc/malote/keys"}]
    volumes = [
        {"name": "conf", "secret": {"secretName": "conf", "defaultMode": 0o400}},
        {"name": "keys", "emptyDir": {}},
    ]
    # The program is told the enclosing folder, as the relay is.
    follow = "cd /etc/malote; while :; do cat config/relay.json; echo; sleep 0.05; done"
    cluster.apply(pod("reader", "sh", "-c", follow, volumeMounts=mounts, spec={"volumes": volumes}))
    cluster.ready("reader")
    cluster.eventually(lambda: "1\n" in cluster.log("reader"))
    cluster.apply({**secret, "stringData": {"relay.json": "2"}})
    cluster.eventually(lambda: "2\n" in cluster.log("reader"))
    assert set(cluster.log("reader").split()) == {"1", "2"}


def test_what_a_process_sees_of_its_pod(cluster: Cluster) -> None:
    env = [
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "SPOOL", "value": "/var/spool/malote/$(NODE)"},
    ]
    show = "import json, os; print(json.dumps(dict(os.environ)))"
    mounts = [{"name": "spool", "mountPath": "/var/spool/malote"}]
    cluster.apply(
        pod(
            "env", "python3", "-c", show, env=env, volumeMounts=mounts,
            spec={"restartPolicy": "Never", "volumes": [{"name": "spool", "emptyDir": {}}]},
        )
    )  # fmt: skip
    cluster.eventually(lambda: cluster.get("pod", "env")["status"]["phase"] == "Succeeded")
    seen = json.loads(cluster.log("env"))
    address = cluster.get("pod", "env")["status"]["podIP"]
    assert seen["IP"] == seen["MALOTE_LISTEN"] == address
    assert seen["NODE"] == "process-node"
    assert seen["SPOOL"].startswith(str(cluster.node.directory))
    assert seen["SPOOL"].endswith("/process-node")
    assert seen["HOSTNAME"] == "env"
    assert seen["PATH"].split(":")[0] == str(Path(sys.executable).parent)


def test_a_pod_speaks_to_the_api_server_as_its_own_service_account(cluster: Cluster) -> None:
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "reader"}}
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": cluster.namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}},
        {**role, "kind": "Role", "rules": rules},
        {**role, "kind": "RoleBinding", "roleRef": reference, "subjects": [subject]},
    )
    kubectl = str(cluster.kubectl.program)
    maps = f"{kubectl} get cm -n {cluster.namespace} -o name"
    # The API server learns of a binding a moment after it was made.
    ask = f"{kubectl} auth whoami -o name; until {maps}; do sleep 0.2; done; {kubectl} get secrets -A"
    cluster.apply(pod("asker", "sh", "-c", ask, spec={"serviceAccountName": "reader", "restartPolicy": "Never"}))
    cluster.eventually(lambda: cluster.get("pod", "asker")["status"]["phase"] == "Failed")
    said = cluster.log("asker")
    assert "configmap/kube-root-ca.crt" in said
    assert f'User "system:serviceaccount:{cluster.namespace}:reader" cannot list resource "secrets"' in said


def test_sigterm_comes_first_and_sigkill_only_after_the_grace_period(cluster: Cluster) -> None:
    polite = "trap 'echo asked; sleep 1; echo done; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    stubborn = "trap 'echo asked' TERM; echo up; while :; do sleep 0.1; done"
    cluster.apply(
        pod("polite", "sh", "-c", polite, spec={"terminationGracePeriodSeconds": 20}),
        pod("stubborn", "sh", "-c", stubborn, spec={"terminationGracePeriodSeconds": 5}),
    )
    for name in ("polite", "stubborn"):
        cluster.eventually(lambda name=name: "up" in cluster.log(name))
    cluster.delete("pod", "polite", "--timeout=60s")
    assert cluster.log("polite").split() == ["up", "asked", "done"]
    cluster.delete("pod", "stubborn", "--timeout=60s")
    assert cluster.log("stubborn").split() == ["up", "asked"]


def test_a_container_ends_with_everything_it_started(cluster: Cluster, alive: Alive) -> None:
    cluster.apply(pod("family", "sh", "-c", "setsid sleep 301 & echo $!; exec sleep 300"))
    cluster.ready("family")
    cluster.eventually(lambda: cluster.log("family").strip())
    stray = int(cluster.log("family"))
    assert alive(stray)
    cluster.delete("pod", "family")
    assert not alive(stray)


def test_a_pod_deleted_by_force_leaves_no_process(cluster: Cluster, alive: Alive) -> None:
    cluster.apply(pod("forced", "sh", "-c", "trap '' TERM; echo $$$$; while :; do sleep 0.1; done"))
    cluster.eventually(lambda: cluster.log("forced").strip())
    process = int(cluster.log("forced"))
    assert alive(process)
    cluster.delete("pod", "forced", "--force", "--grace-period=0")
    cluster.eventually(lambda: not alive(process))


def test_a_missing_secret_is_told_as_the_kubelet_tells_it_and_healed_when_it_comes(cluster: Cluster) -> None:
    env = [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "late", "key": "x"}}}]
    cluster.apply(pod("waits", "sh", "-c", "echo $X; exec sleep 300", env=env))

    def waiting() -> dict[str, Any]:
        found: dict[str, Any] = container(cluster.get("pod", "waits"))["state"]["waiting"]
        return found

    cluster.eventually(lambda: waiting()["reason"] == "CreateContainerConfigError")
    assert waiting()["message"] == 'secret "late" not found'
    cluster.eventually(lambda: ("Failed", 'Error: secret "late" not found') in cluster.events("waits"))
    cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "late"}, "stringData": {"x": "here"}})
    cluster.ready("waits")
    cluster.eventually(lambda: cluster.log("waits") == "here\n")


def test_a_volume_that_cannot_be_mounted_yet_is_told_by_an_event(cluster: Cluster) -> None:
    volumes = [{"name": "conf", "secret": {"secretName": "late"}}]
    cluster.apply(
        pod("mounts", *SLEEP, volumeMounts=[{"name": "conf", "mountPath": "/c"}], spec={"volumes": volumes})
    )
    message = 'MountVolume.SetUp failed for volume "conf" : secret "late" not found'
    cluster.eventually(lambda: ("FailedMount", message) in cluster.events("mounts"))
    assert container(cluster.get("pod", "mounts"))["state"]["waiting"]["reason"] == "ContainerCreating"
    cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "late"}, "stringData": {"x": "1"}})
    cluster.ready("mounts")


def test_an_unknown_command_is_shown_in_the_status(cluster: Cluster) -> None:
    cluster.apply(pod("typo", "malote-realy"))

    def look() -> bool:
        waiting = container(cluster.get("pod", "typo"))["state"]["waiting"]
        return waiting["reason"] == "RunContainerError" and "malote-realy" in waiting["message"]

    cluster.eventually(look)


def test_a_container_that_keeps_failing_is_held_back(cluster: Cluster) -> None:
    cluster.apply(pod("crash", "sh", "-c", "echo boom; exit 7", terminationMessagePolicy="FallbackToLogsOnError"))

    def look() -> dict[str, Any] | None:
        seen = container(cluster.get("pod", "crash"))
        return seen if seen["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff" else None

    seen = cluster.eventually(look)
    assert seen["restartCount"] >= 2
    assert seen["lastState"]["terminated"]["exitCode"] == 7
    assert seen["lastState"]["terminated"]["message"].endswith("boom")
    assert cluster.get("pod", "crash")["status"]["phase"] == "Running"


def test_http_and_tcp_probes_ask_the_pods_own_address(cluster: Cluster) -> None:
    serve = ["python3", "-m", "http.server", "8080", "--bind", "$(MALOTE_LISTEN)", "--directory", "/www"]
    cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "www"}, "data": {"healthz": "ok"}},
        *(
            pod(
                name,
                *serve,
                ports=[{"name": "http", "containerPort": 8080}],
                startupProbe={"tcpSocket": {"port": "http"}, "periodSeconds": 1, "failureThreshold": 30},
                readinessProbe={"httpGet": {"path": path, "port": "http"}, "periodSeconds": 1, "failureThreshold": 1},
                volumeMounts=[{"name": "www", "mountPath": "/www"}],
                spec={"volumes": [{"name": "www", "configMap": {"name": "www"}}]},
            )
            for name, path in (("one", "/healthz"), ("other", "/nothing"))
        ),
    )
    one = cluster.ready("one")
    other = cluster.eventually(lambda: (seen := cluster.get("pod", "other"))["status"].get("podIP") and seen)
    assert one["status"]["podIP"] != other["status"]["podIP"]
    cluster.eventually(lambda: any("statuscode: 404" in message for _, message in cluster.events("other")))
    assert condition(cluster.get("pod", "other"), "Ready") == "False"


def test_the_nodes_end_leaves_no_process(
    control_plane: ControlPlane, cluster: Cluster, cluster_loop: Any, tmp_path: Path, alive: Alive
) -> None:
    """A second node; its pod has a process that ignores SIGTERM and one that left its session."""
    node = ProcessNode(kubeconfig=control_plane.kubeconfig, directory=tmp_path, name="second", shutdown_grace=1.0)
    cluster_loop.run(node.__aenter__())
    try:
        script = "trap '' TERM; setsid sleep 302 & echo $!; while :; do sleep 0.1; done"
        cluster.apply(pod("stays", "sh", "-c", script, spec={"nodeName": "second"}))
        cluster.ready("stays")
        log = node.log(cluster.namespace, "stays", "main")
        cluster.eventually(lambda: log.read_text().strip())
        pids = (*node.pids, int(log.read_text()))
        assert len(pids) == 2
        assert all(alive(pid) for pid in pids)
    finally:
        cluster_loop.run(node.__aexit__(None, None, None))
    assert not any(alive(pid) for pid in pids)
    cluster.delete("pod", "stays", "--force", "--grace-period=0")
    cluster.kubectl("delete", "node", "second")


def test_kubectl_logs_shows_what_a_container_wrote(cluster: Cluster, eventually: Eventually) -> None:
    cluster.apply(pod("talks", "sh", "-c", "echo one; echo two; echo three; exec sleep 300"))
    cluster.ready("talks")
    logs = ["logs", "talks", "-n", cluster.namespace]
    eventually(lambda: cluster.kubectl(*logs) == "one\ntwo\nthree\n")
    assert cluster.kubectl(*logs, "--tail=1") == "three\n"
