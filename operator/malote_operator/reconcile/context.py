"""What every reconciliation works with, in one place, so that tests can put other parts in."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec
import structlog

from malote_operator import metrics
from malote_operator.api import API_VERSION
from malote_operator.api.meta import Condition, ConditionStatus, Metadata
from malote_operator.kube.apply import Applier
from malote_operator.kube.client import Api, Object
from malote_operator.kube.errors import Forbidden, Invalid, NotFound
from malote_operator.kube.events import Events
from malote_operator.kube.kinds import Kind
from malote_operator.policy.model import Problem
from malote_operator.settings import Settings

from .cache import Cache, Wake
from .checks import Checks
from .queue import Key, Queue
from .relaypods import RelayPods

log = structlog.get_logger(__name__)


def utc_now() -> dt.datetime:
    """The time, in UTC."""
    return dt.datetime.now(dt.UTC)


@dataclass
class Context:
    """The parts of the operator. `leading`: whether this replica may write."""

    settings: Settings
    api: Api
    applier: Applier
    cache: Cache
    queue: Queue
    events: Events
    checks: Checks
    pods: RelayPods
    now: Callable[[], dt.datetime] = utc_now
    leading: bool = False
    synced: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self, wakes: Iterable[Wake]) -> None:
        """Have these keys looked at. A standby replica only keeps its caches: it starts from a listing."""
        if self.leading:
            for one in wakes:
                self.queue.add(one.key, urgent=one.urgent)

    def seconds_until(self, when: dt.datetime | None) -> float | None:
        """For `Queue.done`: a time of the calendar as seconds from now."""
        return None if when is None else max(0.0, (when - self.now()).total_seconds())


async def write_status(
    context: Context, kind: Kind, metadata: Metadata, before: msgspec.Struct, after: msgspec.Struct
) -> bool:
    """Write a status by server-side apply if it differs from `before`; whether it was written.

    One that the API server refuses (its CustomResourceDefinitions are older than the operator) keeps nothing else
    from being done: domains are looked up and relays are told what to do all the same.
    """
    if before == after:
        return False
    body: Object = {
        "apiVersion": API_VERSION,
        "kind": kind.name,
        "metadata": {"name": metadata.name, "namespace": metadata.namespace}
        if metadata.namespace
        else {"name": metadata.name},
        "status": msgspec.to_builtins(after),
    }
    # The uid keeps a status from landing on an object of the same name that was made meanwhile.
    body["metadata"]["uid"] = metadata.uid
    try:
        result = await context.api.apply(kind, body, subresource="status")
    except NotFound:
        return False  # the object went meanwhile
    except Invalid as refusal:
        metrics.RECONCILE_ERRORS.labels(kind.name).inc()
        name = f"{metadata.namespace}/{metadata.name}".removeprefix("/")
        log.error("a status was refused; is the CRD of another version?", name=name, error=str(refusal))
        return False
    context.wake(wake for wake in context.cache.update(kind, result) if wake.key != _key(kind, metadata))
    return True


async def tell(
    context: Context, kind: Kind, metadata: Metadata, before: Iterable[Condition], after: Iterable[Condition]
) -> None:
    """An Event when the reason of Ready has changed; not for every look."""
    was, now = _ready(before), _ready(after)
    if now is None or (was is not None and (was.status, was.reason) == (now.status, now.reason)):
        return
    stalled = any(one.type == "Stalled" and one.status is ConditionStatus.TRUE for one in after)
    was_ready = was is not None and was.status is ConditionStatus.TRUE
    await context.events.record(
        regarding(kind, metadata),
        reason=now.reason,
        note=now.message or now.reason,
        action="Reconcile",
        warning=now.status is not ConditionStatus.TRUE and (stalled or was_ready),
    )


def regarding(kind: Kind, metadata: Metadata) -> Object:
    """What an Event is about."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind.name,
        "metadata": {
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
            "resourceVersion": metadata.resource_version,
        },
    }


def relay_namespace_missing(settings: Settings, missing: NotFound) -> Problem:
    """The problem of having nowhere to put relays; it ends by itself once the namespace is there."""
    log.warning("the relay namespace is missing", namespace=settings.relay_namespace, error=str(missing))
    return Problem(
        "RelayNamespaceMissing",
        f"namespace {settings.relay_namespace} is not there, or is going away: the Helm chart makes it",
        permanent=False,
    )


def refused(settings: Settings, refusal: Invalid | Forbidden) -> Problem:
    """The problem of a request that the API server does not grant to an operator that is installed rightly."""
    log.error("the API server refused", error=str(refusal))
    if isinstance(refusal, Forbidden):
        return Problem(
            "RequestForbidden",
            f"the operator's role lacks a right (or a quota of namespace {settings.relay_namespace} is used up):"
            " upgrade the Helm chart, which brings the role, together with the image. The operator's log says more",
            permanent=False,
        )
    return Problem(
        "RequestRefused", f"the API server does not take what the operator wants to write: {refusal.words}"
    )


def _ready(conditions: Iterable[Condition]) -> Condition | None:
    return next((one for one in conditions if one.type == "Ready"), None)


def _key(kind: Kind, metadata: Metadata) -> Key:
    return Key(kind.name, metadata.namespace, metadata.name)
