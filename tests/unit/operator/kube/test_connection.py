"""Finding the API server, and being believed by it although tokens expire; what is sent, and what refusals become."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from kubernetes.aio.config import incluster_config

from malote_operator.kube import connection
from malote_operator.kube.client import Api
from malote_operator.kube.connection import ConnectionSettingsError
from malote_operator.kube.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Transient,
)
from malote_operator.kube.kinds import SECRET, TENANT
from malote_operator.reconcile import material
from malote_operator.reconcile.context import utc_now


class Server:
    """Answers as told; believes one token."""

    def __init__(self) -> None:
        self.token = "first"
        self.answer: tuple[int, dict[str, Any]] = (200, {"kind": "Secret"})
        self.silent = False
        self.requests: list[str] = []
        self.last: dict[str, Any] = {}
        self.headers: dict[str, str] = {}
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append(f"{request.method} {request.path}")
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"message": "Unauthorized"}, status=401)
        if self.silent:
            await asyncio.sleep(60)
        text = await request.text()
        self.last = {
            "type": request.content_type,
            "query": dict(request.query),
            "body": json.loads(text) if text else None,
        }
        status, body = self.answer
        return web.json_response(body, status=status, headers=self.headers)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    one = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", one.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield one
    await runner.cleanup()


def reach(user: dict[str, Any] | None = None, cluster: dict[str, str] | None = None) -> str:
    """A kubeconfig's text."""
    return yaml.safe_dump(
        {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "malote"}}],
            "clusters": [{"name": "k", "cluster": {"server": "https://api.example"} | (cluster or {})}],
            "users": [{"name": "u", "user": user or {}}],
        }
    )


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Path]:
    """Writes a kubeconfig."""

    def write(user: dict[str, Any] | None = None, server: str = "https://api.example") -> Path:
        path = tmp_path / "config"
        path.write_text(reach(user, {"server": server}))
        return path

    return write


@pytest.fixture
async def api(server: Server, config: Callable[..., Path]) -> AsyncIterator[Api]:
    found = await connection.from_kubeconfig(config({"token": "first"}, server=server.url))
    async with Api(found) as one:
        yield one


