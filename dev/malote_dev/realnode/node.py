"""The node: everything of `real-cluster` started in order, and taken down again whatever happened."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import ssl
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from malote_dev.realnode import configs, cri, storage
from malote_dev.realnode.commands import CommandError, run
from malote_dev.realnode.daemons import Daemons
from malote_dev.realnode.images import Image
from malote_dev.realnode.network import NODE_ADDRESS, SERVICE_NETWORK, Namespace
from malote_dev.realnode.policies import Enforcer
from malote_dev.realnode.zones import Zones
from malote_dev.toolchain import Toolchain

PROGRAMS = (
    "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl",
    "coredns", "helm",
)  # fmt: skip


def find_programs() -> Toolchain:
    """The node's programs, all of one version: a folder that has a control plane but no kubelet is passed over."""
    environ = dict(os.environ)
    if not (Path(environ.get("KUBEBUILDER_ASSETS", "")) / "kubelet").exists():
        environ.pop("KUBEBUILDER_ASSETS", None)
        # Folders of setup-envtest are below it, and never have one.
        environ["XDG_DATA_HOME"] = "/nonexistent"
    return Toolchain.find(PROGRAMS, environ=environ)


_SERVER = f"https://{NODE_ADDRESS}:6443"
_STATE_PREFIX = "malote-node-"


