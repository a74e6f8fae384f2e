"""The key of a relay's own messages: with another one what the DNS says of it would be wrong."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from tests.unit.operator.policy import worlds

from malote_operator.kube.errors import AlreadyExists
from malote_operator.kube.kinds import Kind
from malote_operator.reconcile import material
from malote_operator.reconcile.noticekeys import NoticeKey, NoticeKeys
from malote_operator.render import secrets
from malote_operator.settings import Settings

ACME = worlds.tenant()
OWN = "acme-notices-dkim"


class Cluster:
    """Secrets by name, as an Api and as an Applier; counts how often they were read."""

    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, Any]] = {}
        self.racing: dict[str, Any] | None = None
        self.reads = 0

    async def find(self, kind: Kind, name: str, namespace: str, owner_uid: str) -> dict[str, Any] | None:
        assert (namespace, owner_uid) == ("malote-relays", ACME.metadata.uid)
        self.reads += 1
        return self.secrets.get(name)

    async def create(self, kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
        name = body["metadata"]["name"]
        if self.racing is not None:
            self.secrets[name] = self.racing
            raise AlreadyExists("it is there", status=409)
        self.secrets[name] = body
        return body

    def damage(self, field: str) -> None:
        self.secrets[OWN]["data"][field] = base64.b64encode(b"nonsense").decode()


def reading(cluster: Cluster) -> NoticeKeys:
    return NoticeKeys(cluster, cluster, Settings())  # type: ignore[arg-type]  # only what is used


async def of(keys: NoticeKeys, present: dict[str, bytes] | None = None) -> NoticeKey:
    found = await keys.of(ACME, present or {})
    assert found is not None
    return found


@pytest.fixture
async def made() -> tuple[Cluster, NoticeKey]:
    cluster = Cluster()
    return cluster, await of(reading(cluster))


async def test_it_is_made_once_and_cannot_be_changed(made: tuple[Cluster, NoticeKey]) -> None:
    cluster, first = made
    again = await of(reading(cluster))
    assert (again.key.selector, again.key.public_key, again.private) == (
        first.key.selector,
        first.key.public_key,
        first.private,
    )
    assert first.file == f"{first.key.selector}.notices.pem"
    assert material.dkim_pair(first.private).public_key == first.key.public_key
    secret = cluster.secrets[OWN]
    assert secret["immutable"] is True
    assert secret["metadata"]["ownerReferences"]
    assert secrets.read_notices_dkim(secret) == (first.key, first.private)


async def test_if_it_is_lost_the_relays_copy_becomes_it_again(made: tuple[Cluster, NoticeKey]) -> None:
    cluster, first = made
    del cluster.secrets[OWN]
    again = await of(reading(cluster), {"m1.acme.example.pem": b"PEM", first.file: first.private})
    assert again.private == first.private
    assert secrets.read_notices_dkim(cluster.secrets[OWN])[0].selector == first.key.selector


@pytest.mark.parametrize("file", ["mother.notices.pem", "{selector}.acme.example.pem"])
async def test_a_file_that_is_no_copy_of_such_a_key_is_not_taken_for_one(
    made: tuple[Cluster, NoticeKey], file: str
) -> None:
    cluster, first = made
    del cluster.secrets[OWN]
    present = {file.format(selector=first.key.selector): first.private, "m0.notices.pem": b"nonsense"}
    assert (await of(reading(cluster), present)).private != first.private


async def test_who_loses_the_race_takes_the_winners(made: tuple[Cluster, NoticeKey]) -> None:
    winner, first = made
    cluster = Cluster()
    cluster.racing = winner.secrets[OWN]
    assert (await of(reading(cluster))).private == first.private


@pytest.mark.parametrize("field", ["private.pem", "selector"])
async def test_one_that_cannot_be_read_is_none_but_for_the_relays_copy(
    made: tuple[Cluster, NoticeKey], field: str
) -> None:
    cluster, first = made
    cluster.damage(field)
    assert await reading(cluster).of(ACME, {}) is None
    assert (await of(reading(cluster), {first.file: first.private})).private == first.private
    assert base64.b64decode(cluster.secrets[OWN]["data"][field]) == b"nonsense", "it is not overwritten"


async def test_a_right_copy_is_believed_for_a_while_and_a_wrong_one_never(made: tuple[Cluster, NoticeKey]) -> None:
    cluster, first = made
    keys = reading(cluster)
    now = 0.0
    keys._clock = lambda: now
    present = {first.file: first.private}
    await of(keys, present)
    cluster.reads = 0
    assert (await of(keys, present)).private == first.private
    assert cluster.reads == 0
    assert (await of(keys, {first.file: b"another"})).private == first.private
    assert cluster.reads == 1
    now = Settings().resync_seconds + 1
    await of(keys, present)
    assert cluster.reads == 2