async def test_a_renewed_token_file_is_read_again_after_a_minute(
    server: Server, config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("first\n")
    found = await connection.from_kubeconfig(config({"tokenFile": "token"}, server=server.url))
    assert found.namespace == "malote"
    async with Api(found) as api, found.session() as watching:
        await api.get(SECRET, "s", "n")
        server.token = "second"
        (tmp_path / "token").write_text("second\n")
        monkeypatch.setattr(connection, "_TOKEN_AGE", 0.0)
        await api.get(SECRET, "s", "n")
        async with watching.get(server.url + "/watch") as response:
            assert response.status == 200, "kopf presents the same token"
    assert len(server.requests) == 3


async def test_a_token_file_that_is_gone_is_transient_and_the_token_in_hand_stays_in_use(
    server: Server, config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("first")
    found = await connection.from_kubeconfig(config({"tokenFile": "token"}, server=server.url))
    (tmp_path / "token").unlink()
    async with Api(found) as api:
        with monkeypatch.context() as patch:
            patch.setattr(connection, "_TOKEN_AGE", 0.0)
            with pytest.raises(Transient, match="token"):
                await api.get(SECRET, "s", "n")
        await api.get(SECRET, "s", "n")


async def test_a_token_that_stays_wrong_is_transient_and_not_tried_for_ever(server: Server, api: Api) -> None:
    server.token = "another"
    with pytest.raises(Transient):
        await api.get(SECRET, "s", "n")
    assert len(server.requests) == 1


async def test_to_kopf_a_wrong_or_lost_token_is_a_failed_connection_to_be_tried_again(
    server: Server, config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_TOKEN_AGE", 0.0)
    (tmp_path / "token").write_text("wrong")
    found = await connection.from_kubeconfig(config({"tokenFile": "token"}, server=server.url))
    async with found.session() as watching:
        with pytest.raises(aiohttp.ClientConnectionError, match="refuses"):
            await watching.get(server.url)
        (tmp_path / "token").unlink()
        with pytest.raises(aiohttp.ClientConnectionError, match="cannot be read"):
            await watching.get(server.url)
        (tmp_path / "token").write_text("first")
        async with watching.get(server.url) as response:
            assert response.status == 200
    assert len(server.requests) == 2


async def test_a_server_side_apply_is_sent_as_the_api_server_wants_it(server: Server, api: Api) -> None:
    server.answer = (200, {"kind": "Tenant", "metadata": {"resourceVersion": "7"}})
    body = {"metadata": {"name": "x"}, "status": {"empty": [], "none": None, "text": "pão"}}
    assert await api.apply(TENANT, body, subresource="status") == server.answer[1]
    assert server.requests == ["PATCH /apis/malote.dev/v1alpha1/tenants/x/status"]
    query = {"fieldManager": "malote-operator", "force": "true", "fieldValidation": "Strict"}
    assert server.last == {"type": "application/apply-patch+yaml", "query": query, "body": body}


async def test_a_merge_patch_is_sent_with_its_nulls(server: Server, api: Api) -> None:
    await api.merge(SECRET, "s", "n", {"data": {"gone": None}})
    assert server.last["type"] == "application/merge-patch+json"
    assert server.last["body"] == {"data": {"gone": None}}


async def test_a_listing_is_read_page_by_page_and_its_selector_arrives_whole(server: Server, api: Api) -> None:
    server.answer = (200, {"items": [{"metadata": {"name": "x"}}], "metadata": {"continue": "a+/="}})
    pages = api.pages(SECRET, "n", selector="a=b,c in (d,e)")
    first = await anext(pages)
    assert first.items == [{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}]
    assert server.last["query"] == {"limit": "500", "labelSelector": "a=b,c in (d,e)"}
    server.answer = (200, {"items": None, "metadata": {"resourceVersion": "9"}})
    assert [page.version async for page in pages] == ["9"]
    assert server.last["query"]["continue"] == "a+/="


async def test_a_delete_names_the_object_it_means(server: Server, api: Api) -> None:
    assert await api.delete(SECRET, "s", "n", uid="u-1")
    assert server.last["body"]["preconditions"] == {"uid": "u-1"}
    server.answer = (404, {})
    assert not await api.delete(SECRET, "s", "n")


@pytest.mark.parametrize(
    ("status", "reason", "message", "error"),
    [
        (404, "NotFound", 'tenants "x" not found', NotFound),
        (409, "AlreadyExists", "exists", AlreadyExists),
        (409, "Conflict", "the object has been modified", Conflict),
        (403, "Forbidden", "may not", Forbidden),
        (403, "Forbidden", "unable to create: namespace acme because it is being terminated", NotFound),
        (422, "Invalid", "spec.x: Required", Invalid),
        (429, "TooManyRequests", "slow down", Transient),
        (500, "InternalError", "etcd", Transient),
        (500, "", "failed to create typed patch object (/x): .status.y: field not declared in schema", Invalid),
        (503, "", "", Transient),
        (405, "", "method", ApiError),
    ],
)
async def test_refusals_become_named_errors_with_the_servers_words(
    server: Server, api: Api, status: int, reason: str, message: str, error: type[ApiError]
) -> None:
    server.answer = (status, {"reason": reason, "message": message})
    server.headers = {"Retry-After": "3"}
    with pytest.raises(error) as caught:
        await api.create(TENANT, {"metadata": {"name": "x"}})
    assert type(caught.value) is error
    assert message in str(caught.value)
    assert "/apis/malote.dev/v1alpha1/tenants" in str(caught.value)
    assert len(server.requests) == 1, "when to try again is for the caller to say"
    if isinstance(caught.value, Transient):
        assert caught.value.retry_after == 3.0


async def test_a_server_that_is_not_there_is_transient(config: Callable[..., Path]) -> None:
    async with Api(await connection.from_kubeconfig(config(server="http://127.0.0.1:1"))) as api:
        with pytest.raises(Transient, match="does not answer"):
            await api.get(SECRET, "s", "n")


async def test_a_server_that_says_nothing_is_given_up_in_time(server: Server, config: Callable[..., Path]) -> None:
    server.silent = True
    found = await connection.from_kubeconfig(config({"token": "first"}, server=server.url))
    async with Api(found, timeout=0.1) as api:
        with pytest.raises(Transient, match="does not answer: TimeoutError"):
            await api.get(SECRET, "s", "n")


ANSWER = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "e"}}
LOGIN = {
    "apiVersion": "client.authentication.k8s.io/v1",
    "command": sys.executable,
    "args": ["-c", "import sys; print(sys.argv[1])", json.dumps(ANSWER)],
}


@pytest.mark.parametrize(
    ("user", "presented"),
    [({"username": "u", "password": "p"}, "Basic dTpw"), ({"exec": LOGIN}, "Bearer e"), ({}, "")],
)
async def test_other_ways_to_log_in_are_understood(
    config: Callable[..., Path], user: dict[str, Any], presented: str
) -> None:
    found = await connection.from_kubeconfig(config(user))
    assert (await found.configuration.get_api_key_with_prefix("BearerToken") or "") == presented


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "current-context: c\n", "current-context: c\ncontexts: []\n"),
        reach({"tokenFile": "absent"}),
        reach(cluster={"certificate-authority": "absent"}),
        reach(cluster={"certificate-authority": "config"}),
        reach(cluster={"certificate-authority-data": "?"}),
        reach(cluster={"tls-server-name": "another.example"}),
    ],
)
async def test_a_kubeconfig_that_is_of_no_use_is_an_error_for_people(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(ConnectionSettingsError, match="config"):
        await connection.from_kubeconfig(tmp_path / "config")


async def test_a_kubeconfig_that_is_not_there_is_an_error_for_people(tmp_path: Path) -> None:
    with pytest.raises(ConnectionSettingsError, match="absent"):
        await connection.from_kubeconfig(tmp_path / "absent")


async def test_without_kubeconfig_and_outside_a_pod_it_says_what_was_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConnectionSettingsError, match="KUBECONFIG"):
        await connection.find()


async def test_a_pods_files_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    (tmp_path / "token").write_text("t")
    (tmp_path / "namespace").write_text("malote-system")
    with pytest.raises(ConnectionSettingsError, match="automountServiceAccountToken"):
        await connection.find()
    (tmp_path / "ca.crt").write_bytes(material.new_authority("test", utc_now()).certificate)
    found = await connection.find()
    assert (found.server, found.namespace) == ("https://[fd00::1]:6443", "malote-system")
    assert found.configuration.api_key["BearerToken"].lower() == "bearer t"
