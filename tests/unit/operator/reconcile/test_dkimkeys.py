"""DKIM keys of domains: found again after a restart, whoever asks first."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.operator.policy import worlds

from malote_operator.kube.kinds import Kind
from malote_operator.reconcile.dkimkeys import DkimKeys
from malote_operator.settings import Settings

ACME = worlds.tenant()


class Cluster:
    """Secrets by name, as an Api and as an Applier."""

    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, Any]] = {}

    async def find(self, kind: Kind, name: str, namespace: str, owner_uid: str) -> dict[str, Any] | None:
        return self.secrets.get(name)

    async def create(self, kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
        self.secrets[body["metadata"]["name"]] = body
        return body


def reading(cluster: Cluster) -> DkimKeys:
    return DkimKeys(cluster, cluster, Settings())  # type: ignore[arg-type]  # only what is used


async def nothing(selector: str) -> None:
    """What T-state would remember is passed in by the tests."""


@pytest.mark.parametrize("first_asked", ["uid-1", "uid-2"])
async def test_a_second_declaration_of_a_domain_does_not_hide_its_key_from_the_first(first_asked: str) -> None:
    cluster = Cluster()
    declared = {uid: worlds.domain(uid=uid) for uid in ("uid-1", "uid-2")}
    made = await reading(cluster).make(ACME, declared["uid-1"], nothing)
    remembered = {"uid-1": (made.selector,), "uid-2": ()}
    keys = reading(cluster)  # the operator was started again
    await keys.of(ACME, declared[first_asked], remembered[first_asked])
    assert await keys.of(ACME, declared["uid-1"], remembered["uid-1"]) == (made,)


async def test_a_key_whose_making_was_answered_too_late_is_the_domains_key() -> None:
    cluster, domain, remembered = Cluster(), worlds.domain(), list[str]()
    keys = reading(cluster)
    assert await keys.of(ACME, domain, ()) == ()

    class Late(Exception):
        """The Secret was made, but nobody heard of it."""

    async def create(kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
        cluster.secrets[body["metadata"]["name"]] = body
        raise Late

    async def remember(selector: str) -> None:
        remembered.append(selector)

    cluster.create = create  # type: ignore[method-assign]
    with pytest.raises(Late):
        await keys.make(ACME, domain, remember)
    found = await keys.of(ACME, domain, remembered)
    assert [key.selector for key in found] == remembered
