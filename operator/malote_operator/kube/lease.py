"""Leadership by a Lease: of several replicas one works, the others stand by with warm caches.

The holder renews every `renew_every` seconds. Whoever sees that the Lease has not changed for `duration` seconds
*of its own monotonic clock* may take it; the holder itself gives up after `give_up_after` seconds without a
renewal, which is earlier, so that two never work at once even if clocks disagree. On a graceful stop the
holder empties the Lease, and a standby takes over at once.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from .client import Object
from .errors import AlreadyExists, ApiError, Conflict
from .kinds import LEASE, Kind

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. `give_up_after` + `call_timeout` must be less than `duration`."""

    duration: float = 15.0
    renew_every: float = 4.0
    give_up_after: float = 10.0
    call_timeout: float = 4.0
    retry_every: float = 2.0


class LeaseApi(Protocol):
    """What the loop needs of the API server."""

    async def find(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        """The Lease, or None."""
        ...

    async def create(self, kind: Kind, body: Object) -> Object:
        """Make it. Raises AlreadyExists."""
        ...

    async def replace(self, kind: Kind, body: Object) -> Object:
        """Replace the version that was read. Raises Conflict."""
        ...


class Leadership:
    """Competes for one Lease. While it is held, `held` runs; when it is lost, `held` is cancelled and waited for."""

    def __init__(
        self,
        api: LeaseApi,
        *,
        namespace: str,
        name: str,
        identity: str,
        timing: Timing | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._api = api
        self._namespace, self._name, self._identity = namespace, name, identity
        self._timing = timing or Timing()
        self._clock = clock or asyncio.get_running_loop().time
        self._seen: tuple[str, float] = ("", 0.0)
        self._lease: Object | None = None
        self.leading = False

    async def run(self, held: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
        """Compete until `stop` is set, then release. An exception of `held` ends the leadership and is raised."""
        try:
            while not stop.is_set():
                asked = self._clock()
                if await self._try(self._timing.call_timeout):
                    await self._lead(held, stop, asked)
                else:
                    await _pause(stop, self._timing.retry_every)
        finally:
            await self._release()

    async def _lead(self, held: Callable[[], Awaitable[None]], stop: asyncio.Event, renewed: float) -> None:
        """Work and renew. `renewed`: when the last successful attempt began; others count from then or later."""

        def left() -> float:
            return self._timing.give_up_after - (self._clock() - renewed)

        log.info("leading", lease=f"{self._namespace}/{self._name}", identity=self._identity)
        self.leading = True
        work = asyncio.ensure_future(held())
        pause = self._timing.renew_every
        try:
            while not stop.is_set() and not work.done():
                # Neither a pause nor a call that hangs may outlast the time in which nobody else can lead.
                await _pause(stop, min(pause, left()), work)
                if stop.is_set() or work.done():
                    break
                asked, within = self._clock(), left()
                if within > 0 and await self._try(min(self._timing.call_timeout, within)):
                    renewed, pause = asked, self._timing.renew_every
                elif self._taken() or left() <= 0:
                    log.warning("lost the lease: the workers stop", identity=self._identity)
                    break
                else:
                    # Between two failures wait less than between two renewals: time runs out.
                    pause = self._timing.retry_every / 2
        finally:
            self.leading = False
            work.cancel()
            await asyncio.wait([work])
        if not work.cancelled() and (error := work.exception()) is not None:
            raise error

    async def _try(self, within: float) -> bool:
        """One attempt to take or renew, of so many seconds; whether the Lease is ours now."""
        try:
            async with asyncio.timeout(within):
                return await self._attempt()
        except (AlreadyExists, Conflict):
            return False  # another replica was quicker
        except (ApiError, TimeoutError) as error:
            log.warning("the lease cannot be read or written", error=str(error) or "time-out")
            return False

    async def _attempt(self) -> bool:
        lease = await self._api.find(LEASE, self._name, self._namespace)
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if lease is None:
            self._lease = await self._api.create(LEASE, self._body(now, now, transitions=0))
            return True
        self._lease = lease
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder not in {"", self._identity} and not self._expired(lease):
            return False
        ours = holder == self._identity
        body = self._body(
            acquired=spec.get("acquireTime") or now if ours else now,
            renewed=now,
            transitions=int(spec.get("leaseTransitions") or 0) + (0 if ours else 1),
        )
        body["metadata"]["resourceVersion"] = lease["metadata"]["resourceVersion"]
        self._lease = await self._api.replace(LEASE, body)
        return True

    def _expired(self, lease: Object) -> bool:
        version = lease["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, self._clock())
            return False
        return self._clock() - self._seen[1] >= self._timing.duration

    def _taken(self) -> bool:
        spec = (self._lease or {}).get("spec") or {}
        return (spec.get("holderIdentity") or "") not in {"", self._identity}

    async def _release(self) -> None:
        spec = (self._lease or {}).get("spec") or {}
        if self._lease is None or spec.get("holderIdentity") != self._identity:
            return
        body = self._lease | {"spec": spec | {"holderIdentity": "", "leaseDurationSeconds": 1}}
        try:
            async with asyncio.timeout(self._timing.call_timeout):
                await self._api.replace(LEASE, body)
        except (ApiError, TimeoutError) as error:
            log.warning("the lease could not be released: it will run out", error=str(error) or "time-out")

    def _body(self, acquired: str, renewed: str, transitions: int) -> Object:
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.name,
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": int(self._timing.duration),
                "acquireTime": acquired,
                "renewTime": renewed,
                "leaseTransitions": transitions,
            },
        }


async def _pause(stop: asyncio.Event, seconds: float, work: asyncio.Future[None] | None = None) -> None:
    """Sleep, but not beyond `stop` or the end of `work`."""
    waiter = asyncio.ensure_future(stop.wait())
    try:
        ends: list[asyncio.Future[Any]] = [waiter] if work is None else [waiter, work]
        await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()
