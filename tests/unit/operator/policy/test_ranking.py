"""Which SendingDomains come first, and who has to be judged again when that changes."""

from __future__ import annotations

import time

import msgspec

from malote_operator.api.sendingdomain import SendingDomain
from malote_operator.policy import domain as policy
from malote_operator.policy.model import DomainWorld
from malote_operator.policy.ranking import SURPLUS_NAMED, moved, rank

from . import worlds
from .worlds import NOW, SETTINGS

TENANT = worlds.tenant()


def numbered(count: int) -> list[SendingDomain]:
    """So many domains, the oldest first."""
    return [worlds.domain(f"d{n}.example", uid=f"uid-{n}", age=count - n) for n in range(count)]


def going(domain: SendingDomain) -> SendingDomain:
    metadata = msgspec.structs.replace(domain.metadata, deletion_timestamp=NOW, finalizers=("acme.example/keep",))
    return msgspec.structs.replace(domain, metadata=metadata)


def test_the_oldest_comes_first_and_a_domain_declared_twice_once() -> None:
    a, b, c = numbered(3)
    twice = worlds.domain("d1.example", uid="uid-9", age=0.5)
    ranking = rank(TENANT, (twice, c, a, b))
    assert ranking.order == ("d0.example", "d1.example", "d2.example")
    assert ranking.first["d1.example"].metadata.uid == "uid-1"
    assert ranking.place("d2.example") == 2
    assert ranking.members["uid-9"] == "d1.example"


def test_what_does_not_compete_comes_last() -> None:
    a, b, c = numbered(3)
    outside = worlds.domain("outside.example", uid="uid-8", namespace="other", age=99)
    ranking = rank(TENANT, (outside, going(a), b, c))
    assert ranking.order == ("d1.example", "d2.example")
    assert ranking.place("d0.example") == ranking.place("outside.example") == 2


def test_a_further_surplus_domain_concerns_no_other() -> None:
    many = numbered(4)
    assert moved(rank(TENANT, many[:3]), rank(TENANT, many), 1) == {"uid-3"}
    assert moved(rank(TENANT, many), rank(TENANT, many), 1) == frozenset()


def test_when_one_within_the_plan_goes_the_next_moves_up_and_the_others_are_told_who_is_first() -> None:
    many = numbered(4)
    assert moved(rank(TENANT, many), rank(TENANT, many[1:]), 1) == {"uid-0", "uid-1", "uid-2", "uid-3"}
    # With room for three the second and third stay where they are.
    assert moved(rank(TENANT, many), rank(TENANT, many[1:]), 3) == {"uid-0", "uid-3"}


def test_who_declares_a_domain_again_is_judged_again_when_the_first_one_goes() -> None:
    twice = worlds.domain("d0.example", uid="uid-9", age=0.5)
    many = numbered(2)
    assert "uid-9" in moved(rank(TENANT, (*many, twice)), rank(TENANT, (many[1], twice)), 5)


def test_the_relays_configuration_does_not_grow_with_what_a_tenant_applies() -> None:
    many = numbered(100)
    ranking = rank(TENANT, many)
    for plan in (worlds.plan(maxDomains=3), None):
        world = DomainWorld(tenant=TENANT, plan=plan, ranking=ranking)
        decisions = [policy.decide(one, world, SETTINGS, NOW) for one in many]
        limit = 3 if plan is not None else 0
        assert [one.in_config for one in decisions] == [n < limit + SURPLUS_NAMED for n in range(100)]


def test_thousands_of_surplus_domains_are_judged_without_going_through_all_for_each() -> None:
    many = numbered(4000)
    started = time.process_time()
    world = DomainWorld(tenant=TENANT, plan=worlds.plan(), ranking=rank(TENANT, many))
    for one in many:
        policy.decide(one, world, SETTINGS, NOW)
    # Some 0.1 s; two minutes if each judgement goes through all.
    assert time.process_time() - started < 3.0
