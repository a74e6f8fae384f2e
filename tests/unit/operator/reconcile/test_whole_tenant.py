"""One visit of a tenant, down to the files that its relay's pods find: the relay itself takes them in."""

from __future__ import annotations

import base64
import copy
import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from malote_operator.dns.model import Answer, Observation, Outcome, Question
from malote_operator.kube.kinds import PLAN, SENDING_DOMAIN, STATEFUL_SET, TENANT, Kind
from malote_operator.policy.model import PodObservation, RelayObservation
from malote_operator.reconcile.assembly import Operator, assemble
from malote_operator.reconcile.checks import Checks
from malote_operator.reconcile.queue import Key
from malote_operator.reconcile.relaypods import RelayPods
from malote_operator.settings import Bounces, Relay, Settings
from malote_relay import reload
from malote_relay.config import SmartHost, Submission, decode, encode

RELAYS = "malote-relays"
SPEC = {
    "planRef": {"name": "p"},
    "contact": {"email": "ana@acme.example", "language": "pt-BR"},
    "approval": {"approved": True},
    "accounts": [{"name": "app"}],
}
SMART = {"host": "smart.example.net", "username": "malote", "passwordFile": "smart-host"}
CONFIG = {"delivery": {"smartHost": SMART}, "limits": {"maxSessions": 7}}


class Server:
    """Keeps what is applied, as an API server would show it."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.version = 10

    async def find(self, kind: Kind, name: str, namespace: str = "") -> dict[str, Any] | None:
        return copy.deepcopy(self.objects.get((kind.name, name)))

    async def create(self, kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
        return await self.apply(kind, body)

    async def apply(self, kind: Kind, body: dict[str, Any], *, subresource: str = "") -> dict[str, Any]:
        self.version += 1
        written = {key: value for key, value in body.items() if key not in {"apiVersion", "kind", "metadata"}}
        fields = _fields(written)
        managed = [{"manager": "malote-operator", "operation": "Apply", "fieldsV1": fields}]
        name = body["metadata"]["name"]
        metadata = body["metadata"] | {"resourceVersion": str(self.version), "uid": "u", "managedFields": managed}
        before = self.objects.get((kind.name, name), {}) if subresource else {}
        if kind is TENANT:
            before = {"spec": SPEC}
        self.objects[kind.name, name] = before | body | {"metadata": metadata}
        return copy.deepcopy(self.objects[kind.name, name])

    async def replace(self, kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
        return await self.apply(kind, body)

    def data(self, secret: str) -> dict[str, bytes]:
        found = self.objects["Secret", secret].get("data", {})
        return {key: base64.b64decode(value) for key, value in found.items()}


def _fields(written: Any) -> Any:
    return {f"f:{key}": _fields(value) for key, value in written.items()} if isinstance(written, dict) else {}


async def nothing(question: Question) -> Observation:
    """The DNS of a world in which nothing is published."""
    absent = Answer(question.domain, Outcome.ABSENT)
    return Observation(at=dt.datetime.now(dt.UTC), spf=absent, dmarc=absent, dkim=absent)


def started(settings: Settings, server: Server, plan: dict[str, Any]) -> Operator:
    pods = RelayPods(server, RELAYS)  # type: ignore[arg-type]  # only what is used
    made = assemble(settings, server, pods, identity="me", operator_namespace="malote")  # type: ignore[arg-type]
    made.context.leading = True
    made.context.checks = Checks(nothing)
    common = {"uid": "u", "resourceVersion": "1"}
    made.context.cache.update(PLAN, {"metadata": {"name": "p", **common}, "spec": {"messagesPerHour": 1, **plan}})
    made.context.cache.update(TENANT, {"metadata": {"name": "acme", **common}, "spec": SPEC})
    return made


async def visited(settings: Settings, server: Server | None = None, **plan: Any) -> Server:
    server = server or Server()
    operator = started(settings, server, plan)
    await operator.engine._reconcilers[TENANT.name](Key(TENANT.name, "", "acme"))
    return server


def directory(server: Server, place: Path, credentials: dict[str, bytes]) -> Path:
    """What a pod's volumes hold."""
    for folder, files in (
        ("config", server.data("acme-relay")),
        ("keys", server.data("acme-relay-keys")),
        ("tls", server.data("acme-tls")),
        ("credentials", credentials),
    ):
        (place / folder).mkdir()
        for name, content in files.items():
            (place / folder / name).write_bytes(content)
    return place


