"""A pod's life on the node: volumes, init containers, containers, status, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from malote_dev.kubeapi import STRATEGIC_MERGE_PATCH, UNREACHABLE, ApiError, KubeApi, Object
from malote_dev.offspring import Offspring
from malote_dev.processnode.claims import ClaimPendingError, Claims
from malote_dev.processnode.container import FIRST_BACK_OFF, Container, Prepared, Surroundings
from malote_dev.processnode.environment import container_environment
from malote_dev.processnode.events import EventRecorder
from malote_dev.processnode.paths import enclosing, rewriter
from malote_dev.processnode.payloads import MountError
from malote_dev.processnode.status import INITIALIZING, pod_status
from malote_dev.processnode.volumes import PodVolumes

HOST_ADDRESS = "127.0.0.1"
# A pod deleted by force has no object any more that could say how long to wait; the kubelet gives it a second.
FORCED_GRACE = 1.0
# Seconds during which a claim that is not bound yet is nothing to report.
QUIET_MOUNT = 3.0
_KINDS = {"Secret": "secrets", "ConfigMap": "configmaps"}


@dataclass(frozen=True)
class Services:
    """What all pods of a node share."""

    api: KubeApi
    offspring: Offspring
    claims: Claims
    events: EventRecorder
    directory: Path
    environ: Mapping[str, str]
    """What every process gets, PATH above all."""
    capacity: Mapping[str, str] = field(default_factory=dict)
    back_off: float = FIRST_BACK_OFF


class PodRunner:
    """Runs one pod (one uid) from its binding to its end."""

    def __init__(self, pod: Object, address: str, services: Services) -> None:
        self.pod = pod
        self.address = address
        self._services = services
        metadata = pod["metadata"]
        self.namespace, self.name, self.uid = metadata["namespace"], metadata["name"], metadata["uid"]
        self._path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"
        self._directory = services.directory / "pods" / f"{self.namespace}_{self.name}_{self.uid}"
        self._volumes = PodVolumes(services.api, services.claims, pod, self._directory, self._lookup)
        self._volumes_ready = False
        self._started = datetime.now(UTC)
        self._changed = asyncio.Event()
        self._refresh = asyncio.Event()
        self._ending = asyncio.Event()
        self._deadline = float("inf")
        self._exists = True
        self._told: Object | None = None
        self._retries: list[asyncio.Event] = []
        self._init = [self._container(spec) for spec in pod["spec"].get("initContainers") or ()]
        self._containers = [self._container(spec) for spec in pod["spec"]["containers"]]
        if self._init:
            for container in self._containers:
                container.view.state = dict(INITIALIZING)

    def update(self, pod: Object) -> None:
        """The API server has a newer version of the pod."""
        self.pod = pod
        self._refresh.set()
        self._changed.set()
        metadata = pod["metadata"]
        if "deletionTimestamp" in metadata:
            self._end_within(float(metadata.get("deletionGracePeriodSeconds") or 0))

    def vanished(self) -> None:
        """The pod's object is gone: what still runs ends quickly."""
        self._exists = False
        self._end_within(FORCED_GRACE)

    def end(self, longest: float) -> None:
        """The node shuts down: end within the pod's own grace period, but within *longest* seconds."""
        self._exists = False
        self._end_within(min(self._grace, longest))

    def source_changed(self, kind: str, name: str) -> None:
        """A Secret or ConfigMap of the pod's namespace has changed."""
        for retry in self._retries:
            retry.set()
        if (kind, name) in self._volumes.references:
            self._refresh.set()

    def look_again(self) -> None:
        """A claim has changed: volumes that could not be set up may be possible now."""
        if not self._volumes_ready:
            self._refresh.set()

    async def run(self) -> None:
        """Live until ended; afterwards nothing of the pod is left but its logs."""
        living = asyncio.create_task(self._live())
        publishing = asyncio.create_task(self._publish_changes())
        try:
            await self._ending.wait()
            for container in self._containers:
                if container.child is not None:
                    self._services.events.normal(self.pod, "Killing", f"Stopping container {container.spec['name']}")
            ends = [container.stop(lambda: self._deadline) for container in (*self._init, *self._containers)]
            await asyncio.gather(*ends)
        finally:
            for task in (living, publishing):
                task.cancel()
            await asyncio.gather(living, publishing, return_exceptions=True)
            await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)
        await self._remove()

    @property
    def _grace(self) -> float:
        return float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))

    def _end_within(self, grace: float) -> None:
        now = asyncio.get_running_loop().time()
        self._deadline = min(self._deadline, now + grace)
        self._ending.set()

    async def _live(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._changed.set()
        await self._set_up_volumes()
        current = asyncio.create_task(self._keep_volumes_current())
        try:
            for container in self._init:
                if await container.run() != 0:
                    return
                container.view.ready = True
            async with asyncio.TaskGroup() as group:
                for container in self._containers:
                    group.create_task(container.run())
            # All have ended for good; the object stays until someone deletes it.
            await asyncio.Event().wait()
        finally:
            current.cancel()
            await asyncio.gather(current, return_exceptions=True)

    async def _set_up_volumes(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            self._refresh.clear()
            try:
                await self._volumes.sync(self.pod)
            except (MountError, OSError) as error:
                # A claim takes a moment to be bound: that is no event.
                if loop.time() - began > QUIET_MOUNT or not isinstance(error, ClaimPendingError):
                    self._services.events.warning(self.pod, "FailedMount", str(error))
            except (ApiError, *UNREACHABLE):
                pass
            else:
                self._volumes_ready = True
                self._changed.set()
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    await self._refresh.wait()

    async def _keep_volumes_current(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._volumes.refresh_after):
                    await self._refresh.wait()
            self._refresh.clear()
            try:
                await self._volumes.sync(self.pod)
            except MountError as error:
                # What a running container sees stays as it was, as with the kubelet.
                self._services.events.warning(self.pod, "FailedMount", str(error))
            except (ApiError, OSError, *UNREACHABLE):
                await asyncio.sleep(1.0)
                self._refresh.set()

    def _container(self, spec: Object) -> Container:
        policy = self.pod["spec"].get("restartPolicy", "Always")
        is_init = spec in (self.pod["spec"].get("initContainers") or ())
        retry = asyncio.Event()
        self._retries.append(retry)
        return Container(
            spec,
            Surroundings(
                offspring=self._services.offspring,
                prepare=self._prepare,
                address=self.address,
                log=self._services.directory / "logs" / self.namespace / self.name / f"{spec['name']}.log",
                restart_policy="OnFailure" if is_init and policy == "Always" else policy,
                grace=self._grace,
                changed=self._changed.set,
                warn=lambda reason, message: self._services.events.warning(self.pod, reason, message),
                tell=lambda reason, message: self._services.events.normal(self.pod, reason, message),
                retry=retry,
                back_off=self._services.back_off,
            ),
        )

    async def _prepare(self, spec: Object) -> Prepared:
        """The environment and paths of one container's process. Raises ConfigError."""
        pod = {**self.pod, "status": {**self.pod.get("status", {}), **self._addresses()}}
        own = {
            "HOSTNAME": self.name,
            "HOME": str(self._directory),
            "MALOTE_LISTEN": self.address,
        }
        variables = await container_environment(
            pod, spec, {**self._services.environ, **own}, self._services.capacity, self._lookup
        )
        mounts = self._volumes.mounts(spec, variables)
        rewrite = rewriter(mounts, self._enclosing(spec["name"], mounts))
        environ = {name: rewrite(value) for name, value in variables.items()}
        if "TMPDIR" not in environ:
            scratch = mounts.get("/tmp") or self._directory / "tmp" / spec["name"]  # noqa: S108 the pod's path
            scratch.mkdir(parents=True, exist_ok=True)
            environ["TMPDIR"] = str(scratch)
        kubeconfig = self._volumes.kubeconfig(mounts)
        if kubeconfig is not None and "KUBECONFIG" not in environ:
            environ["KUBECONFIG"] = str(kubeconfig)
        return Prepared(environ, rewrite, variables, self._directory)

    def _enclosing(self, container: str, mounts: Mapping[str, Path]) -> dict[str, Path]:
        """Local folders for those that hold several mounts, with a link for each mount."""
        local: dict[str, Path] = {}
        for path, entries in enclosing(mounts).items():
            local[path] = self._directory / "enclosing" / container / path.strip("/")
            local[path].mkdir(parents=True, exist_ok=True)
            for name, target in entries.items():
                link = local[path] / name
                link.unlink(missing_ok=True)
                link.symlink_to(target)
        return local

    def _addresses(self) -> Object:
        return {
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "hostIP": HOST_ADDRESS,
            "hostIPs": [{"ip": HOST_ADDRESS}],
        }

    async def _lookup(self, kind: str, name: str) -> Object | None:
        # Always the server's present state: a cache could hand out what was there before the pod was made.
        found = await self._services.api.find(f"/api/v1/namespaces/{self.namespace}/{_KINDS[kind]}/{name}")
        return None if found is None else {**found, "kind": kind}

    def _status(self) -> Object:
        return pod_status(
            self.pod,
            [container.view for container in self._init],
            [container.view for container in self._containers],
            address=self.address,
            host=HOST_ADDRESS,
            started=self._started,
            volumes_ready=self._volumes_ready,
            told=self._told or self.pod.get("status", {}),
            now=datetime.now(UTC),
        )

    async def _publish_changes(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._publish()
            except ApiError as error:
                if error.status in {404, 409}:
                    return
                await asyncio.sleep(0.5)
                self._changed.set()
            except UNREACHABLE:
                await asyncio.sleep(0.5)
                self._changed.set()

    async def _publish(self) -> None:
        status = self._status()
        if status == self._told:
            return
        # The uid makes it a conflict to write to a successor of the same name.
        body = {"metadata": {"uid": self.uid}, "status": status}
        await self._services.api.patch(f"{self._path}/status", body, STRATEGIC_MERGE_PATCH)
        self._told = status

    async def _remove(self) -> None:
        """Tell how the containers ended, then remove the object: only now may a successor of its name be made."""
        while self._exists:
            try:
                await self._publish()
            except (ApiError, *UNREACHABLE):
                pass
            try:
                await self._services.api.delete(self._path, grace=0, uid=self.uid)
                return
            except (ApiError, *UNREACHABLE):
                await asyncio.sleep(0.5)

    def runs_container(self, name: str) -> bool:
        """Whether the pod has a container of that name."""
        return any(container.spec["name"] == name for container in self._all)

    @functools.cached_property
    def _all(self) -> Sequence[Container]:
        return (*self._init, *self._containers)
