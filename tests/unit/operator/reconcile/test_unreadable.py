"""Objects that cannot be understood say so themselves."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any

from malote_operator.kube.kinds import TENANT, Kind
from malote_operator.reconcile.cache import Cache
from malote_operator.reconcile.queue import Key
from malote_operator.reconcile.unreadable import or_say_so

KEY = Key("Tenant", "", "acme")
NOW = dt.datetime(2026, 10, 1, tzinfo=dt.UTC)


def tenant(version: int, cancel_after: str, **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "malote.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": "acme", "uid": "u", "generation": version, "resourceVersion": str(version)},
        "spec": {"planRef": {"name": "p"}, "contact": {"email": "a@b.example"}, "cancelAfter": cancel_after},
        "status": status,
    }


class Server:
    """Takes statuses."""

    def __init__(self) -> None:
        self.object: dict[str, Any] = {}
        self.written: list[dict[str, Any]] = []

    async def apply(self, kind: Kind, body: dict[str, Any], *, subresource: str) -> dict[str, Any]:
        assert (kind, subresource) == (TENANT, "status")
        self.written.append(body["status"])
        self.object = self.object | {"status": body["status"]}
        return self.object


async def test_the_status_names_the_field_and_keeps_the_rest_and_is_written_once() -> None:
    cache, server, visits = Cache(), Server(), []
    context: Any = SimpleNamespace(cache=cache, api=server, now=lambda: NOW)

    async def reconcile(key: Key) -> float | None:
        visits.append(key)
        return None

    visit = or_say_so(context, reconcile)
    cache.update(TENANT, tenant(1, "2026-12-31"))
    await visit(KEY)
    assert visits == [KEY]
    server.object = tenant(2, "0000-01-01", accounts=[{"name": "app", "username": "app@acme", "secretName": "s"}])
    assert [one.key for one in cache.update(TENANT, server.object)] == [KEY]
    await visit(KEY)
    await visit(KEY)
    assert visits == [KEY], "nothing is decided from what cannot be understood"
    assert len(server.written) == 1
    status = server.written[0]
    assert status["observedGeneration"] == 2
    assert status["accounts"], "left out, server-side apply would take it away"
    by_type = {one["type"]: one for one in status["conditions"]}
    assert by_type["Ready"]["status"] == "False"
    assert "cancelAfter" in by_type["Ready"]["message"]
    assert by_type["Stalled"]["status"] == "True"
    assert cache.tenants["acme"].spec.cancel_after == dt.date(2026, 12, 31)