async def test_the_relay_takes_what_the_platform_says_with_the_password_and_the_secret(tmp_path: Path) -> None:
    settings = Settings(bounces=Bounces(enabled=True), relay=Relay(config=CONFIG, credentials_secret="passwords"))
    server = await visited(settings)
    loaded = reload.load(directory(server, tmp_path, {"smart-host": b"open-sesame"}))
    assert loaded.config.limits.max_sessions == 7
    assert loaded.config.delivery.smart_host == SmartHost(
        host="smart.example.net", username="malote", password_file="smart-host"
    )
    assert loaded.credentials == {"smart-host": "open-sesame"}
    assert loaded.config.notices.language == "pt-BR"
    assert loaded.config.listen.bounce_port == 2525
    assert server.data("acme-return-paths").items() <= server.data("acme-relay-keys").items()


async def test_without_any_of_it_nothing_is_there(tmp_path: Path) -> None:
    server = await visited(Settings())
    config = reload.load(directory(server, tmp_path, {})).config
    assert (config.listen.bounce_port, config.bounces.secrets, config.delivery.smart_host) == (None, (), None)
    assert [one.endswith(".notices.pem") for one in server.data("acme-relay-keys")] == [True]
    assert ("Secret", "acme-return-paths") not in server.objects


@pytest.mark.parametrize("lost", [(), ("acme-return-paths",), ("acme-relay-keys",)])
async def test_the_secret_of_return_paths_outlives_operators_and_a_lost_copy(
    lost: tuple[str, ...],
) -> None:
    settings = Settings(bounces=Bounces(enabled=True))
    server = await visited(settings)
    before = server.data("acme-return-paths")
    for name in lost:
        del server.objects["Secret", name]
    await visited(settings, server)
    assert server.data("acme-return-paths") == before
    assert before.items() <= server.data("acme-relay-keys").items()


@pytest.mark.parametrize("lost", [(), ("acme-notices-dkim",), ("acme-relay-keys",)])
async def test_the_relays_own_key_outlives_operators_and_a_lost_copy_and_signs_for_its_ehlo_name(
    tmp_path: Path, lost: tuple[str, ...]
) -> None:
    server = await visited(Settings())
    before = server.data("acme-notices-dkim")
    for name in lost:
        del server.objects["Secret", name]
    await visited(Settings(), server)
    assert {**server.data("acme-notices-dkim")} == before
    loaded = reload.load(directory(server, tmp_path, {}))
    assert loaded.notice_signer.has_key("acme.out.example.net")
    (key,) = loaded.config.notices.keys
    assert key.selector == before["selector"].decode()
    shown = server.objects["Tenant", "acme"]["status"]["egress"]
    assert shown["heloName"] == "acme.out.example.net"
    assert {one["name"]: one["value"] for one in shown["records"]} == {
        "acme.out.example.net": "v=spf1 a -all",
        f"{key.selector}._domainkey.acme.out.example.net": f"v=DKIM1; k=rsa; p={before['public'].decode()}",
    }


async def test_another_ehlo_name_keeps_the_key() -> None:
    server = await visited(Settings())
    before = server.data("acme-relay-keys")
    await visited(Settings(), server, egress={"heloTemplate": "{tenant}.bulk.example.net"})
    assert server.data("acme-relay-keys") == before
    assert server.objects["Tenant", "acme"]["status"]["egress"]["heloName"] == "acme.bulk.example.net"


async def test_a_plans_egress_reaches_its_relays() -> None:
    server = await visited(Settings(), egress={"heloTemplate": "{tenant}.bulk.example.net"})
    assert decode(server.data("acme-relay")["relay.json"]).delivery.helo_name == "acme.bulk.example.net"


@pytest.mark.parametrize("error", ["credentials/smart-host cannot be read", ""])
async def test_a_relay_that_could_not_read_a_password_is_looked_at_until_it_has(
    monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    operator = started(Settings(), Server(), {})
    told: list[str] = []

    async def announce(_: Any, config_hash: str, *__: str, again: bool) -> bool:
        told.append(config_hash)
        return False

    async def observe(*_: Any) -> RelayObservation:
        pod = PodObservation("acme-relay-0", ready=True, config_hash=told[-1], config_error=error)
        return RelayObservation(exists=True, ready_replicas=1, pods=(pod,))

    monkeypatch.setattr(operator.context.pods, "announce", announce)
    monkeypatch.setattr(operator.context.pods, "observe", observe)
    visit, key = operator.engine._reconcilers[TENANT.name], Key(TENANT.name, "", "acme")
    await visit(key)
    # Not from the time that every relay is given to load what was just written.
    operator.context.now = lambda: dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)
    wait = await visit(key)
    assert (wait is not None and wait <= 30.0) is bool(error)


