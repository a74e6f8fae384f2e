"""A tenant with very many SendingDomains: each visit costs little, and only whom it concerns is woken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import pytest

from malote_operator.api.sendingdomain import SendingDomain
from malote_operator.api.tenant import Tenant
from malote_operator.kube.kinds import PLAN, SENDING_DOMAIN, TENANT, Kind
from malote_operator.policy.ranking import Ranking, rank
from malote_operator.reconcile.assembly import Operator, assemble
from malote_operator.reconcile.queue import Key
from malote_operator.settings import Settings

MANY = 1000
# Not approved: nothing is rendered, everything is decided.
TENANTS_OWN: dict[str, Any] = {
    "spec": {"planRef": {"name": "p"}, "contact": {"email": "a@b.example"}, "namespaces": ["n"]}
}


class Server:
    """An API server that has nothing and takes every status."""

    def __init__(self) -> None:
        self.version = 10_000

    async def find(self, kind: Kind, name: str, namespace: str = "") -> None:
        return None

    async def create(self, kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
        return body

    async def apply(self, kind: Kind, body: dict[str, Any], *, subresource: str = "") -> dict[str, Any]:
        self.version += 1
        metadata = body["metadata"] | {"resourceVersion": str(self.version)}
        applied: dict[str, Any] = TENANTS_OWN | {"metadata": metadata, "status": body["status"]}
        return applied


def domain(number: int, **metadata: Any) -> dict[str, Any]:
    made = f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}Z"
    return {
        "metadata": {
            "name": f"d{number}",
            "namespace": "n",
            "uid": f"uid-{number}",
            "resourceVersion": str(number + 10),
            "creationTimestamp": made,
        }
        | metadata,
        "spec": {"tenantRef": {"name": "acme"}, "domain": f"d{number}.example"},
    }


@pytest.fixture
async def operator() -> Operator:
    made = assemble(Settings(), Server(), None, identity="me", operator_namespace="malote")  # type: ignore[arg-type]
    context = made.context
    context.leading = True
    common = {"uid": "u", "resourceVersion": "1"}
    context.cache.update(PLAN, {"metadata": {"name": "p", **common}, "spec": {"messagesPerHour": 1}})
    context.cache.update(TENANT, TENANTS_OWN | {"metadata": {"name": "acme", **common}})
    return made


async def visit(operator: Operator, kind: str, name: str, namespace: str = "") -> None:
    await operator.engine._reconcilers[kind](Key(kind, namespace, name))


async def test_domains_are_ranked_once_for_all_visits(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    ranked: list[Tenant] = []

    def counted(tenant: Tenant, siblings: Iterable[SendingDomain]) -> Ranking:
        ranked.append(tenant)
        return rank(tenant, siblings)

    monkeypatch.setattr("malote_operator.reconcile.cache.rank", counted)
    for number in range(MANY):
        operator.context.cache.update(SENDING_DOMAIN, domain(number))
    began = time.process_time()
    await visit(operator, "Tenant", "acme")
    await visit(operator, "Tenant", "acme")
    assert len(ranked) == 1
    assert time.process_time() - began < 2.0


async def test_others_get_their_turn_while_a_tenant_with_many_domains_is_looked_at(operator: Operator) -> None:
    for number in range(MANY):
        operator.context.cache.update(SENDING_DOMAIN, domain(number))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await visit(operator, "Tenant", "acme")
    task.cancel()
    assert turns >= MANY / 50


async def test_only_those_are_woken_for_whom_another_domain_makes_a_difference(operator: Operator) -> None:
    context = operator.context
    for number in range(MANY):
        context.cache.update(SENDING_DOMAIN, domain(number))
    await visit(operator, "Tenant", "acme")
    assert len(context.queue) == 0
    context.cache.update(SENDING_DOMAIN, domain(MANY))
    await visit(operator, "Tenant", "acme")
    assert len(context.queue) <= 1, "a surplus one more: at most itself"
    context.queue.clear()
    going = domain(900) | {"status": {}}
    context.cache.update(SENDING_DOMAIN, going, deleted=True)
    await visit(operator, "Tenant", "acme")
    assert len(context.queue) <= 1, "a surplus one less"
    context.queue.clear()
    context.cache.update(SENDING_DOMAIN, domain(0, resourceVersion="5000", deletionTimestamp="2026-02-01T00:00:00Z"))
    await visit(operator, "Tenant", "acme")
    assert Key("SendingDomain", "n", "d1") in {await context.queue.take() for _ in range(len(context.queue))}
