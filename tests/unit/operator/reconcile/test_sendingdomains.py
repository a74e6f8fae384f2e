"""SendingDomains between others who want the same domain, and what is left of one that is gone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.unit.operator.policy import worlds

from malote_operator.api.tenant import Tenant
from malote_operator.kube.errors import AlreadyExists, Forbidden, Invalid
from malote_operator.kube.kinds import DOMAIN_CLAIM, PLAN, SENDING_DOMAIN, TENANT, Kind
from malote_operator.policy.model import DkimPublicKey
from malote_operator.reconcile.assembly import assemble
from malote_operator.reconcile.context import Context
from malote_operator.reconcile.memory import Kept
from malote_operator.reconcile.queue import Key
from malote_operator.reconcile.sendingdomain import SendingDomains
from malote_operator.settings import Settings

KEY = Key(SENDING_DOMAIN.name, "acme", "acme-example")


class Server:
    """Takes every status. The first claims, `taken` in number, are another's, who lets go before they are read.

    While it is `old`, it takes no status.
    """

    def __init__(self) -> None:
        self.taken = 0
        self.old = False
        self.protected: set[str] = set()
        self.released: list[str] = []
        self.version = 10
        self.claims: list[str] = []
        self.statuses: list[dict[str, Any]] = []

    async def create(self, kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
        if kind is DOMAIN_CLAIM and self.taken:
            self.taken -= 1
            raise AlreadyExists("it exists", status=409)
        if kind is DOMAIN_CLAIM:
            self.claims.append(body["spec"]["uid"])
        return body

    async def delete(self, kind: Kind, name: str, namespace: str = "", *, uid: str = "") -> bool:
        if name in self.protected:
            raise Forbidden("DELETE /x: a policy forbids it", status=403)
        self.released.append(name)
        return True

    async def find(self, kind: Kind, name: str, namespace: str = "") -> None:
        return None

    async def apply(self, kind: Kind, body: dict[str, Any], *, subresource: str = "") -> dict[str, Any]:
        if self.old:
            raise Invalid("PATCH /x: .status.records: field not declared in schema", status=500)
        self.version += 1
        self.statuses.append(body["status"])
        metadata = raw(worlds.domain())["metadata"] | {"resourceVersion": str(self.version)}
        return raw(worlds.domain()) | {"metadata": metadata, "status": body["status"]}


class Keys:
    """Every domain has the same key."""

    async def of(self, *_: object) -> tuple[DkimPublicKey, ...]:
        return (worlds.KEY,)


class Memories:
    """Nothing is remembered of the tenant at first."""

    def __init__(self) -> None:
        self.kept = Kept()

    async def get(self, tenant: Tenant) -> Kept:
        return self.kept

    async def change(self, tenant: Tenant, change: Any) -> Kept:
        self.kept = change(self.kept)
        return self.kept


def raw(resource: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(resource)
    return found


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def context(server: Server) -> Context:
    made = assemble(Settings(), server, None, identity="me", operator_namespace="malote")  # type: ignore[arg-type]
    context = made.context
    context.leading = True
    context.now = lambda: worlds.NOW
    for kind, resource in ((PLAN, worlds.plan()), (TENANT, worlds.tenant()), (SENDING_DOMAIN, worlds.domain())):
        context.cache.update(kind, raw(resource))
    context.checks._seen["uid-1"] = (worlds.KEY.selector, worlds.seen())
    return context


@pytest.fixture
def domains(context: Context) -> SendingDomains:
    return SendingDomains(context, Keys(), Memories())  # type: ignore[arg-type]  # only what is used


async def test_a_claim_that_its_holder_lets_go_meanwhile_is_made(server: Server, domains: SendingDomains) -> None:
    server.taken = 1
    await domains.reconcile(KEY)
    assert server.claims == ["uid-1"]
    assert "RelayNamespaceMissing" not in {one["reason"] for one in server.statuses[-1]["conditions"]}


async def test_what_was_seen_of_a_domain_goes_with_it_at_the_next_sweep(
    context: Context, domains: SendingDomains
) -> None:
    tenant = context.cache.tenants["acme"].metadata.uid
    context.checks._seen[tenant] = (worlds.KEY.selector, worlds.seen())
    await domains.sweep()
    assert context.checks.observation("uid-1", worlds.KEY.selector) is not None
    context.cache.remove((SENDING_DOMAIN.name, "acme", "acme-example"))
    await domains.sweep()
    assert context.checks.observation("uid-1", worlds.KEY.selector) is None
    assert context.checks.observation(tenant, worlds.KEY.selector) is not None, "of its relay's EHLO name"


@pytest.mark.parametrize("riddle", [PLAN, TENANT])
async def test_a_tenant_that_is_not_understood_after_a_restart_costs_no_domain_its_claim(
    server: Server, context: Context, riddle: Kind
) -> None:
    whole = raw(worlds.plan() if riddle is PLAN else worlds.tenant())
    context.cache.remove((riddle.name, "", whole["metadata"]["name"]))
    context.cache.update(riddle, whole | {"spec": {"messagesPerHour": "many", "planRef": 1}})
    context.cache.update(DOMAIN_CLAIM, raw(worlds.claim()))
    wait = await SendingDomains(context, Keys(), Memories()).reconcile(KEY)  # type: ignore[arg-type]
    assert wait is not None
    assert "acme.example" in context.cache.claims
    assert server.statuses == []


async def test_a_status_that_an_older_crd_does_not_take_keeps_no_domain_from_being_looked_up_and_claimed(
    server: Server, context: Context, domains: SendingDomains
) -> None:
    server.old = True
    wait = await domains.reconcile(KEY)
    assert server.claims == ["uid-1"]
    assert wait is not None, "the next look at its records"
    assert len(context.queue) > 0, "its tenant is told"


async def test_a_claim_that_cannot_be_released_keeps_no_other_and_no_start_waiting(
    server: Server, context: Context, domains: SendingDomains
) -> None:
    for name in ("gone.example", "left.example"):
        context.cache.update(DOMAIN_CLAIM, raw(worlds.claim("uid-of-none", name=name)))
    server.protected = {"gone.example"}
    await domains.sweep()
    assert server.released == ["left.example"]
    server.protected.clear()
    await domains.sweep()
    assert server.released == ["left.example", "gone.example"]