async def test_a_tenant_made_again_keeps_nothing_of_the_relay_that_is_being_deleted() -> None:
    first = await visited(Settings())
    earlier = first.objects["StatefulSet", "acme-relay"]
    earlier["metadata"]["ownerReferences"][0]["uid"] = "earlier"
    earlier["metadata"]["namespace"] = RELAYS
    earlier["spec"]["volumeClaimTemplates"][0]["metadata"]["ownerReferences"][0]["uid"] = "earlier"
    # The watch has not told yet that garbage collection has removed it.
    server = Server()
    operator = started(Settings(), server, {})
    operator.context.cache.update(STATEFUL_SET, earlier)
    await operator.engine._reconcilers[TENANT.name](Key(TENANT.name, "", "acme"))
    (claim,) = server.objects["StatefulSet", "acme-relay"]["spec"]["volumeClaimTemplates"]
    (owner,) = claim["metadata"]["ownerReferences"]
    assert owner["uid"] == "u", "a spool that belongs to a Tenant which is gone is deleted"


async def test_a_tenant_made_again_needs_its_approval_for_a_relay() -> None:
    server = Server()
    operator = started(Settings(), server, {})
    earlier: dict[str, Any] = {"name": "acme-relay", "namespace": RELAYS, "uid": "s", "resourceVersion": "2"}
    earlier |= {"labels": {"malote.dev/tenant": "acme"}, "ownerReferences": [{"uid": "earlier"}]}
    operator.context.cache.update(STATEFUL_SET, {"metadata": earlier, "spec": {}})
    unapproved = {"metadata": {"name": "acme", "uid": "u", "resourceVersion": "3"}, "spec": SPEC | {"approval": {}}}
    operator.context.cache.update(TENANT, unapproved)
    await operator.engine._reconcilers[TENANT.name](Key(TENANT.name, "", "acme"))
    assert ("StatefulSet", "acme-relay") not in server.objects


@pytest.mark.parametrize(("suspend", "is_open"), [({}, True), ({"suspend": {"reason": "Abuse"}}, False)])
async def test_a_plan_that_is_not_understood_after_a_restart_closes_no_relay_and_keeps_no_suspension_away(
    suspend: dict[str, Any], is_open: bool
) -> None:
    server = await visited(Settings())
    running = decode(server.data("acme-relay")["relay.json"])
    running = replace(running, submission=Submission(open=True))
    server.objects["Secret", "acme-relay"]["data"]["relay.json"] = base64.b64encode(encode(running)).decode()
    operator = started(Settings(), server, {})
    cache = operator.context.cache
    cache.update(STATEFUL_SET, server.objects["StatefulSet", "acme-relay"])
    cache.remove(("Plan", "", "p"))
    metadata = {"name": "p", "uid": "u", "resourceVersion": "2"}
    cache.update(PLAN, {"metadata": metadata, "spec": {"messagesPerHour": "many"}})
    cache.update(TENANT, {"metadata": metadata | {"name": "acme"}, "spec": SPEC | suspend})
    await operator.engine._reconcilers[TENANT.name](Key(TENANT.name, "", "acme"))
    config = decode(server.data("acme-relay")["relay.json"])
    assert (config.submission.open, config.delivery.frozen) == (is_open, not is_open)


async def test_a_domain_that_is_not_understood_after_a_restart_leaves_the_relay_as_it_runs() -> None:
    server = await visited(Settings())
    server.objects["Secret", "acme-relay"]["data"]["relay.json"] = base64.b64encode(b"as it runs").decode()
    operator = started(Settings(), server, {})
    metadata = {"name": "acme", "uid": "u", "resourceVersion": "2"}
    operator.context.cache.update(TENANT, {"metadata": metadata, "spec": SPEC | {"namespaces": ["acme"]}})
    riddle = {"metadata": metadata | {"namespace": "acme"}, "spec": {"tenantRef": 1}}
    operator.context.cache.update(SENDING_DOMAIN, riddle)
    assert await operator.engine._reconcilers[TENANT.name](Key(TENANT.name, "", "acme"))
    assert server.data("acme-relay")["relay.json"] == b"as it runs"
