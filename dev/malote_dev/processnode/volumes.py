"""A pod's volumes as local folders, kept current for as long as the pod lives."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from malote_dev.kubeapi import KubeApi, Object, write_kubeconfig
from malote_dev.processnode.atomicfiles import replace_files
from malote_dev.processnode.claims import Claims
from malote_dev.processnode.environment import expand
from malote_dev.processnode.payloads import (
    FILE_VOLUMES,
    MountError,
    Sources,
    references,
    token_seconds,
    volume_files,
)

TOKEN_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 a path
# The kubelet renews a token when a fifth of its life is left.
_RENEW_AT = 0.8


class Tokens:
    """Service account tokens bound to one pod, renewed before they expire."""

    def __init__(self, api: KubeApi, pod: Object, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._pod = pod
        self._clock = clock
        self._tokens: dict[tuple[str, int], tuple[str, float]] = {}

    async def get(self, audience: str, seconds: int) -> str:
        """A token that has at least a fifth of its *seconds* left."""
        known = self._tokens.get((audience, seconds))
        if known is not None and self._clock() - known[1] < seconds * _RENEW_AT:
            return known[0]
        metadata = self._pod["metadata"]
        account = self._pod["spec"].get("serviceAccountName") or "default"
        bound = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        spec: Object = {"expirationSeconds": seconds, "boundObjectRef": bound}
        if audience:
            spec["audiences"] = [audience]
        answer = await self._api.create(
            f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
        )
        token = str(answer["status"]["token"])
        self._tokens[audience, seconds] = (token, self._clock())
        return token


class PodVolumes:
    """The folders behind one pod's volumes."""

    def __init__(
        self,
        api: KubeApi,
        claims: Claims,
        pod: Object,
        directory: Path,
        lookup: Callable[[str, str], Awaitable[Object | None]],
    ) -> None:
        self._api = api
        self._claims = claims
        self._directory = directory
        self._volumes: list[Object] = pod["spec"].get("volumes") or []
        self._sources = Sources(lookup, Tokens(api, pod).get)
        self._folders: dict[str, Path] = {}

    @property
    def references(self) -> set[tuple[str, str]]:
        """The (kind, name) of every Secret and ConfigMap shown in a volume."""
        return set().union(*(references(volume) for volume in self._volumes))

    @property
    def refresh_after(self) -> float:
        """Seconds after which the volumes should be looked at even if nothing is reported to have changed."""
        lifetimes = [seconds for volume in self._volumes if (seconds := token_seconds(volume))]
        return min([60.0, *(seconds * (1 - _RENEW_AT) / 2 for seconds in lifetimes)])

    async def sync(self, pod: Object) -> None:
        """Set up what is missing and bring files up to date. Raises MountError, naming the volume."""
        for volume in self._volumes:
            try:
                self._folders[volume["name"]] = await self._sync(pod, volume)
            except MountError as error:
                raise type(error)(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}') from error

    async def _sync(self, pod: Object, volume: Object) -> Path:
        folder: Path = self._directory / "volumes" / str(volume["name"])
        if any(kind in volume for kind in FILE_VOLUMES):
            replace_files(folder, await volume_files(pod, volume, self._sources))
            return folder
        if "emptyDir" in volume:
            return _made(folder)
        if claim := volume.get("persistentVolumeClaim"):
            known = self._folders.get(volume["name"])
            return known or await self._claims.folder(pod["metadata"]["namespace"], claim["claimName"])
        if host := volume.get("hostPath"):
            return _host_path(host)
        kinds = ", ".join(set(volume) - {"name"})
        raise MountError(f"the process node cannot provide a volume of kind {kinds}")

    def mounts(self, container: Object, variables: dict[str, str]) -> dict[str, Path]:
        """Where each mount path of *container* lies on this machine."""
        found = {}
        for mount in container.get("volumeMounts") or ():
            folder = self._folders[mount["name"]]
            below = expand(mount["subPathExpr"], variables) if "subPathExpr" in mount else mount.get("subPath")
            if below:
                folder = folder / below
                if not folder.exists():
                    folder.mkdir(parents=True)
            found[mount["mountPath"]] = folder
        return found

    def kubeconfig(self, mounts: dict[str, Path]) -> Path | None:
        """A kubeconfig for the pod's own service account, where its token is mounted; None elsewhere."""
        folder = mounts.get(TOKEN_MOUNT)
        if folder is None or not (folder / "token").exists():
            return None
        return write_kubeconfig(
            self._directory / "kubeconfig",
            server=self._api.config.server,
            authority_file=folder / "ca.crt",
            token_file=folder / "token",
        )


def _host_path(source: Object) -> Path:
    path = Path(str(source["path"]))
    return _made(path) if source.get("type") == "DirectoryOrCreate" else path


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
