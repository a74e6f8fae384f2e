"""Events on pods and volumes, as `kubectl describe` shows them: written in the background, repeats counted."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from malote_dev.kubeapi import UNREACHABLE, ApiError, KubeApi, Object
from malote_dev.processnode.status import timestamp

_COMPONENT = "process-node"
# A repeated event is written at most this often, in seconds.
_REPEAT_EVERY = 5.0
_REMEMBERED = 2000


@dataclass
class _Written:
    name: str
    count: int
    at: float


class EventRecorder:
    """Takes events without waiting; `run` writes them until cancelled. An event that cannot be written is dropped."""

    def __init__(self, api: KubeApi, node: str) -> None:
        self._api = api
        self._node = node
        self._queue: asyncio.Queue[tuple[Object, str, str, str]] = asyncio.Queue()
        self._written: dict[tuple[str, str, str], _Written] = {}

    def warning(self, item: Object, reason: str, message: str) -> None:
        """Something is wrong with *item*."""
        self._queue.put_nowait((item, "Warning", reason, message))

    def normal(self, item: Object, reason: str, message: str) -> None:
        """Something happened to *item* as it should."""
        self._queue.put_nowait((item, "Normal", reason, message))

    async def run(self) -> None:
        """Write what comes."""
        while True:
            item, kind, reason, message = await self._queue.get()
            with contextlib.suppress(ApiError, *UNREACHABLE):
                await self._write(item, kind, reason, message[:1000])

    async def _write(self, item: Object, kind: str, reason: str, message: str) -> None:
        metadata = item["metadata"]
        namespace = metadata.get("namespace", "default")
        path = f"/api/v1/namespaces/{namespace}/events"
        now = timestamp(datetime.now(UTC))
        key = (metadata["uid"], reason, message)
        if known := self._written.get(key):
            known.count += 1
            if time.monotonic() - known.at > _REPEAT_EVERY:
                known.at = time.monotonic()
                await self._api.patch(f"{path}/{known.name}", {"count": known.count, "lastTimestamp": now})
            return
        name = f"{metadata['name']}.{secrets.token_hex(8)}"
        if len(self._written) >= _REMEMBERED:
            self._written.clear()
        self._written[key] = _Written(name, 1, time.monotonic())
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": item.get("apiVersion", "v1"),
                "kind": item.get("kind", "Pod"),
                "name": metadata["name"],
                "namespace": metadata.get("namespace", ""),
                "uid": metadata["uid"],
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": _COMPONENT, "host": self._node},
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
        }
        await self._api.create(path, event)
