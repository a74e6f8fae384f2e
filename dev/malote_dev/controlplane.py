"""A Kubernetes control plane of one's own for as long as a run lasts: etcd, kube-apiserver, kube-controller-manager.

The real programs without a container, root or a fixed port: etcd listens on a unix socket in the run's folder, the
API server on a free loopback port with its own certificate authority. There is no scheduler (the process node binds
its pods itself) and no endpoint controllers (they refuse the loopback addresses that its pods have).

Where ``MALOTE_KUBECONFIG`` names a kubeconfig, that cluster is used as it is and nothing is started.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

import aiohttp

from malote_dev.kubeapi import KubeConfig, write_kubeconfig
from malote_dev.offspring import Child, Offspring
from malote_dev.pki import write_control_plane_pki

# Canonical names, as `kube-controller-manager --help` lists them.
CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "persistentvolume-binder-controller",
    "persistentvolume-expander-controller",
    "persistentvolume-protection-controller",
    "persistentvolumeclaim-protection-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "statefulset-controller",
    "ttl-after-finished-controller",
    "validatingadmissionpolicy-status-controller",
)

ETCD_URL = "unix://etcd.sock:0"
ETCD_PEER_URL = "unix://etcd-peer.sock:0"
READY_WITHIN = 90.0
ATTEMPTS = 5


class ControlPlaneError(RuntimeError):
    """The control plane does not come up; the message holds the last lines of the log in question."""


class _PortTaken(Exception):
    pass


class Programs(Protocol):
    """Where the programs lie; a `malote_dev.toolchain.Toolchain` is one."""

    def __getitem__(self, name: str) -> Path:
        """The path of one program."""
        ...


class ControlPlane:
    """``async with ControlPlane(toolchain, directory) as plane``: ready when entered, gone when left.

    * ``plane.kubeconfig``: a kubeconfig of a cluster administrator;
    * ``plane.url``: the API server's address;
    * ``plane.directory / "logs"``: one log a program.
    """

    def __init__(
        self,
        toolchain: Programs,
        directory: Path,
        *,
        kubeconfig: Path | None = None,
        pick_port: Callable[[], int] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._toolchain = toolchain
        self.directory = directory.resolve()
        named = environ.get("MALOTE_KUBECONFIG")
        self._given = kubeconfig or (Path(named) if named else None)
        self._pick_port = pick_port or _free_port
        self._offspring = Offspring()
        self._logs: list[IO[bytes]] = []
        self._url = ""
        self.kubeconfig = self._given or self.directory / "kubeconfig"

    @property
    def url(self) -> str:
        """The API server's address, such as ``https://127.0.0.1:41234``."""
        return self._url

    @property
    def borrowed(self) -> bool:
        """Whether this is a cluster that the user named: nothing was started, nothing will be stopped."""
        return self._given is not None

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of what was started."""
        return self._offspring.pids

    async def __aenter__(self) -> Self:
        if self._given is not None:
            self._url = KubeConfig(self._given).server
            return self
        await self._offspring.__aenter__()
        try:
            await self._start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._given is None:
            # Nothing of this control plane outlives the run: no reason to wait for tidy ends.
            await self._offspring.end(grace=0.0)
        for log in self._logs:
            log.close()

    async def _start(self) -> None:
        # etcd asks nobody who he is: its socket is protected by this folder.
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.directory / "logs").mkdir(exist_ok=True)
        authority = write_control_plane_pki(self.directory / "pki")
        token = secrets.token_urlsafe(32)
        tokens = self.directory / "pki/tokens.csv"
        tokens.touch(0o600)
        tokens.write_text(f"{token},malote-admin,malote-admin,system:masters\n")
        etcd = await self._run("etcd", self._etcd_arguments())
        server = await self._start_server(etcd, authority, token)
        write_kubeconfig(self.kubeconfig, server=self._url, authority=authority, token=token)
        await self._ready(server, authority, token)
        await self._run("kube-controller-manager", self._manager_arguments())

    async def _start_server(self, etcd: Child, authority: bytes, token: str) -> Child:
        """Start the API server; a port that another program took first is no failure, another is tried."""
        for _ in range(ATTEMPTS):
            port = self._pick_port()
            self._url = f"https://127.0.0.1:{port}"
            server = await self._run("kube-apiserver", self._server_arguments(port))
            try:
                await self._listening(server, etcd, authority, token)
            except _PortTaken:
                continue
            return server
        raise ControlPlaneError(
            f"each of {ATTEMPTS} free ports was taken by another program before kube-apiserver had it"
        )

    async def _listening(self, server: Child, etcd: Child, authority: bytes, token: str) -> None:
        """Wait until it is *our* server that answers: it must know the token that only this run has."""

        def alive() -> None:
            if server.returncode is not None and "address already in use" in self._log_tail("kube-apiserver", 40):
                raise _PortTaken
            if etcd.returncode is not None:
                raise self._failure("etcd", f"ended with status {etcd.returncode}")

        await self._answers(server, "/version", authority, token, alive)

    async def _ready(self, server: Child, authority: bytes, token: str) -> None:
        await self._answers(server, "/readyz", authority, token, lambda: None)

    async def _answers(
        self, server: Child, path: str, authority: bytes, token: str, alive: Callable[[], None]
    ) -> None:
        """Ask the API server for *path* until it says 200; raises ControlPlaneError, or what *alive* raises."""
        deadline = time.monotonic() + READY_WITHIN
        context = ssl.create_default_context(cadata=authority.decode())
        said = "no answer"
        # Short time-outs: whoever else has the port may take the connection and never say a word.
        timeout = aiohttp.ClientTimeout(total=2)
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
            while time.monotonic() < deadline:
                alive()
                if server.returncode is not None:
                    raise self._failure("kube-apiserver", f"ended with status {server.returncode}")
                try:
                    async with session.get(self._url + path, ssl=context) as answer:
                        if answer.status == 200:
                            return
                        said = (await answer.text()).strip()[-300:]
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    said = str(error)
                await asyncio.sleep(0.05)
        raise self._failure("kube-apiserver", f"is not ready after {READY_WITHIN:.0f} s ({said})")

    async def _run(self, name: str, arguments: list[str]) -> Child:
        log = (self.directory / f"logs/{name}.log").open("wb")
        self._logs.append(log)
        environ = {"PATH": os.defpath, "HOME": str(self.directory)}
        return await self._offspring.start(
            [str(self._toolchain[name]), *arguments], environ=environ, directory=self.directory, output=log
        )

    def _etcd_arguments(self) -> list[str]:
        # Socket paths relative to the working directory: a path of more than 107 characters cannot be bound. What
        # follows the colon is no port but part of the file's name; etcd insists on it.
        return [
            "--name=malote",
            "--data-dir=etcd",
            "--unsafe-no-fsync",
            f"--listen-client-urls={ETCD_URL}",
            f"--advertise-client-urls={ETCD_URL}",
            f"--listen-peer-urls={ETCD_PEER_URL}",
            f"--initial-advertise-peer-urls={ETCD_PEER_URL}",
            f"--initial-cluster=malote={ETCD_PEER_URL}",
            "--log-level=warn",
        ]

    def _server_arguments(self, port: int) -> list[str]:
        return [
            f"--etcd-servers={ETCD_URL}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={port}",
            "--cert-dir=pki/apiserver",
            "--tls-cert-file=pki/apiserver.crt",
            "--tls-private-key-file=pki/apiserver.key",
            "--token-auth-file=pki/tokens.csv",
            # How the API server shows nodes who it is, for `kubectl logs`.
            "--client-ca-file=pki/ca.crt",
            "--kubelet-client-certificate=pki/kubelet-client.crt",
            "--kubelet-client-key=pki/kubelet-client.key",
            "--kubelet-preferred-address-types=InternalIP",
            "--authorization-mode=Node,RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-account-key-file=pki/service-account.pub",
            "--service-account-signing-key-file=pki/service-account.key",
            "--service-cluster-ip-range=10.96.0.0/16",
            # The kubernetes Service's own endpoint would be 127.0.0.1, which an EndpointSlice refuses.
            "--endpoint-reconciler-type=none",
            # What is tested is the operator's own restraint, not the server's queues.
            "--max-requests-inflight=2000",
            "--max-mutating-requests-inflight=1000",
        ]

    def _manager_arguments(self) -> list[str]:
        return [
            "--kubeconfig=kubeconfig",
            f"--controllers={','.join(CONTROLLERS)}",
            "--leader-elect=false",
            "--secure-port=0",
            "--root-ca-file=pki/ca.crt",
            "--service-account-private-key-file=pki/service-account.key",
            # The default of 20 requests a second would be what a run with many tenants measures.
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            "--concurrent-statefulset-syncs=20",
            "--concurrent-gc-syncs=20",
            # A claim that waits for its volume is looked at again after this long when an event was missed.
            "--pvclaimbinder-sync-period=5s",
        ]

    def _log_tail(self, name: str, lines: int) -> str:
        log = self.directory / f"logs/{name}.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""

    def _failure(self, name: str, what: str) -> ControlPlaneError:
        log = self.directory / f"logs/{name}.log"
        return ControlPlaneError(f"{name} {what}; the end of {log}:\n{self._log_tail(name, 8)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