class RealNode:
    """A running cluster of one node; `running` gives one.

    `kubeconfig` is the administrator's. It works, as every address of the cluster does, only inside `namespace`.
    """

    def __init__(self, state: Path, toolchain: Toolchain, say: Callable[[str], None] = lambda _: None) -> None:
        self.state = state
        self.namespace = Namespace(state.name)
        self.kubeconfig = state / "admin.kubeconfig"
        self.zones = Zones(state / "zones")
        self.cluster_dns = NODE_ADDRESS
        self._tools = toolchain
        self._say = say
        self._logs = state / "logs"
        self._logs.mkdir()
        self._socket = state / "containerd/state/containerd.sock"
        self._daemons = Daemons(self._logs)
        self.policies = Enforcer(self._list)

    def kubectl(self, *arguments: str, manifest: object = None, timeout: float = 120) -> str:
        """Run kubectl as the administrator; `manifest` (JSON data, or YAML text) becomes its standard input."""
        text = manifest if isinstance(manifest, str) else json.dumps(manifest) if manifest is not None else ""
        with self.namespace.inside():
            return run(
                [self._tools["kubectl"], "--kubeconfig", self.kubeconfig, *arguments], text=text, timeout=timeout
            )

    def get(self, *arguments: str) -> Any:
        """`kubectl get … -o json`, decoded."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects."""
        self.kubectl("apply", "-f", "-", manifest={"apiVersion": "v1", "kind": "List", "items": list(objects)})

    def helm(self, *arguments: str, timeout: float = 300) -> str:
        """Run helm as the administrator."""
        home = {f"HELM_{part}_HOME": str(self.state / "helm") for part in ("CACHE", "CONFIG", "DATA")}
        with self.namespace.inside():
            return run(
                [self._tools["helm"], "--kubeconfig", self.kubeconfig, *arguments],
                env={**os.environ, **home},
                timeout=timeout,
            )

    def start(self, images: Sequence[Image]) -> None:
        """Bring the node up with these images in it. On failure the caller still calls `close`."""
        (self.state / "owner").write_text(f"{os.getpid()}\n")
        self.namespace.create()
        cri.make_cgroup(self.state.name)
        with self.namespace.inside():
            self._control_plane()
            self._containers(images)
            self._node()
            self._cluster_dns()
            self.policies.start()
        self.apply(*storage.manifests(self.state / "volumes"))
        self._wait_until_ready()

    def close(self) -> None:
        """Take everything down. Safe to call more than once, and after a start that failed."""
        self._say("taking the node down")
        self.policies.stop()
        if self._socket.exists():
            with contextlib.suppress(CommandError), self.namespace.inside():
                # The kubelet first, or it starts again what is stopped here.
                self._daemons.stop("kubelet")
        cri.kill_cgroup(self.state.name)
        self._daemons.close()
        remove(self.state)

    def _list(self, path: str) -> list[dict[str, Any]]:
        """All objects of a kind, straight from the API server: for what is done every second kubectl is too heavy."""
        access = json.loads(self.kubeconfig.read_text())
        authority = Path(access["clusters"][0]["cluster"]["certificate-authority"])
        with self.namespace.inside():
            answer = _read(f"{_SERVER}{path}", authority, access["users"][0]["user"]["token"])
        found: list[dict[str, Any]] = json.loads(answer)["items"]
        return found

    def _control_plane(self) -> None:
        self._say("starting etcd and the control plane")
        tokens = {name: secrets.token_hex(16) for name in ("admin", "node")}
        (self.state / "tokens.csv").write_text(
            f'{tokens["admin"]},admin,admin,"system:masters"\n'
            f'{tokens["node"]},system:node:{configs.NODE_NAME},node,"system:nodes"\n'
        )
        key = self.state / "service-account.key"
        run(["openssl", "genrsa", "-out", key, "2048"])
        certificates = self.state / "certificates"
        authority = certificates / "apiserver.crt"
        for name, token in tokens.items():
            file = self.state / f"{name}.kubeconfig"
            file.write_text(configs.kubeconfig(_SERVER, authority, token))
            file.chmod(0o600)
        self._daemons.start(
            "etcd",
            [
                self._tools["etcd"], "--data-dir", self.state / "etcd", "--unsafe-no-fsync", "--log-level=warn",
                "--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
                "--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
                "--initial-cluster=default=http://127.0.0.1:2380",
            ],
            lambda: _answers("http://127.0.0.1:2379/health"),
        )  # fmt: skip
        self._daemons.start(
            "kube-apiserver",
            [
                self._tools["kube-apiserver"], "--etcd-servers=http://127.0.0.1:2379",
                f"--advertise-address={NODE_ADDRESS}", f"--bind-address={NODE_ADDRESS}", "--secure-port=6443",
                f"--cert-dir={certificates}", f"--service-cluster-ip-range={SERVICE_NETWORK}",
                "--authorization-mode=Node,RBAC", f"--token-auth-file={self.state / 'tokens.csv'}",
                f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--kubelet-preferred-address-types=InternalIP", "--allow-privileged=true",
                "--enable-admission-plugins=NodeRestriction", "--endpoint-reconciler-type=lease",
            ],
            lambda: authority.exists() and _answers(f"{_SERVER}/readyz", authority, tokens["admin"]),
        )  # fmt: skip
        admin = f"--kubeconfig={self.kubeconfig}"
        self._daemons.start(
            "kube-controller-manager",
            [
                self._tools["kube-controller-manager"], admin, "--leader-elect=false", "--bind-address=127.0.0.1",
                f"--service-account-private-key-file={key}", f"--root-ca-file={authority}",
                "--kube-api-qps=200", "--kube-api-burst=400", "--node-monitor-grace-period=60s",
            ],
            lambda: _listens("127.0.0.1", 10257),
        )  # fmt: skip
        self._daemons.start(
            "kube-scheduler",
            [self._tools["kube-scheduler"], admin, "--leader-elect=false", "--bind-address=127.0.0.1"],
            lambda: _listens("127.0.0.1", 10259),
        )

    def _containers(self, images: Sequence[Image]) -> None:
        self._say("starting containerd and loading the images")
        network = self.state / "cni"
        network.mkdir()
        (network / "10-malote.conflist").write_text(configs.cni(self.state.name, self.state / "addresses"))
        root, state = self.state / "containerd/root", self.state / "containerd/state"
        file = self.state / "containerd.toml"
        file.write_text(configs.containerd(root, state, network, restrict_oom=not cri.may_lower_oom_scores()))
        self._daemons.start(
            "containerd", ["containerd", "--config", file], lambda: _connects(self._socket), env={"PATH": _PATH}
        )
        for image in images:
            cri.import_image(self._socket, image.archive)

    def _node(self) -> None:
        self._say("starting the kubelet and kube-proxy")
        (self.state / "resolv.conf").write_text(f"nameserver {NODE_ADDRESS}\n")
        kubelet = self.state / "kubelet.json"
        kubelet.write_text(configs.kubelet(self._socket, self.state, f"/{self.state.name}"))
        proxy = self.state / "kube-proxy.json"
        proxy.write_text(configs.kube_proxy(self.kubeconfig))
        self._daemons.start(
            "kubelet",
            [
                self._tools["kubelet"], f"--config={kubelet}", f"--kubeconfig={self.state / 'node.kubeconfig'}",
                f"--root-dir={self.state / 'kubelet'}", f"--cert-dir={self.state / 'kubelet-certificates'}",
                f"--hostname-override={configs.NODE_NAME}", f"--node-ip={NODE_ADDRESS}",
            ],
            lambda: _answers("http://127.0.0.1:10248/healthz"),
            env={"PATH": _PATH},
        )  # fmt: skip
        # kube-proxy looks for its node once and then waits half a minute.
        self._until(lambda: bool(self.get("nodes")["items"]), "the node to register")
        self._daemons.start(
            "kube-proxy",
            [self._tools["kube-proxy"], f"--config={proxy}"],
            lambda: _listens(NODE_ADDRESS, 10256),
            env={"PATH": _PATH},
        )

    def _cluster_dns(self) -> None:
        file = self.state / "Corefile"
        file.write_text(configs.corefile(self.kubeconfig, self.state / "zones"))
        self._daemons.start(
            "coredns", [self._tools["coredns"], "-conf", file], lambda: _answers(f"http://{NODE_ADDRESS}:8181/ready")
        )

    def _wait_until_ready(self) -> None:
        self._say("waiting for the node")
        self.kubectl("wait", "--for=condition=Ready", f"node/{configs.NODE_NAME}", "--timeout=120s")
        # Made by a controller a moment after the namespace; pods cannot start without it.
        self._until(lambda: bool(self.get("serviceaccounts")["items"]), "namespace default's service account")

    def _until(self, condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds:.0f} s for {what}")
            time.sleep(0.1)


