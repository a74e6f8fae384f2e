"""The secret of return paths: with another one the bounces of all mail sent before would be refused."""

from __future__ import annotations

import base64
from typing import Any

from tests.unit.operator.policy import worlds

from malote_operator.kube.errors import AlreadyExists
from malote_operator.kube.kinds import Kind
from malote_operator.reconcile.returnpaths import ReturnPathSecrets
from malote_operator.settings import Settings

ACME = worlds.tenant()
OWN, COPY, FILE = "acme-return-paths", "acme-relay-keys", "return-paths.secret"


class Cluster:
    """Secrets by name, as an Api and as an Applier."""

    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, Any]] = {}
        self.racing: dict[str, Any] | None = None

    async def find(self, kind: Kind, name: str, namespace: str, owner_uid: str) -> dict[str, Any] | None:
        assert namespace == "malote-relays"
        return self.secrets.get(name)

    async def create(self, kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
        name = body["metadata"]["name"]
        if self.racing is not None:
            self.secrets[name] = self.racing
            raise AlreadyExists("it is there", status=409)
        self.secrets[name] = body
        return body

    def put(self, name: str, secret: bytes) -> dict[str, Any]:
        self.secrets[name] = {"data": {FILE: base64.b64encode(secret).decode()}}
        return self.secrets[name]


def reading(cluster: Cluster) -> ReturnPathSecrets:
    return ReturnPathSecrets(cluster, cluster, Settings())  # type: ignore[arg-type]  # only what is used


async def test_it_is_made_once_and_cannot_be_changed() -> None:
    cluster = Cluster()
    first = await reading(cluster).of(ACME)
    assert len(first) >= 32
    assert await reading(cluster).of(ACME) == first
    assert cluster.secrets[OWN]["immutable"] is True
    assert cluster.secrets[OWN]["metadata"]["ownerReferences"]


async def test_each_tenant_has_a_secret_of_its_own() -> None:
    assert await reading(Cluster()).of(ACME) != await reading(Cluster()).of(ACME)


async def test_if_it_is_lost_the_relays_copy_becomes_it_again() -> None:
    cluster = Cluster()
    cluster.put(COPY, b"what the relay believes in now..")
    assert await reading(cluster).of(ACME) == b"what the relay believes in now.."
    assert base64.b64decode(cluster.secrets[OWN]["data"][FILE]) == b"what the relay believes in now.."


async def test_who_loses_the_race_takes_the_winners() -> None:
    cluster = Cluster()
    winner = cluster.put("elsewhere", b"w" * 32)
    cluster.racing = winner
    assert await reading(cluster).of(ACME) == b"w" * 32


async def test_one_that_the_relay_would_not_take_is_none() -> None:
    cluster = Cluster()
    cluster.put(OWN, b"short")
    assert await reading(cluster).of(ACME) == b""
