"""The relay's pods as they are: what they have loaded, and making the kubelet look at changed Secrets at once.

The kubelet refreshes a mounted Secret within a minute, but at once when the pod's own object changes: so after a
Secret was written, an annotation of the pod is touched, and touched again until the relay reports the new
configuration (the kubelet may have read the old Secret the first time). Annotating the pod, not the template,
restarts nothing.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Iterable

import aiohttp
import msgspec
import structlog

from malote_operator.api.tenant import AccountPaused
from malote_operator.kube.client import Api
from malote_operator.kube.errors import NotFound
from malote_operator.kube.kinds import POD
from malote_operator.policy.model import PodObservation, RelayObservation

from .cache import RelayPod, RelaySet

log = structlog.get_logger(__name__)

CONFIG_HASH = "malote.dev/config-hash"
"""The hash of the configuration that the pod should load."""
SECRETS = "malote.dev/secrets"
"""A digest of all three Secrets and the number of the attempt to have them read."""
OBSERVE_PORT = 9090
RETRY_FIRST = 0.3
RETRY_LONGEST = 10.0

_TIMEOUT = aiohttp.ClientTimeout(total=3.0)
_SILENT_TIMEOUT = aiohttp.ClientTimeout(total=1.0)
"""For a relay that let time run out last time: those of a node that is down must not keep all workers waiting."""
_ANSWER_LIMIT = 262_144
"""Octets: a relay with 200 paused accounts says some 60,000."""


class _Paused(msgspec.Struct, rename="camel"):
    """An account that the relay has paused by itself."""

    account: str
    since: dt.datetime
    until: dt.datetime | None = None
    reason: str = ""


class _Readiness(msgspec.Struct, rename="camel"):
    """The body of a relay's /readyz."""

    ready: bool = False
    config_hash: str = ""
    submission_open: bool = False
    config_error: str = ""
    paused_accounts: tuple[_Paused, ...] = ()


class RelayPods:
    """Looks at relays over HTTP. Use as an async context manager."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._session: aiohttp.ClientSession | None = None
        self._attempts: dict[str, int] = {}
        self._due: dict[str, float] = {}  # when a pod may be touched again, by its uid
        self._silent: dict[str, str] = {}  # the addresses at which nothing answered in time, by the pod's name
        self._clock = time.monotonic

    async def __aenter__(self) -> RelayPods:
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def observe(self, relays: RelaySet | None, pods: Iterable[RelayPod]) -> RelayObservation:
        """What is there of a relay now."""
        pods = [pod for pod in pods if not pod.terminating]
        seen = await asyncio.gather(*(self._look(pod) for pod in pods))
        return RelayObservation(
            exists=relays is not None,
            replicas=relays.replicas if relays else 1,
            ready_replicas=sum(pod.ready for pod in seen),
            pods=tuple(seen),
            message=next((f"{pod.name}: {pod.trouble}" for pod in pods if pod.trouble), ""),
        )

    async def announce(self, pods: Iterable[RelayPod], config_hash: str, secrets: str, *, again: bool) -> bool:
        """Touch the pods that have not been told of these Secrets; `again`: also those that did not load them.

        Those again only after a pause that grows: the touch itself has the tenant looked at once more, and a relay
        that refuses its configuration would be touched without end. Returns whether anything was written.
        """
        written = False
        for pod in pods:
            if pod.terminating:
                continue
            told = dict(pod.annotations).get(SECRETS, "")
            if told.partition(".")[0] == secrets and not again:
                continue
            if again and self._clock() < self._due.get(pod.uid, 0.0):
                continue
            attempt = self._attempts.get(pod.uid, 0) + 1 if again else 0
            self._attempts[pod.uid] = attempt
            self._due[pod.uid] = self._clock() + _pause(attempt)
            annotations = {CONFIG_HASH: config_hash, SECRETS: f"{secrets}.{attempt}"}
            try:
                await self._api.merge(POD, pod.name, self._namespace, {"metadata": {"annotations": annotations}})
            except NotFound:
                continue  # it went meanwhile; its successor reads the new Secrets when it starts
            written = True
        return written

    def retry_delay(self, pods: Iterable[RelayPod]) -> float:
        """Seconds until the pods should be asked again whether they have loaded the configuration."""
        due = max((self._due.get(pod.uid, 0.0) for pod in pods), default=0.0)
        return max(RETRY_FIRST, due - self._clock())

    def settled(self, pods: Iterable[RelayPod]) -> None:
        """The pods have loaded what they should: the next change starts with short delays again."""
        for pod in pods:
            self._attempts.pop(pod.uid, None)
            self._due.pop(pod.uid, None)

    async def _look(self, pod: RelayPod) -> PodObservation:
        """One relay. No answer twice in a row: nothing is known of what it has loaded.

        One that let the time run out is asked once, and briefly, until it answers.
        """
        if self._silent.get(pod.name) == pod.address:
            found = await self._readiness(pod, _SILENT_TIMEOUT)
        else:
            found = await self._readiness(pod, _TIMEOUT) or await self._readiness(pod, _TIMEOUT)
        if found is not None:
            self._silent.pop(pod.name, None)
        state = found or _Readiness()
        return PodObservation(
            name=pod.name,
            ready=pod.ready,
            config_hash=state.config_hash,
            submission_open=state.submission_open,
            config_error=state.config_error,
            paused={
                one.account: AccountPaused(since=one.since, until=one.until, reason=one.reason)
                for one in state.paused_accounts
            },
        )

    async def _readiness(self, pod: RelayPod, timeout: aiohttp.ClientTimeout) -> _Readiness | None:
        if not pod.address or self._session is None:
            return None
        host = f"[{pod.address}]" if ":" in pod.address else pod.address
        try:
            async with self._session.get(f"http://{host}:{OBSERVE_PORT}/readyz", timeout=timeout) as response:
                return msgspec.json.decode(await _body(response), type=_Readiness)
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError) as error:
            if isinstance(error, TimeoutError):
                self._silent[pod.name] = pod.address
            log.debug("a relay does not answer", pod=pod.name, error=str(error) or type(error).__name__)
            return None


def _pause(attempts: int) -> float:
    return min(RETRY_LONGEST, RETRY_FIRST * 1.5 ** min(attempts, 20))


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """The answer's body, as far as it may go: a long one comes in pieces."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > _ANSWER_LIMIT:
            break
    return bytes(body)
