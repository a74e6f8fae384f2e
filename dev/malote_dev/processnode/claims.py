"""PersistentVolumeClaims as folders: a small provisioner that speaks the real binder's protocol.

For each claim of the node's StorageClass (or of none) it creates a PersistentVolume pre-bound to that claim by
``claimRef``; kube-controller-manager's binder then binds the two. The folder lives exactly as long as the claim: when
the claim is gone the binder reports the volume as Released, and folder and volume are deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path

from malote_dev.kubeapi import UNREACHABLE, ApiError, KubeApi, Object
from malote_dev.processnode.payloads import MountError

PROVISIONER = "malote.dev/process-node"
STORAGE_CLASS = "process-node"
_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
_VOLUMES = "/api/v1/persistentvolumes"


class ClaimPendingError(MountError):
    """A claim does not exist or is not bound yet; it may be at any moment."""


class Claims:
    """Provisions claims under *directory*, and knows where each claim's folder lies."""

    def __init__(self, api: KubeApi, directory: Path) -> None:
        self._api = api
        self._directory = directory
        self._provisioned: set[str] = set()
        self.changed = asyncio.Event()
        """Set whenever a claim changed: pods that wait for one look again."""

    async def register_class(self) -> None:
        """Create the StorageClass; the cluster's default unless it has one."""
        classes = (await self._api.get(_CLASSES))["items"]
        if any(one["metadata"]["name"] == STORAGE_CLASS for one in classes):
            return
        has_default = any((one["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true" for one in classes)
        body = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": STORAGE_CLASS, "annotations": {_DEFAULT_CLASS: "false" if has_default else "true"}},
            "provisioner": PROVISIONER,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "Immediate",
        }
        with contextlib.suppress(ApiError):  # another node was faster
            await self._api.create(_CLASSES, body)

    async def watch_claims(self) -> None:
        """Provision what is asked for, until cancelled."""
        async for kind, claim in self._api.watch("/api/v1/persistentvolumeclaims"):
            if kind in {"ADDED", "MODIFIED"} and self._is_ours(claim):
                with contextlib.suppress(ApiError, *UNREACHABLE):
                    await self._provision(claim)
            self.changed.set()

    async def watch_volumes(self) -> None:
        """Delete folders and volumes whose claims are gone, until cancelled."""
        async for kind, volume in self._api.watch(_VOLUMES):
            annotations = volume.get("metadata", {}).get("annotations") or {}
            if kind in {"ADDED", "MODIFIED"} and annotations.get(_PROVISIONED_BY) == PROVISIONER:
                released = volume.get("status", {}).get("phase") == "Released"
                if released and "deletionTimestamp" not in volume["metadata"]:
                    with contextlib.suppress(ApiError, *UNREACHABLE):
                        await self._remove(volume)
            self.changed.set()

    async def folder(self, namespace: str, name: str) -> Path:
        """The folder of a bound claim. Raises MountError while there is none."""
        claim = await self._api.find(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}")
        if claim is None:
            raise ClaimPendingError(f'persistentvolumeclaim "{name}" not found')
        if claim.get("status", {}).get("phase") != "Bound":
            raise ClaimPendingError(f'persistentvolumeclaim "{name}" is not bound to a volume yet')
        volume = await self._api.get(f"{_VOLUMES}/{claim['spec']['volumeName']}")
        path = (volume["spec"].get("hostPath") or volume["spec"].get("local") or {}).get("path")
        if path is None:
            raise MountError(f"volume {volume['metadata']['name']} is no folder of this machine (hostPath or local)")
        return Path(path)

    def _is_ours(self, claim: Object) -> bool:
        spec = claim["spec"]
        return (
            not spec.get("volumeName")
            and "deletionTimestamp" not in claim["metadata"]
            and (spec.get("storageClassName") or STORAGE_CLASS) == STORAGE_CLASS
            and not spec.get("selector")
            and claim["metadata"]["uid"] not in self._provisioned
        )

    async def _provision(self, claim: Object) -> None:
        metadata, spec = claim["metadata"], claim["spec"]
        name = f"pvc-{metadata['uid']}"
        folder = self._directory / f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"
        folder.mkdir(parents=True, exist_ok=True)
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name, "annotations": {_PROVISIONED_BY: PROVISIONER}},
            "spec": {
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "accessModes": spec["accessModes"],
                "volumeMode": spec.get("volumeMode", "Filesystem"),
                "storageClassName": spec.get("storageClassName") or "",
                "persistentVolumeReclaimPolicy": "Delete",
                "hostPath": {"path": str(folder), "type": "DirectoryOrCreate"},
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": metadata["namespace"],
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                },
            },
        }
        try:
            await self._api.create(_VOLUMES, volume)
        except ApiError as error:
            if error.status != 409:
                raise
        self._provisioned.add(metadata["uid"])

    async def _remove(self, volume: Object) -> None:
        path = Path(volume["spec"]["hostPath"]["path"])
        # Only what lies in our own folder: the object might have been written by someone else.
        if path.parent == self._directory:
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
        await self._api.delete(f"{_VOLUMES}/{volume['metadata']['name']}", uid=volume["metadata"]["uid"])
