"""Withdrawing credentials where the operator's rights were taken away first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from malote_operator.api.tenant import Tenant
from malote_operator.kube.errors import Forbidden
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

    async def delete(self, kind: Any, name: str, namespace: str, owner_uid: str) -> bool:
        if namespace in self.barred:
            raise Forbidden(f"GET /api/v1/namespaces/{namespace}/secrets/{name}: secrets is forbidden", status=403)
        self.deleted.append(namespace)
        return True


async def test_a_copy_that_may_not_be_deleted_is_a_problem_of_its_own_and_goes_later() -> None:
    memory, applier = Memory(), Applier()
    settings = Settings(relay_namespace="relays")
    credentials = Credentials(None, applier, memory, settings)  # type: ignore[arg-type]  # only what is used
    handed = await credentials.hand_out(ACME, [])
    assert applier.deleted == ["open"]
    [problem] = handed.problems
    assert "namespace barred" in problem.message
    assert "/api/v1" not in problem.message, "a request's path helps nobody"
    assert not problem.permanent
    assert list(memory.kept.made.credentials) == [("barred", "app")]
    applier.barred.clear()
    assert (await credentials.hand_out(ACME, [])).problems == ()
    assert list(memory.kept.made.credentials) == []
