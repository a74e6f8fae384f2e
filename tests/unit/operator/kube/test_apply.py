"""Applying: nothing is asked or written twice for nothing, what is not ours is left alone, races are noticed."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from malote_operator.kube import exact
from malote_operator.kube.apply import Applier, Name
from malote_operator.kube.errors import Conflict, NameConflict, NotFound
from malote_operator.kube.kinds import SERVICE, Kind

OWNER = "tenant-uid"


def wanted(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "acme-relay",
            "namespace": "relays",
            "labels": {"app.kubernetes.io/managed-by": "malote-operator"},
            "ownerReferences": [{"kind": "Tenant", "uid": OWNER}],
        },
        "spec": {"type": "ClusterIP", **spec},
    }


class Server:
    """Keeps one object; counts what it is asked. `conflicts`: how many applies find the object changed."""

    def __init__(self, present: dict[str, Any] | None = None) -> None:
        self.present = present
        self.asked: list[str] = []
        self.conflicts = 0

    async def find(self, kind: Kind, name: str, namespace: str = "") -> dict[str, Any] | None:
        self.asked.append("get")
        return copy.deepcopy(self.present)

    async def apply(self, kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append("apply")
        if self.conflicts:
            self.conflicts -= 1
            raise Conflict("changed meanwhile")
        if self.present is None and "uid" in body["metadata"]:
            raise NotFound("gone")
        fields: dict[str, Any] = {"f:spec": {f"f:{key}": {} for key in body["spec"]}}
        managed = [{"manager": "malote-operator", "operation": "Apply", "fieldsV1": fields}]
        self.present = body | {"metadata": body["metadata"] | {"uid": "u", "managedFields": managed}}
        return copy.deepcopy(self.present)

    async def replace(self, kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append("replace")
        self.present = copy.deepcopy(body)
        return body

    async def delete(self, kind: Kind, name: str, namespace: str = "", *, uid: str = "") -> bool:
        self.asked.append("delete")
        self.present = None
        return True


class Watched:
    """What a watch would tell."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def __call__(self, name: Name) -> bytes | None:
        return None if self.server.present is None else exact.digest(self.server.present)


def applier(server: Server) -> Applier:
    return Applier(server, Watched(server))  # type: ignore[arg-type]  # only the methods that are used


async def test_what_is_watched_and_unchanged_is_neither_read_nor_written_again() -> None:
    server = Server()
    one = applier(server)
    assert (await one.ensure(wanted(), OWNER)).changed
    server.asked.clear()
    assert not (await one.ensure(wanted(), OWNER)).changed
    assert server.asked == []


async def test_a_new_process_reads_once_and_writes_nothing_when_all_is_right() -> None:
    server = Server()
    await applier(server).ensure(wanted(), OWNER)
    server.asked.clear()
    again = applier(server)
    await again.ensure(wanted(), OWNER)
    await again.ensure(wanted(), OWNER)
    assert server.asked == ["get"]


async def test_a_changed_wish_and_a_changed_object_are_each_applied_once() -> None:
    server = Server()
    one = applier(server)
    await one.ensure(wanted(), OWNER)
    server.asked.clear()
    await one.ensure(wanted(type="LoadBalancer"), OWNER)
    assert server.asked == ["get", "apply"]
    assert server.present is not None
    server.present["spec"]["type"] = "NodePort"
    server.asked.clear()
    await one.ensure(wanted(type="LoadBalancer"), OWNER)
    assert server.asked == ["get", "apply"]
    assert server.present["spec"]["type"] == "LoadBalancer"


async def test_what_somebody_added_is_taken_out_before_applying() -> None:
    server = Server()
    one = applier(server)
    await one.ensure(wanted(), OWNER)
    assert server.present is not None
    server.present["spec"]["externalIPs"] = ["192.0.2.1"]
    server.present["metadata"]["managedFields"].append(
        {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:externalIPs": {}}}}
    )
    server.asked.clear()
    await one.ensure(wanted(), OWNER)
    assert server.asked == ["get", "replace", "apply"]
    assert "externalIPs" not in server.present["spec"]


@pytest.mark.parametrize(
    "theirs",
    [
        {"labels": {}},
        {"ownerReferences": [{"kind": "Tenant", "uid": "another"}]},
        {"managedFields": [{"manager": "kubectl", "operation": "Update", "fieldsV1": {}}]},
    ],
    ids=["no label", "another owner", "never written by us"],
)
async def test_an_object_that_is_not_ours_is_a_name_conflict_and_stays(theirs: dict[str, Any]) -> None:
    server = Server()
    await applier(server).ensure(wanted(), OWNER)
    assert server.present is not None
    server.present["metadata"] |= theirs
    before = copy.deepcopy(server.present)
    with pytest.raises(NameConflict, match="Service relays/acme-relay exists"):
        await applier(server).ensure(wanted(type="LoadBalancer"), OWNER)
    assert not await applier(server).delete(SERVICE, "acme-relay", "relays", OWNER)
    assert server.present == before


async def test_at_home_a_lost_label_is_put_back_and_what_others_made_stays_theirs() -> None:
    server = Server()
    home = Applier(server, Watched(server), home="relays")  # type: ignore[arg-type]  # only the methods that are used
    await home.ensure(wanted(), OWNER)
    assert server.present is not None
    server.present["metadata"]["labels"] = {}
    elsewhere = Applier(server, Watched(server), home="other")  # type: ignore[arg-type]  # as above
    with pytest.raises(NameConflict):
        await elsewhere.ensure(wanted(), OWNER)
    await home.ensure(wanted(), OWNER)
    assert server.present["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "malote-operator"}
    server.present["metadata"] |= {"labels": {}, "ownerReferences": [{"kind": "Tenant", "uid": "another"}]}
    with pytest.raises(NameConflict):
        await home.ensure(wanted(), OWNER)


async def test_an_object_that_changes_while_it_is_written_is_looked_at_again_but_not_for_ever() -> None:
    server = Server()
    one = applier(server)
    await one.ensure(wanted(), OWNER)
    server.conflicts = 2
    await one.ensure(wanted(type="LoadBalancer"), OWNER)
    server.conflicts = 3
    with pytest.raises(Conflict):
        await one.ensure(wanted(type="NodePort"), OWNER)


@pytest.mark.parametrize(
    ("home", "asked"), [("elsewhere", ["get", "delete", "apply"]), ("relays", ["get", "replace"])]
)
async def test_what_somebody_made_immutable_is_made_anew_but_not_what_nothing_else_holds(
    home: str, asked: list[str]
) -> None:
    server = Server()
    one = Applier(server, Watched(server), home=home)  # type: ignore[arg-type]  # only the methods that are used
    await one.ensure(wanted(), OWNER)
    assert server.present is not None
    server.present["immutable"] = True
    theirs = {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:immutable": {}}}
    server.present["metadata"]["managedFields"].append(theirs)
    server.asked.clear()
    await one.ensure(wanted(type="LoadBalancer"), OWNER)
    assert server.asked[: len(asked)] == asked
    if home == "elsewhere":
        assert server.present["spec"]["type"] == "LoadBalancer"
        assert "immutable" not in server.present
