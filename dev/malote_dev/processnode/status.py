"""What a pod's containers are doing, as the pod status that the API server is told. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]

CREATING: Object = {"waiting": {"reason": "ContainerCreating"}}
INITIALIZING: Object = {"waiting": {"reason": "PodInitializing"}}


@dataclass
class ContainerView:
    """One container as its runner sees it; `state` and `last_state` have the API's form."""

    name: str
    image: str
    state: Object = field(default_factory=lambda: dict(CREATING))
    last_state: Object = field(default_factory=dict)
    ready: bool = False
    started: bool = False
    restarts: int = 0
    identity: str = ""

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return "running" in self.state

    @property
    def exit_code(self) -> int | None:
        """The exit code of a container that ended and stays so."""
        ended = self.state.get("terminated")
        return None if ended is None else int(ended["exitCode"])


def timestamp(moment: datetime) -> str:
    """A time as the API writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def terminated(code: int, started: datetime, finished: datetime, identity: str, message: str = "") -> Object:
    """The state of a container whose process ended; *code* as from `subprocess` (negative: a signal)."""
    exit_code = 128 - code if code < 0 else code
    ended = {
        "exitCode": exit_code,
        "reason": "Completed" if exit_code == 0 else "Error",
        "startedAt": timestamp(started),
        "finishedAt": timestamp(finished),
        "containerID": identity,
    }
    return {"terminated": ended | ({"message": message} if message else {})}


def phase(restart_policy: str, init: Sequence[ContainerView], containers: Sequence[ContainerView]) -> str:
    """Pending, Running, Succeeded or Failed, by the rules of the pod life cycle."""
    if any(view.exit_code not in {0, None} for view in init) and restart_policy == "Never":
        return "Failed"
    if any(view.exit_code is None for view in init):
        return "Pending"
    if any(not view.running and view.exit_code is None and not view.last_state for view in containers):
        return "Pending"
    codes = [view.exit_code for view in containers]
    if restart_policy == "Always" or any(code is None for code in codes):
        return "Running"
    if all(code == 0 for code in codes):
        return "Succeeded"
    return "Failed" if restart_policy == "Never" else "Running"


def container_status(view: ContainerView) -> Object:
    """One entry of ``containerStatuses``."""
    return {
        "name": view.name,
        "image": view.image,
        "imageID": "",
        "containerID": view.identity,
        "state": view.state,
        "lastState": view.last_state,
        "ready": view.ready,
        "started": view.started,
        "restartCount": view.restarts,
    }


def pod_status(
    pod: Object,
    init: Sequence[ContainerView],
    containers: Sequence[ContainerView],
    *,
    address: str,
    host: str,
    started: datetime,
    volumes_ready: bool,
    told: Object,
    now: datetime,
) -> Object:
    """The status as a strategic merge patch, which leaves other writers' conditions alone.

    Conditions that are as the status *told* last says keep their transition time.
    """
    policy = pod["spec"].get("restartPolicy", "Always")
    reached = phase(policy, init, containers)
    over = reached in {"Succeeded", "Failed"}
    uninitialised = [view.name for view in init if view.exit_code != 0]
    unready = [view.name for view in containers if not view.ready]
    initialised = _condition(
        "Initialized",
        not uninitialised,
        "ContainersNotInitialized",
        "containers with incomplete status",
        uninitialised,
    )
    if over:
        ready = {"status": "False", "reason": "PodCompleted"}
    else:
        ready = _condition("", not unready, "ContainersNotReady", "containers with unready status", unready)
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or ()]
    held = [gate for gate in gates if _existing(pod.get("status", {}), gate).get("status") != "True"]
    if ready["status"] == "True" and held:
        gated = {"status": "False", "reason": "ReadinessGatesNotReady", "message": f"waits for {', '.join(held)}"}
    else:
        gated = dict(ready)
    own = [
        {"type": "PodReadyToStartContainers", "status": "True" if volumes_ready else "False"},
        initialised,
        {**gated, "type": "Ready"},
        {**ready, "type": "ContainersReady"},
        {"type": "PodScheduled", "status": "True"},
    ]
    status = {
        "phase": reached,
        "hostIP": host,
        "hostIPs": [{"ip": host}],
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": timestamp(started),
        "conditions": [_dated(told, condition, now) for condition in own],
        "containerStatuses": [container_status(view) for view in containers],
    }
    if init:
        status["initContainerStatuses"] = [container_status(view) for view in init]
    return status


def _condition(kind: str, fulfilled: bool, reason: str, message: str, names: list[str]) -> Object:
    if fulfilled:
        return {"type": kind, "status": "True"}
    return {"type": kind, "status": "False", "reason": reason, "message": f"{message}: [{' '.join(names)}]"}


def _existing(status: Object, kind: str) -> Object:
    conditions = status.get("conditions") or ()
    return next((condition for condition in conditions if condition["type"] == kind), {})


def _dated(told: Object, condition: Object, now: datetime) -> Object:
    before = _existing(told, condition["type"])
    changed = before.get("status") != condition["status"]
    return {
        # Merging keeps what is not mentioned: a reason that no longer holds must be taken back.
        "reason": None,
        "message": None,
        **condition,
        "lastTransitionTime": timestamp(now) if changed else before.get("lastTransitionTime", timestamp(now)),
        "lastProbeTime": None,
    }
