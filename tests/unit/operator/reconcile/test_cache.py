"""What an event wakes, and what it does not."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from malote_operator.kube.kinds import DOMAIN_CLAIM, PLAN, POD, SENDING_DOMAIN, SERVICE, STATEFUL_SET, TENANT
from malote_operator.reconcile.cache import GONE_REMEMBERED, Cache, relay_pod
from malote_operator.reconcile.queue import Key


def obj(kind: str, name: str, version: int, namespace: str = "", **parts: Any) -> dict[str, Any]:
    metadata = {"name": name, "uid": f"{name}-uid", "generation": 1, "resourceVersion": str(version)}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": "malote.dev/v1alpha1", "kind": kind, "metadata": metadata, **parts}


def plan(version: int, limit: int = 10) -> dict[str, Any]:
    return obj("Plan", "p", version, spec={"messagesPerHour": limit})


def tenant(version: int, name: str = "acme", plan: str = "p", **status: Any) -> dict[str, Any]:
    spec = {"planRef": {"name": plan}, "contact": {"email": "a@b.example"}, "namespaces": ["n"]}
    return obj("Tenant", name, version, spec=spec, status=status)


def domain(version: int, name: str = "d", tenant: str = "acme") -> dict[str, Any]:
    return obj("SendingDomain", name, version, "n", spec={"tenantRef": {"name": tenant}, "domain": f"{name}.example"})


@pytest.fixture
def cache() -> Cache:
    one = Cache()
    one.update(PLAN, plan(1))
    one.update(TENANT, tenant(2))
    one.update(SENDING_DOMAIN, domain(3))
    return one


def woken(wakes: Any) -> set[str]:
    return {str(one.key) for one in wakes}


def test_a_plans_change_wakes_its_tenants_and_their_domains_and_a_new_version_alone_nobody(cache: Cache) -> None:
    assert woken(cache.update(PLAN, plan(4, limit=11))) == {"Plan p", "Tenant acme", "SendingDomain n/d"}
    assert woken(cache.update(PLAN, plan(5, limit=11))) == set()


def test_a_plan_that_goes_wakes_the_same(cache: Cache) -> None:
    assert woken(cache.remove(("Plan", "", "p"))) == {"Tenant acme", "SendingDomain n/d"}


def test_a_tenants_change_wakes_its_domains_and_its_own_status_write_nobody(cache: Cache) -> None:
    written = tenant(4, observedGeneration=1)
    cache.update(TENANT, written)
    assert woken(cache.update(TENANT, copy.deepcopy(written))) == set()
    moved = tenant(5, plan="other", observedGeneration=1)
    assert woken(cache.update(TENANT, moved)) == {"Tenant acme", "SendingDomain n/d", "Plan p", "Plan other"}
    assert cache.tenants_of("p") == ()
    assert cache.tenants_of("other") == ("acme",)


def test_a_status_that_somebody_else_wrote_wakes_its_object(cache: Cache) -> None:
    assert "Tenant acme" in woken(cache.update(TENANT, tenant(9, observedGeneration=77)))


def test_late_news_does_not_undo_newer(cache: Cache) -> None:
    cache.update(PLAN, plan(9, limit=99))
    assert cache.update(PLAN, plan(8, limit=1)) == []
    assert cache.plans["p"].spec.messages_per_hour == 99


def test_a_domain_wakes_its_tenant_when_it_comes_and_goes_and_no_sibling(cache: Cache) -> None:
    assert woken(cache.update(SENDING_DOMAIN, domain(4, "e"))) == {"SendingDomain n/e", "Tenant acme"}
    assert woken(cache.update(SENDING_DOMAIN, domain(5, "e"), deleted=True)) == {"SendingDomain n/e", "Tenant acme"}
    assert [one.metadata.name for one in cache.domains_of("acme")] == ["d"]


def test_a_claim_that_goes_wakes_who_waits_for_the_domain(cache: Cache) -> None:
    spec = {"domain": "d.example", "tenant": "x", "namespace": "m", "name": "z", "uid": "u"}
    claim = obj("DomainClaim", "d.example", 4, spec=spec)
    assert woken(cache.update(DOMAIN_CLAIM, claim)) == {"SendingDomain n/d"}
    assert woken(cache.remove(("DomainClaim", "", "d.example"))) == {"SendingDomain n/d"}
    assert cache.claims == {}


def child(kind: str, version: int, **parts: Any) -> dict[str, Any]:
    one = obj(kind, "acme-relay", version, "relays", **parts)
    one["metadata"]["labels"] = {"malote.dev/tenant": "acme"}
    return one


def test_a_child_wakes_its_tenant_when_its_content_changes_or_it_goes(cache: Cache) -> None:
    assert woken(cache.update(SERVICE, child("Service", 4, spec={"type": "ClusterIP"}))) == {"Tenant acme"}
    assert woken(cache.update(SERVICE, child("Service", 5, spec={"type": "ClusterIP"}))) == set()
    assert woken(cache.update(SERVICE, child("Service", 6, spec={"type": "NodePort"}))) == {"Tenant acme"}
    assert woken(cache.remove(("Service", "relays", "acme-relay"))) == {"Tenant acme"}
    assert cache.live_digest(("Service", "relays", "acme-relay")) is None


def test_a_statefulset_wakes_its_tenant_when_replicas_become_ready(cache: Cache) -> None:
    spec = {"replicas": 1}
    cache.update(STATEFUL_SET, child("StatefulSet", 4, spec=spec, status={"replicas": 1}))
    ready = child("StatefulSet", 5, spec=spec, status={"replicas": 1, "readyReplicas": 1})
    assert woken(cache.update(STATEFUL_SET, ready)) == {"Tenant acme"}
    assert cache.sets["acme"].ready_replicas == 1


def pod(version: int, status: dict[str, Any]) -> dict[str, Any]:
    one = child("Pod", version, spec={}, status=status)
    one["metadata"]["name"] = "acme-relay-0"
    return one


def test_a_pod_wakes_its_tenant_when_it_becomes_ready(cache: Cache) -> None:
    assert woken(cache.update(POD, pod(4, {"podIP": "10.0.0.1"}))) == {"Tenant acme"}
    ready = {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
    assert woken(cache.update(POD, pod(5, ready))) == {"Tenant acme"}
    assert woken(cache.update(POD, pod(6, ready))) == set()
    assert [one.address for one in cache.pods_of("acme")] == ["10.0.0.1"]


def test_a_pods_trouble_is_told_in_the_api_servers_words() -> None:
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    assert relay_pod(pod(1, {"containerStatuses": [waiting]})).trouble == "ImagePullBackOff: no such image"
    assert relay_pod(pod(1, {"conditions": [unschedulable]})).trouble == "Unschedulable: 0/1 nodes"


def test_a_relay_that_ends_again_and_again_is_told_of_with_its_own_last_words() -> None:
    said = '{"event": "starting"}\nmalote-relay: relay.json: hostname: write the name clients connect to\n'
    ended = {"terminated": {"reason": "Error", "exitCode": 1, "message": said}}
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container=relay"}
    words = "relay.json: hostname: write the name clients connect to"
    between = {"state": {"waiting": waiting}, "lastState": ended}
    assert relay_pod(pod(1, {"containerStatuses": [between]})).trouble == f"CrashLoopBackOff: {words}"
    just_now = {"state": ended}
    assert relay_pod(pod(1, {"containerStatuses": [just_now]})).trouble == (
        f"the relay ended: Error, exit code 1: {words}"
    )


def test_what_stood_last_in_the_log_of_a_relay_that_was_killed_is_not_told() -> None:
    """Whoever may read Tenants need not know whom they write to."""
    killed = {
        "reason": "OOMKilled",
        "exitCode": 137,
        "message": '{"event": "delivered", "recipient": "bia@shop.example"}',
    }
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container=relay"}
    status = {"state": {"waiting": waiting}, "lastState": {"terminated": killed}}
    assert relay_pod(pod(1, {"containerStatuses": [status]})).trouble == (
        "CrashLoopBackOff: back-off 5m0s restarting failed container=relay (OOMKilled, exit code 137)"
    )


def test_what_a_complete_listing_lacks_is_missing_unless_it_came_later(cache: Cache) -> None:
    cache.update(TENANT, tenant(20, "late"))
    assert cache.missing_since(TENANT, [], "10") == [("Tenant", "", "acme")]


def test_a_domains_status_wakes_the_domain_alone_and_its_deletion_the_tenant_too(cache: Cache) -> None:
    written = domain(4) | {"status": {"observedGeneration": 1}}
    assert woken(cache.update(SENDING_DOMAIN, written)) == {"SendingDomain n/d"}
    going = copy.deepcopy(written)
    going["metadata"] |= {"resourceVersion": "5", "deletionTimestamp": "2026-01-01T00:00:00Z"}
    assert woken(cache.update(SENDING_DOMAIN, going)) == {"SendingDomain n/d", "Tenant acme"}


def test_domains_are_ranked_anew_only_when_one_comes_goes_or_is_deleted(cache: Cache) -> None:
    acme = cache.tenants["acme"]
    ranking = cache.ranking(acme)
    cache.update(SENDING_DOMAIN, domain(4) | {"status": {"observedGeneration": 1}})
    assert cache.ranking(acme) is ranking
    cache.update(SENDING_DOMAIN, domain(5, "e"))
    assert set(cache.ranking(acme).order) == {"d.example", "e.example"}
    going = domain(6)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    cache.update(SENDING_DOMAIN, going)
    assert cache.ranking(acme).order == ("e.example",)
    moved = tenant(7)
    moved["spec"]["namespaces"] = ["elsewhere"]
    cache.update(TENANT, moved)
    assert cache.ranking(cache.tenants["acme"]).order == ()


def test_a_new_generation_wakes_even_where_nothing_else_differs(cache: Cache) -> None:
    newer = tenant(4)
    newer["metadata"]["generation"] = 2
    assert "Tenant acme" in woken(cache.update(TENANT, newer)), "its status names the generation it was judged at"


def test_an_object_of_an_unknown_shape_is_told_apart_and_what_it_said_before_stays(cache: Cache) -> None:
    bad = obj("Plan", "p", 9, spec={"messagesPerHour": "many"})
    assert woken(cache.update(PLAN, bad)) == {"Plan p"}
    assert woken(cache.update(PLAN, copy.deepcopy(bad))) == set()
    assert cache.plans["p"].spec.messages_per_hour == 10
    assert "messagesPerHour" in cache.unreadable[Key("Plan", "", "p")].why
    cache.update(PLAN, plan(10, limit=12))
    assert cache.unreadable == {}
    assert cache.plans["p"].spec.messages_per_hour == 12


def test_a_status_that_a_later_operator_wrote_does_not_hide_what_is_wanted(cache: Cache) -> None:
    cache.update(TENANT, tenant(9, plan="other", egress={"heloName": "a.example", "records": [{"purpose": "Later"}]}))
    assert cache.tenants["acme"].spec.plan_ref.name == "other"
    assert cache.unreadable == {}
    hopeless = tenant(10, egress={"heloName": 1})
    hopeless["spec"]["cancelAfter"] = "0000-01-01"
    cache.update(TENANT, hopeless)
    assert "cancelAfter" in cache.unreadable[Key("Tenant", "", "acme")].why


def test_what_was_never_understood_leaves_its_tenants_in_the_dark(cache: Cache) -> None:
    assert not cache.in_the_dark("acme")
    assert not cache.in_the_dark("nobody")
    bad = obj("Plan", "p", 9, spec={"messagesPerHour": "many"})
    cache.update(PLAN, bad)
    assert not cache.in_the_dark("acme"), "what it said before stays in force"
    fresh = Cache()
    fresh.update(PLAN, bad)
    fresh.update(TENANT, tenant(2))
    assert fresh.in_the_dark("acme")
    fresh.update(TENANT, obj("Tenant", "odd", 3, spec={"planRef": 1}))
    assert fresh.in_the_dark("odd")
    assert not fresh.hides_domains(fresh.tenants["acme"])
    fresh.update(SENDING_DOMAIN, obj("SendingDomain", "odd", 9, "n", spec={"tenantRef": 1}))
    assert fresh.hides_domains(fresh.tenants["acme"])
    cache.update(SENDING_DOMAIN, obj("SendingDomain", "d", 9, "n", spec={"tenantRef": 1}))
    assert not cache.hides_domains(cache.tenants["acme"]), "what it said before stays in force"
    fresh.remove(("Plan", "", "p"))
    assert not fresh.in_the_dark("acme"), "a plan that is not there is no riddle"


def test_what_belongs_to_a_domain_of_an_unknown_shape_is_kept(cache: Cache) -> None:
    cache.update(SENDING_DOMAIN, obj("SendingDomain", "odd", 9, "n", spec={"tenantRef": 1}))
    assert cache.present_domain_uids("acme") == {"d-uid", "odd-uid"}
    cache.remove(("SendingDomain", "n", "odd"))
    assert cache.present_domain_uids("acme") == {"d-uid"}


def test_an_answer_that_comes_behind_the_news_of_a_deletion_brings_nothing_back(cache: Cache) -> None:
    cache.update(SENDING_DOMAIN, domain(9), deleted=True)
    assert cache.update(SENDING_DOMAIN, domain(8)) == [], "a page of a listing, or the answer to a status write"
    assert cache.domains == {}
    assert woken(cache.update(SENDING_DOMAIN, domain(10))) == {"SendingDomain n/d", "Tenant acme"}
    cache.update(SENDING_DOMAIN, domain(11))
    assert ("n", "d") in cache.domains, "one that was made anew"


def test_what_a_listing_no_longer_had_does_not_come_back_either(cache: Cache) -> None:
    cache.remove(("SendingDomain", "n", "d"), 9)
    cache.update(SENDING_DOMAIN, domain(9))
    assert cache.domains == {}


def test_of_what_is_gone_not_more_and_more_is_remembered(cache: Cache) -> None:
    for number in range(GONE_REMEMBERED + 10):
        cache.update(SENDING_DOMAIN, domain(number + 10, f"d{number}"), deleted=True)
    assert len(cache._gone) == GONE_REMEMBERED
