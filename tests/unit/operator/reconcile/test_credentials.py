"""Handing credentials out, and withdrawing them where the operator's rights were taken away first."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from malote_operator.api.tenant import Tenant
from malote_operator.kube.errors import Forbidden, Transient
from malote_operator.reconcile.credentials import Credentials
from malote_operator.reconcile.memory import Kept, Made
from malote_operator.settings import Settings

ACME = msgspec.convert(
    {
        "metadata": {"name": "acme", "uid": "u"},
        "spec": {
            "planRef": {"name": "p"},
            "contact": {"email": "a@b.example"},
            "namespaces": ["here"],
            "accounts": [{"name": "app"}],
        },
    },
    Tenant,
)


class Memory:
    """Remembers copies in two namespaces, of which the Tenant lists one."""

    def __init__(self) -> None:
        self.kept = replace(Kept(), made=Made(credentials=(("barred", "app"), ("open", "app"))))

    async def change(self, tenant: Tenant, change: Any) -> Kept:
        self.kept = change(self.kept)
        return self.kept


class Applier:
    """Refuses namespace `barred`."""

    def __init__(self) -> None:
        self.barred = {"barred"}
        self.deleted: list[str] = []
        self.ensured: list[str] = []
        self.underway = self.most = 0

    async def ensure(self, copy: Any, owner_uid: str) -> None:
        namespace = copy["metadata"]["namespace"]
        self.underway += 1
        self.most = max(self.most, self.underway)
        try:
            for _ in range(0 if namespace == "down" else 3):
                await asyncio.sleep(0)
            if namespace == "down":
                raise Transient("its webhook does not answer", status=500)
            self.ensured.append(namespace)
        finally:
            self.underway -= 1

    async def delete(self, kind: Any, name: str, namespace: str, owner_uid: str) -> bool:
        if namespace in self.barred:
            raise Forbidden(f"GET /api/v1/namespaces/{namespace}/secrets/{name}: secrets is forbidden", status=403)
        self.deleted.append(name if namespace == "relays" else namespace)
        return True


async def test_a_copy_that_may_not_be_deleted_is_a_problem_of_its_own_and_goes_later() -> None:
    memory, applier = Memory(), Applier()
    settings = Settings(relay_namespace="relays")
    credentials = Credentials(None, applier, memory, settings)  # type: ignore[arg-type]  # only what is used
    handed = await credentials.hand_out(ACME, [], [])
    assert applier.deleted == ["open"]
    [problem] = handed.problems
    assert "namespace barred" in problem.message
    assert "/api/v1" not in problem.message, "a request's path helps nobody"
    assert not problem.permanent
    assert list(memory.kept.made.credentials) == [("barred", "app")]
    applier.barred.clear()
    assert (await credentials.hand_out(ACME, [], [])).problems == ()
    assert list(memory.kept.made.credentials) == []


def copies(*namespaces: str) -> list[Any]:
    labels = {"malote.dev/account": "app"}
    return [{"metadata": {"namespace": namespace, "labels": labels}} for namespace in namespaces]


async def test_a_namespace_that_fails_leaves_no_write_behind_and_does_not_keep_the_others_from_theirs() -> None:
    applier = Applier()
    credentials = Credentials(None, applier, Memory(), Settings())  # type: ignore[arg-type]  # only what is used
    with pytest.raises(Transient):
        await credentials.hand_out(ACME, copies("down", "here", "there"), [])
    assert sorted(applier.ensured) == ["here", "there"]
    assert applier.underway == 0, "another replica may lead by now"


async def test_a_tenant_with_many_namespaces_does_not_take_all_the_requests_at_once() -> None:
    applier = Applier()
    credentials = Credentials(None, applier, Memory(), Settings())  # type: ignore[arg-type]  # only what is used
    handed = await credentials.hand_out(ACME, copies(*(f"n{number}" for number in range(50))), [])
    assert len(handed.done) == 50
    assert applier.most <= 8


async def test_a_password_goes_with_its_account_also_where_no_namespace_has_a_copy() -> None:
    memory, applier = Memory(), Applier()
    memory.kept = Kept()
    settings = Settings(relay_namespace="relays")
    credentials = Credentials(None, applier, memory, settings)  # type: ignore[arg-type]  # only what is used
    await credentials.hand_out(ACME, [], ["app", "news"])
    await credentials.hand_out(ACME, [], [])
    assert applier.deleted == ["acme-smtp-news"], "the Tenant names app, for which a larger plan may have room again"
