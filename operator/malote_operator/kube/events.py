"""Kubernetes Events: what happened to an object, for whoever runs `kubectl describe`."""

from __future__ import annotations

import datetime as dt
import secrets

import structlog

from .. import metrics
from .client import FIELD_MANAGER, Api, Object
from .errors import ApiError
from .kinds import EVENT

log = structlog.get_logger(__name__)

_NOTE_LIMIT = 1024
"""Octets: the API server refuses an Event with a longer note, and calls them characters."""


class Events:
    """Writes Events in the name of this replica."""

    def __init__(self, api: Api, identity: str) -> None:
        self._api = api
        self._identity = identity

    async def record(self, regarding: Object, *, reason: str, note: str, action: str, warning: bool) -> None:
        """Write one Event about an object. Events are a courtesy: a failure is logged, not raised."""
        metadata = regarding["metadata"]
        # Events about cluster-scoped objects live in `default`, as kubectl describe expects.
        namespace = metadata.get("namespace") or "default"
        body: Object = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.name,
            "metadata": {"name": f"{_start(metadata['name'])}.{secrets.token_hex(8)}", "namespace": namespace},
            "eventTime": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "action": action,
            "note": _cut(note),
            "regarding": {
                "apiVersion": regarding["apiVersion"],
                "kind": regarding["kind"],
                "name": metadata["name"],
                "namespace": metadata.get("namespace", ""),
                "uid": metadata.get("uid", ""),
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "reportingController": f"malote.dev/{FIELD_MANAGER}",
            "reportingInstance": self._identity,
        }
        try:
            await self._api.create(EVENT, body)
        except ApiError as error:
            log.warning("an Event could not be written", reason=reason, about=metadata["name"], error=str(error))
        else:
            metrics.EVENTS_WRITTEN.labels(reason).inc()


def _start(name: str) -> str:
    """As much of an object's name as there is room for before the Event's own part."""
    return name[:200].rstrip(".-")


def _cut(note: str) -> str:
    octets, end = note.encode(), "…"
    if len(octets) <= _NOTE_LIMIT:
        return note
    return octets[: _NOTE_LIMIT - len(end.encode())].decode(errors="ignore") + end
