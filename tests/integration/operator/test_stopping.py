"""Stopping mail: by deletion, by a suspension, by a plan that is gone. Nothing else that is wrong keeps it going."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.operator.conftest import data

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.conftest import Kubectl
    from tests.integration.operator.conftest import Eventually, Replica, Tenancy

pytestmark = pytest.mark.cluster

SUSPENDED = {"reason": "Abuse"}


def configuration(tenancy: Tenancy) -> dict[str, Any]:
    """What the operator has told the relay."""
    told: dict[str, Any] = json.loads(data(tenancy.child("secret", f"{tenancy.name}-relay"))["relay.json"])
    return told


def stopped(tenancy: Tenancy) -> bool:
    """Whether the relay is told to take nothing and to let nothing out."""
    told = configuration(tenancy)
    return not told["submission"]["open"] and told["delivery"]["frozen"] is True


def test_a_domain_in_deletion_sends_no_more_and_counts_no_more_whatever_finalizer_holds_it(
    operator: Replica, sending: Tenancy, eventually: Eventually, kubectl: Kubectl
) -> None:
    patch = '{"metadata":{"finalizers":["example.net/mine"]}}'
    where = ("sendingdomain", sending.name, "-n", sending.namespace)
    kubectl("patch", *where, "--type=merge", "-p", patch)
    later = sending.sending_domain(domain=f"later.{sending.domain}")
    later["metadata"]["name"] = f"{sending.name}-later"
    sending.apply(later)
    second = ("sendingdomain", later["metadata"]["name"], "-n", sending.namespace)

    def accepted() -> str:
        conditions = kubectl.json("get", *second).get("status", {}).get("conditions", ())
        return next((one["reason"] for one in conditions if one["type"] == "Accepted"), "")

    try:
        eventually(lambda: accepted() == "TooManyDomains")
        kubectl("delete", *where, "--wait=false")
        eventually(lambda: sending.reason("sendingdomain") == "Deleting")
        eventually(lambda: accepted() == "Accepted")
        eventually(lambda: not any(one["sending"] for one in configuration(sending)["domains"]))
        eventually(lambda: not kubectl("get", "domainclaim", sending.domain, "--ignore-not-found"))
        eventually(lambda: sending.condition("Verified", "sendingdomain")["status"] == "False")
        eventually(lambda: sending.condition("SubmissionOpen")["status"] == "False")
    finally:
        kubectl("patch", *where, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        kubectl("delete", *second)


def test_a_plan_that_is_gone_closes_submission_and_keeps_no_suspension_from_freezing(
    operator: Replica, sending: Tenancy, eventually: Eventually, kubectl: Kubectl
) -> None:
    kubectl("delete", "plan", sending.name)
    eventually(lambda: not configuration(sending)["submission"]["open"])
    assert configuration(sending)["plan"]["messagesPerHour"] == 3000, "the queue goes on by the plan that it had"
    assert configuration(sending)["delivery"]["frozen"] is False
    eventually(lambda: sending.condition("SubmissionOpen")["reason"] == "PlanNotFound")
    eventually(lambda: sending.condition("RelayAvailable")["status"] == "True")  # the relay runs, plan or not
    sending.apply(sending.tenant(suspend=SUSPENDED))
    eventually(lambda: stopped(sending))
    sending.apply(sending.plan(), sending.tenant())
    eventually(sending.ready)
    assert configuration(sending)["accounts"], "and back"


@pytest.mark.parametrize("part", ["smtp-app", "smtp-app elsewhere", "relay-keys", "tls", "state"])
def test_a_suspension_takes_effect_though_another_object_is_not_ours(
    part: str, operator: Replica, sending: Tenancy, eventually: Eventually, kubectl: Kubectl
) -> None:
    name = f"{sending.name}-{part.removesuffix(' elsewhere')}"
    namespace = sending.namespace if "elsewhere" in part else sending.platform.relays
    kind = "configmap" if part == "state" else "secret"
    sort = ("configmap",) if part == "state" else ("secret", "generic")
    # Somebody else's object in the place of ours; the operator must not be quicker.
    operator.process.send_signal(signal.SIGSTOP)
    kubectl("delete", kind, name, "-n", namespace)
    kubectl("create", *sort, name, "-n", namespace, "--from-literal=theirs=1")
    operator.process.send_signal(signal.SIGCONT)

    sending.apply(sending.tenant(suspend=SUSPENDED))
    eventually(lambda: stopped(sending))
    eventually(lambda: sending.reason() == "NameConflict")
    if part != "tls":  # a relay takes nothing in while its certificate is broken; the condition says Closing then
        eventually(lambda: sending.condition("SubmissionOpen")["reason"] == "Suspended")
    kubectl("delete", kind, name, "-n", namespace)
    eventually(lambda: sending.condition("SubmissionOpen")["reason"] == "Suspended")
    sending.apply(sending.tenant())
    eventually(sending.ready, within=120)


def test_a_changed_plan_is_no_news_while_the_relay_takes_it_in(
    operator: Replica, tenancies: Callable[[], Tenancy], eventually: Eventually, kubectl: Kubectl
) -> None:
    acme = tenancies().sends(eventually)

    def reasons() -> list[str]:
        events = kubectl.json("get", "events", "-n", "default")["items"]
        return sorted(one["reason"] for one in events if one["involvedObject"]["name"] == acme.name)

    before, since = reasons(), acme.condition("Ready")["lastTransitionTime"]
    for limit in (5, 6, 7):
        acme.apply(acme.plan(messagesPerHour=limit))
        wanted = limit
        eventually(lambda wanted=wanted: configuration(acme)["plan"]["messagesPerHour"] == wanted)
        eventually(lambda: acme.condition("Reconciling")["status"] == "False")
    assert acme.condition("Ready")["lastTransitionTime"] == since
    # It may have been told that it was loading on the way to its first Ready. The Plan has the tenant's name here and
    # says each time what it allows.
    assert [one for one in before if one != "Sending"] == [one for one in reasons() if one != "Sending"]
