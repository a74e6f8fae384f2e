"""Probes, back-off and the status that follows from containers' states."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from malote_dev.processnode.addresses import AddressPool
from malote_dev.processnode.container import BackOff
from malote_dev.processnode.probes import Schedule, Tally
from malote_dev.processnode.status import ContainerView, phase, pod_status, terminated

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
RUNNING = {"running": {"startedAt": "2026-11-01T12:00:00Z"}}


def ended(code: int) -> dict[str, Any]:
    return terminated(code, NOW, NOW, "process://1")


def test_a_verdict_needs_the_threshold_in_a_row() -> None:
    tally = Tally(Schedule(successes=2, failures=3))
    answers = [False, False, True, False, False, False, True, True, True]
    assert [tally.add(ok) for ok in answers] == [None, None, None, None, None, False, None, True, True]


def test_restarts_are_immediate_first_then_double_up_to_five_minutes() -> None:
    back_off = BackOff(10.0)
    assert [back_off.next(1.0) for _ in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]
    assert back_off.next(601.0) == 0
    assert back_off.next(1.0) == 10


@pytest.mark.parametrize(
    ("policy", "states", "expected"),
    [
        ("Always", [RUNNING], "Running"),
        ("Always", [{"waiting": {"reason": "ContainerCreating"}}], "Pending"),
        ("Always", [RUNNING, {"waiting": {}}], "Pending"),
        ("Always", [ended(1)], "Running"),
        ("Never", [ended(0), ended(0)], "Succeeded"),
        ("Never", [ended(0), ended(2)], "Failed"),
        ("Never", [ended(0), RUNNING], "Running"),
        ("OnFailure", [ended(0)], "Succeeded"),
        ("OnFailure", [ended(3)], "Running"),
    ],
)
def test_the_phase_follows_from_policy_and_states(policy: str, states: list[dict[str, Any]], expected: str) -> None:
    assert phase(policy, [], [ContainerView(str(at), "", state=state) for at, state in enumerate(states)]) == expected


def test_a_container_in_back_off_keeps_the_pod_running() -> None:
    view = ContainerView("c", "", state={"waiting": {"reason": "CrashLoopBackOff"}}, last_state=ended(1))
    assert phase("Always", [], [view]) == "Running"


def test_init_containers_hold_the_pod_pending_and_fail_it_only_without_restarts() -> None:
    done, failed = ContainerView("i", "", state=ended(0)), ContainerView("i", "", state=ended(1))
    main = ContainerView("c", "", state=RUNNING)
    assert phase("Always", [ContainerView("i", "", state=RUNNING)], [main]) == "Pending"
    assert phase("Always", [done], [main]) == "Running"
    assert phase("Never", [failed], [ContainerView("c", "")]) == "Failed"


def test_a_signal_is_reported_as_128_and_its_number() -> None:
    state = terminated(-9, NOW, NOW, "process://1", "last words")["terminated"]
    assert (state["exitCode"], state["reason"], state["message"]) == (137, "Error", "last words")


def status(
    view: ContainerView, told: dict[str, Any] | None = None, now: datetime = NOW, **spec: Any
) -> dict[str, Any]:
    pod = {"metadata": {}, "spec": spec, "status": {}}
    return pod_status(
        pod,
        [],
        [view],
        address="127.64.0.1",
        host="127.0.0.1",
        started=NOW,
        volumes_ready=True,
        told=told or {},
        now=now,
    )


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(one for one in status["conditions"] if one["type"] == kind)


def test_readiness_follows_the_containers_and_its_transition_is_dated() -> None:
    unready = status(ContainerView("c", "", state=RUNNING))
    assert condition(unready, "Ready")["status"] == "False"
    assert condition(unready, "Ready")["message"] == "containers with unready status: [c]"
    later = NOW.replace(minute=5)
    ready = status(ContainerView("c", "", state=RUNNING, ready=True), unready, later)
    assert condition(ready, "Ready")["status"] == "True"
    assert condition(ready, "Ready")["message"] is None
    assert condition(ready, "Ready")["lastTransitionTime"] == "2026-11-01T12:05:00Z"
    assert condition(ready, "Initialized")["lastTransitionTime"] == "2026-11-01T12:00:00Z"


def test_a_readiness_gate_holds_ready_but_not_containers_ready() -> None:
    gated = status(
        ContainerView("c", "", state=RUNNING, ready=True), readinessGates=[{"conditionType": "example.com/open"}]
    )
    assert condition(gated, "Ready")["status"] == "False"
    assert condition(gated, "ContainersReady")["status"] == "True"


def test_two_pools_never_give_the_same_address() -> None:
    one, other = AddressPool(), AddressPool()
    taken = [pool.take() for _ in range(300) for pool in (one, other)]
    assert len(set(taken)) == len(taken)
    assert all(64 <= int(address.split(".")[1]) <= 127 for address in taken)
    one.give_back(taken[0])
    one.close()
    other.close()
