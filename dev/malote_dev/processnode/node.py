"""The node: its object and lease, the watches, and one runner for each pod bound to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import sys
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import structlog

from malote_dev.kubeapi import STRATEGIC_MERGE_PATCH, UNREACHABLE, ApiError, KubeApi, KubeConfig, Object
from malote_dev.offspring import Offspring
from malote_dev.processnode.addresses import AddressPool
from malote_dev.processnode.claims import Claims
from malote_dev.processnode.container import FIRST_BACK_OFF
from malote_dev.processnode.events import EventRecorder
from malote_dev.processnode.logserver import LogServer, client_authority
from malote_dev.processnode.pod import HOST_ADDRESS, PodRunner, Services
from malote_dev.processnode.status import timestamp

NODE_NAME = "process-node"
_HEARTBEAT = 10.0
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_MAX_PODS = 1000

log = structlog.get_logger(__name__)


class ProcessNode:
    """``async with ProcessNode(kubeconfig=…, directory=…, path=[…]) as node``: pods run while it is entered.

    *path* goes in front of the processes' PATH: the folders where their commands lie. `shutdown_grace` bounds, in
    seconds, how long leaving waits for pods that end slowly.
    """

    def __init__(
        self,
        *,
        kubeconfig: Path,
        directory: Path,
        path: Sequence[Path | str] = (),
        name: str = NODE_NAME,
        shutdown_grace: float = 10.0,
        back_off: float = FIRST_BACK_OFF,
    ) -> None:
        self.name = name
        self.directory = directory.resolve()
        self._kubeconfig = kubeconfig
        self._path = [str(Path(sys.executable).parent), *map(str, path)] if not path else [*map(str, path)]
        self._shutdown_grace = shutdown_grace
        self._back_off = back_off
        self._addresses = AddressPool()
        self._offspring = Offspring()
        self._stack = AsyncExitStack()
        self._runners: dict[str, PodRunner] = {}
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._binding: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the containers that run."""
        return self._offspring.pids

    def log(self, namespace: str, pod: str, container: str) -> Path:
        """Where a container's standard output and error go (all its runs, one after the other)."""
        return self.directory / "logs" / namespace / pod / f"{container}.log"

    async def __aenter__(self) -> Self:
        # Secrets lie below it as files.
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._api = await self._stack.enter_async_context(KubeApi(KubeConfig(self._kubeconfig)))
            self._claims = Claims(self._api, self.directory / "volumes")
            self._events = EventRecorder(self._api, self.name)
            await self._stack.enter_async_context(self._offspring)
            self._services = Services(
                api=self._api,
                offspring=self._offspring,
                claims=self._claims,
                events=self._events,
                directory=self.directory,
                environ=self._environ(),
                capacity=_capacity(),
                back_off=self._back_off,
            )
            await self._claims.register_class()
            await self._register()
        except BaseException:
            await self._stack.aclose()
            raise
        for work in (
            self._keep_lease(),
            self._events.run(),
            self._claims.watch_claims(),
            self._claims.watch_volumes(),
            self._wake_waiting_pods(),
            self._watch_sources("secrets", "Secret"),
            self._watch_sources("configmaps", "ConfigMap"),
            self._watch_pods(),
            self._serve_logs(),
        ):
            self._tasks.append(asyncio.create_task(self._forever(work)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for runner in self._runners.values():
            runner.end(self._shutdown_grace)
        await asyncio.gather(*self._lives.values(), return_exceptions=True)
        await self._stack.aclose()
        self._addresses.close()

    async def _forever(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception:
            # Nobody awaits these tasks: a defect must not make the node silently deaf.
            log.exception("the process node has lost one of its tasks")
            raise

    def _environ(self) -> dict[str, str]:
        server = urlsplit(self._api.config.server)
        return {
            "PATH": os.pathsep.join([*self._path, os.environ.get("PATH", os.defpath)]),
            "LANG": "C.UTF-8",
            "KUBERNETES_SERVICE_HOST": server.hostname or "",
            "KUBERNETES_SERVICE_PORT": str(server.port or 443),
        }

    async def _register(self) -> None:
        labels = {
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        }
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name, "labels": labels}}
        with contextlib.suppress(ApiError):  # it is there already, from an earlier run
            await self._api.create("/api/v1/nodes", node)
        path = f"/api/v1/nodes/{self.name}"
        # Admission taints each new node as not ready, and it is the node life-cycle controller (not run here) that
        # takes the taint away.
        await self._api.patch(path, {"spec": {"taints": None}})
        await self._api.patch(f"{path}/status", {"status": self._status()}, STRATEGIC_MERGE_PATCH)

    def _status(self) -> Object:
        now = timestamp(datetime.now(UTC))

        def condition(kind: str, status: str, reason: str, message: str) -> Object:
            times = {"lastHeartbeatTime": now, "lastTransitionTime": now}
            return {"type": kind, "status": status, "reason": reason, "message": message, **times}

        return {
            "capacity": _capacity(),
            "allocatable": _capacity(),
            "addresses": [
                {"type": "InternalIP", "address": HOST_ADDRESS},
                {"type": "Hostname", "address": self.name},
            ],
            "conditions": [
                condition("Ready", "True", "KubeletReady", "the process node runs pods as local processes"),
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "not watched"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "not watched"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID", "not watched"),
            ],
            "nodeInfo": {
                "architecture": platform.machine(),
                "bootID": "",
                "containerRuntimeVersion": "process://1",
                "kernelVersion": platform.release(),
                "kubeProxyVersion": "",
                "kubeletVersion": "process-node",
                "machineID": "",
                "operatingSystem": "linux",
                "osImage": "this machine",
                "systemUUID": "",
            },
        }

    async def _serve_logs(self) -> None:
        server = LogServer(HOST_ADDRESS, self.directory, self.log)
        try:
            port = await server.start(await client_authority(self._api))
            status = {"daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}
            await self._api.patch(f"/api/v1/nodes/{self.name}/status", {"status": status}, STRATEGIC_MERGE_PATCH)
            await asyncio.Event().wait()
        finally:
            await server.stop()

    async def _keep_lease(self) -> None:
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": "kube-node-lease"},
        }
        while True:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            spec = {"holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": now}
            try:
                await self._api.apply(f"{_LEASES}/{self.name}", {**lease, "spec": spec})
            except (ApiError, *UNREACHABLE):
                # Just after the control plane's start the leases' namespace may not exist yet.
                await asyncio.sleep(1.0)
                continue
            await asyncio.sleep(_HEARTBEAT)

    async def _watch_pods(self) -> None:
        async for kind, pod in self._api.watch("/api/v1/pods"):
            if kind == "LISTED":
                continue
            uid = pod["metadata"]["uid"]
            if kind == "DELETED":
                self._binding.discard(uid)
                if runner := self._runners.get(uid):
                    runner.vanished()
            elif runner := self._runners.get(uid):
                runner.update(pod)
            elif pod["spec"].get("nodeName") == self.name:
                self._adopt(pod)
            elif not pod["spec"].get("nodeName"):
                self._bind(pod)

    def _bind(self, pod: Object) -> None:
        """Assign a pod that waits for a scheduler to this node, the only one there is."""
        uid = pod["metadata"]["uid"]
        waits = pod["spec"].get("schedulingGates") or "deletionTimestamp" in pod["metadata"]
        if not waits and uid not in self._binding:
            self._binding.add(uid)
            task = asyncio.create_task(self._post_binding(pod))
            self._tasks.append(task)
            task.add_done_callback(self._tasks.remove)

    async def _post_binding(self, pod: Object) -> None:
        metadata = pod["metadata"]
        names = {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]}
        target = {"apiVersion": "v1", "kind": "Node", "name": self.name}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": names, "target": target}
        try:
            await self._api.create(f"/api/v1/namespaces/{names['namespace']}/pods/{names['name']}/binding", body)
        except (ApiError, *UNREACHABLE) as error:
            # A real scheduler was faster, or the pod is gone: the watch tells. Anything else: at its next event.
            log.info("pod not bound", pod=metadata["name"], namespace=metadata["namespace"], error=str(error))
            self._binding.discard(metadata["uid"])
        else:
            where = f"{names['namespace']}/{names['name']}"
            self._events.normal(pod, "Scheduled", f"Successfully assigned {where} to {self.name}")

    def _adopt(self, pod: Object) -> None:
        if pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}:
            return
        uid = pod["metadata"]["uid"]
        before = [
            self._lives[other]
            for other, runner in self._runners.items()
            if (runner.namespace, runner.name) == (pod["metadata"]["namespace"], pod["metadata"]["name"])
        ]
        pod = {"apiVersion": "v1", "kind": "Pod", **pod}
        runner = self._runners[uid] = PodRunner(pod, self._addresses.take(), self._services)
        if "deletionTimestamp" in pod["metadata"]:
            runner.update(pod)
        self._lives[uid] = asyncio.create_task(self._live(uid, runner, before))

    async def _live(self, uid: str, runner: PodRunner, before: Sequence[asyncio.Task[None]]) -> None:
        try:
            # A successor of the same name shares the claims' folders: never two of them at a time.
            await asyncio.gather(*before, return_exceptions=True)
            await runner.run()
        except Exception:
            log.exception("a pod's runner failed", pod=runner.name, namespace=runner.namespace)
        finally:
            self._addresses.give_back(runner.address)
            self._runners.pop(uid, None)
            self._lives.pop(uid, None)

    async def _watch_sources(self, collection: str, kind: str) -> None:
        """Wake pods whose Secrets and ConfigMaps change; their data is read by whoever needs it."""
        async for event, item in self._api.watch(f"/api/v1/{collection}", metadata_only=True):
            if event == "LISTED":
                continue
            metadata = item["metadata"]
            for runner in self._runners.values():
                if runner.namespace == metadata["namespace"]:
                    runner.source_changed(kind, metadata["name"])

    async def _wake_waiting_pods(self) -> None:
        while True:
            await self._claims.changed.wait()
            self._claims.changed.clear()
            for runner in self._runners.values():
                runner.look_again()


def _capacity() -> dict[str, str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": str(os.cpu_count() or 1), "memory": f"{memory // 1024}Ki", "pods": str(_MAX_PODS)}
