"""The workers, and the regular comparison of what is known with what is there.

kopf's watches tell of changes quickly, but it hides deletions that happen while a watch is interrupted. So
everything is listed and compared when leadership begins and every `resync_seconds`; that also puts right what
nobody watches (Secrets).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog

from malote_operator import metrics
from malote_operator.kube.apply import Name
from malote_operator.kube.errors import ApiError, Conflict, Forbidden, Transient
from malote_operator.kube.kinds import DOMAIN_CLAIM, PLAN, POD, SENDING_DOMAIN, TENANT, Kind

from .cache import CHILDREN, Wake, resource_version
from .context import Context
from .queue import Key

log = structlog.get_logger(__name__)

Reconcile = Callable[[Key], Awaitable[float | None]]
"""Look at one object; returns the seconds after which to look again at the latest, or None."""

LONGEST_VISIT = 120.0
FORBIDDEN_PAUSE = 30.0
OURS = "app.kubernetes.io/managed-by=malote-operator"


class Engine:
    """Runs the reconcilers of all kinds, `reconcilers` by the kind's name, while this replica leads."""

    def __init__(
        self,
        context: Context,
        reconcilers: Mapping[str, Reconcile],
        *,
        begin: Callable[[], Awaitable[None]],
        sweep: Callable[[], Awaitable[None]],
    ) -> None:
        self._context = context
        self._reconcilers = reconcilers
        self._begin = begin
        self._sweep = sweep

    async def warm(self) -> None:
        """Fill the cache, as a standby replica too should have it."""
        await self._persist(self.list_all)
        self._context.synced.set()

    async def lead(self) -> None:
        """Work until cancelled."""
        context = self._context
        context.queue.clear()
        context.applier.forget()
        await self._persist(self.list_all)
        await self._persist(self._begin)
        context.leading = True
        self.wake_all()
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(context.settings.workers):
                    tasks.create_task(self._work())
                tasks.create_task(self._resync())
                tasks.create_task(self._gauge())
        finally:
            context.leading = False
            context.queue.clear()
            metrics.count_tenants(())
            metrics.count_sending_domains(())
            await context.checks.stop()

    async def list_all(self) -> None:
        """Compare the cache with complete listings of everything that is watched."""
        relays = self._context.settings.relay_namespace
        for kind in (PLAN, TENANT, SENDING_DOMAIN, DOMAIN_CLAIM):
            await self._list(kind, "", "")
        for kind in (*CHILDREN, POD):
            await self._list(kind, relays, OURS)

    def wake_all(self) -> None:
        """Have every object looked at."""
        cache, queue = self._context.cache, self._context.queue
        for plan in cache.plans:
            queue.add(Key(PLAN.name, "", plan))
        for namespace, name in cache.domains:
            queue.add(Key(SENDING_DOMAIN.name, namespace, name))
        for tenant in cache.tenants:
            queue.add(Key(TENANT.name, "", tenant))
        for key in cache.unreadable:
            if key.kind in self._reconcilers:
                queue.add(key)

    async def _list(self, kind: Kind, namespace: str, selector: str) -> None:
        context = self._context
        present: list[Name] = []
        wakes: list[Wake] = []
        version = ""
        async for page in context.api.pages(kind, namespace, selector=selector):
            version = version or page.version
            for item in page.items:
                metadata = item["metadata"]
                present.append((kind.name, metadata.get("namespace", ""), metadata["name"]))
                wakes += context.cache.update(kind, item)
        for name in context.cache.missing_since(kind, present, version):
            wakes += context.cache.remove(name, resource_version(version))
        context.wake(wakes)

    async def _persist(self, step: Callable[[], Awaitable[None]]) -> None:
        pause = 0.5
        while True:
            try:
                return await step()
            except ApiError as error:
                log.warning("the start waits for the API server", error=str(error), seconds=pause)
            await asyncio.sleep(pause)
            pause = min(30.0, pause * 2)

    async def _work(self) -> None:
        queue = self._context.queue
        while True:
            key = await queue.take()
            metrics.QUEUE_DEPTH.set(len(queue))
            began = time.monotonic()
            try:
                async with asyncio.timeout(LONGEST_VISIT):
                    again = await self._reconcilers[key.kind](key)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                self._failed(key, error)
            else:
                queue.done(key, None if again is None else queue.now() + again)
            finally:
                metrics.RECONCILE_SECONDS.labels(key.kind).observe(time.monotonic() - began)

    def _failed(self, key: Key, error: Exception) -> None:
        metrics.RECONCILE_ERRORS.labels(key.kind).inc()
        queue = self._context.queue
        if isinstance(error, Transient):
            pause = queue.failed(key, at_least=error.retry_after)
            log.warning("will try again", key=str(key), seconds=pause, error=str(error))
        elif isinstance(error, Conflict):
            pause = queue.failed(key)
            log.info("changed meanwhile, will look again", key=str(key), seconds=pause, error=str(error))
        elif isinstance(error, Forbidden):
            pause = queue.failed(key, at_least=FORBIDDEN_PAUSE)
            log.error("the operator's role lacks a right", key=str(key), seconds=pause, error=str(error))
        elif isinstance(error, ApiError):
            pause = queue.failed(key)
            log.error("the API server refused", key=str(key), seconds=pause, error=str(error))
        else:
            pause = queue.failed(key)
            log.error("could not be reconciled", key=str(key), seconds=pause, exc_info=error)

    async def _resync(self) -> None:
        period = self._context.settings.resync_seconds
        while True:
            await asyncio.sleep(period * random.uniform(0.9, 1.1))  # noqa: S311 - only spreads load
            try:
                await self.list_all()
                await self._sweep()
            except ApiError as error:
                log.warning("the regular comparison is put off", error=str(error))
                continue
            self.wake_all()

    async def _gauge(self) -> None:
        cache = self._context.cache
        while True:
            metrics.QUEUE_DEPTH.set(len(self._context.queue))
            metrics.count_tenants(
                (one.type, one.status.value, one.reason)
                for tenant in cache.tenants.values()
                for one in tenant.status.conditions
            )
            metrics.count_sending_domains(
                next((one.reason for one in domain.status.conditions if one.type == "Ready"), "New")
                for domain in cache.domains.values()
            )
            await asyncio.sleep(5.0)
