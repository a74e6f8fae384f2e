"""Volumes for the node's claims: folders made beforehand, since nothing provisions here.

They are of the `local` kind and not `hostPath`, because the kubelet applies a pod's fsGroup to these only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from malote_dev.realnode.configs import NODE_NAME

STORAGE_CLASS = "local"


def manifests(folder: Path, count: int = 12) -> list[dict[str, Any]]:
    """A default StorageClass and `count` volumes, whose folders are made."""
    made: list[dict[str, Any]] = [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": STORAGE_CLASS,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
            "reclaimPolicy": "Retain",
        }
    ]
    for number in range(count):
        path = folder / f"volume-{number:02}"
        path.mkdir(parents=True, exist_ok=True)
        made.append(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": path.name},
                "spec": {
                    "capacity": {"storage": "1Ti"},
                    "accessModes": ["ReadWriteOnce"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "storageClassName": STORAGE_CLASS,
                    "local": {"path": str(path)},
                    "nodeAffinity": {
                        "required": {
                            "nodeSelectorTerms": [
                                {
                                    "matchExpressions": [
                                        {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]}
                                    ]
                                }
                            ]
                        }
                    },
                },
            }
        )
    return made