@contextmanager
def running(images: Sequence[Image], toolchain: Toolchain, say: Callable[[str], None]) -> Iterator[RealNode]:
    """A node for the time of the context. Leftovers of runs that were killed are removed first."""
    remove_leftovers()
    node = RealNode(Path(tempfile.mkdtemp(prefix=_STATE_PREFIX, dir="/var/tmp")), toolchain, say)
    try:
        node.start(images)
        yield node
    finally:
        node.close()


def remove(state: Path) -> None:
    """Remove what a node has on the machine: processes, mounts, namespace, folder."""
    cri.kill_cgroup(state.name)
    cri.unmount_below(state)
    Namespace(state.name).delete()
    # libcni keeps a note about each sandbox's networks in a place of its own.
    for sandbox in (state / "containerd/root/io.containerd.grpc.v1.cri/sandboxes").glob("*"):
        for note in Path("/var/lib/cni/results").glob(f"*-{sandbox.name}-*"):
            note.unlink()
    shutil.rmtree(state)


def remove_leftovers() -> None:
    """Remove the nodes whose owner was killed before it could."""
    for state in Path("/var/tmp").glob(f"{_STATE_PREFIX}*"):  # noqa: S108
        owner = state / "owner"
        if owner.exists() and not Path(f"/proc/{owner.read_text().strip()}").exists():
            remove(state)


# The pods' plug-ins and runc live where a user's PATH may not lead.
_PATH = f"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{os.environ.get('PATH', '')}"


def _answers(url: str, authority: Path | None = None, token: str = "") -> bool:
    try:
        _read(url, authority, token)
    except OSError:
        return False
    return True


def _read(url: str, authority: Path | None = None, token: str = "") -> bytes:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})  # noqa: S310
    context = ssl.create_default_context(cafile=str(authority)) if authority else None
    with urllib.request.urlopen(request, timeout=5, context=context) as answer:  # noqa: S310
        return bytes(answer.read())


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def _connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True
