"""A small Kubernetes client for the local world: dictionaries in and out, over aiohttp.

The process node writes to a few built-in kinds thousands of times in a test run, so it needs speed and exact control
of patches rather than models. Paths are the API's own: ``/api/v1/namespaces/default/pods/web-0``.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml

Object = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
_METADATA = {"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}
_METADATA_LIST = {"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}
UNREACHABLE = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError)


class ApiError(Exception):
    """The API server refused: its HTTP status, its reason (``NotFound``, ``Conflict``, …) and its message."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class KubeConfigError(ValueError):
    """A kubeconfig cannot be used; the message says what is wrong with it."""


class KubeConfig:
    """What a kubeconfig's current context says: the server's URL, how to trust it, who to be."""

    def __init__(self, path: Path) -> None:
        try:
            document = yaml.safe_load(path.read_text())
            contexts = {entry["name"]: entry["context"] for entry in document["contexts"]}
            context = contexts[document["current-context"]]
            cluster = {entry["name"]: entry["cluster"] for entry in document["clusters"]}[context["cluster"]]
            user = {entry["name"]: entry["user"] for entry in document["users"]}[context["user"]]
            self.server = str(cluster["server"]).rstrip("/")
        except OSError as error:
            raise KubeConfigError(f"the kubeconfig {path} cannot be read: {error}") from error
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise KubeConfigError(f"{path} is no kubeconfig with a current context: {error!r}") from error
        self.path = path
        self.namespace = str(context.get("namespace", "default"))
        self.token = _token(user, path)
        self.authority = _material(cluster, "certificate-authority", path)
        self._insecure = bool(cluster.get("insecure-skip-tls-verify"))
        self._certificate = _material(user, "client-certificate", path)
        self._key = _material(user, "client-key", path)
        if "exec" in user or "auth-provider" in user:
            raise KubeConfigError(
                f"{path}: log-in by exec or auth-provider is not supported; use a token or certificate"
            )

    def tls(self) -> ssl.SSLContext:
        """The client's TLS context."""
        context = ssl.create_default_context(cadata=self.authority.decode() if self.authority else None)
        # Kubernetes' own certificate makers leave out extensions that Python's strict mode asks for.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self._insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self._certificate and self._key:
            with tempfile.TemporaryDirectory() as folder:
                chain, key = Path(folder) / "tls.crt", Path(folder) / "tls.key"
                chain.write_bytes(self._certificate)
                key.touch(0o600)
                key.write_bytes(self._key)
                context.load_cert_chain(chain, key)
        return context


def _material(entry: Mapping[str, Any], name: str, path: Path) -> bytes | None:
    if inline := entry.get(f"{name}-data"):
        return base64.b64decode(inline)
    if named := entry.get(name):
        return path.parent.joinpath(str(named)).read_bytes()
    return None


def _token(user: Mapping[str, Any], path: Path) -> str | None:
    if named := user.get("tokenFile"):
        return path.parent.joinpath(str(named)).read_text().strip()
    token = user.get("token")
    return None if token is None else str(token)


class KubeApi:
    """One connection pool to one API server."""

    def __init__(self, config: KubeConfig) -> None:
        self.config = config
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"Accept": "application/json"}
        if self.config.token:
            headers["Authorization"] = f"Bearer {self.config.token}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self.config.tls(), limit=0),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=30),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Object:
        """One call; raises ApiError when refused, one of `UNREACHABLE` when there is no answer."""
        data = None if body is None else json.dumps(body).encode()
        sent = dict(headers or {})
        if data is not None:
            sent["Content-Type"] = content_type
        async with self._open.request(
            method, self.config.server + path, params=query, data=data, headers=sent
        ) as response:
            text = await response.text()
            if response.status >= 400:
                raise _refusal(response.status, text)
            return json.loads(text) if text.startswith("{") else {"text": text}

    async def get(self, path: str) -> Object:
        """Read one object (or list)."""
        return await self.request("GET", path)

    async def find(self, path: str) -> Object | None:
        """Read one object; None where there is none."""
        try:
            return await self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def create(self, path: str, body: Object) -> Object:
        """POST *body* to a collection."""
        return await self.request("POST", path, body)

    async def patch(self, path: str, body: Any, content_type: str = MERGE_PATCH) -> Object:
        """PATCH one object, as a JSON merge patch unless told otherwise."""
        return await self.request("PATCH", path, body, content_type=content_type)

    async def apply(self, path: str, body: Object, manager: str = "malote-dev") -> Object:
        """Server-side apply of one object."""
        query = {"fieldManager": manager, "force": "true"}
        return await self.request("PATCH", path, body, query=query, content_type=APPLY_PATCH)

    async def delete(self, path: str, *, grace: int | None = None, uid: str | None = None) -> None:
        """DELETE one object, only if it still has *uid*; silent where it is gone."""
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self.request("DELETE", path, options)
        except ApiError as error:
            if error.status not in {404, 409}:
                raise

    async def watch(self, path: str, *, metadata_only: bool = False) -> AsyncIterator[tuple[str, Object]]:
        """Every object of a collection as it is (``ADDED``), then every change, for ever.

        A broken or expired watch is begun anew with a listing; what vanished meanwhile is told as ``DELETED``. After
        each listing comes one ``("LISTED", {})``. With *metadata_only* objects come without spec, data and status.
        """
        known: dict[str, Object] = {}
        while True:
            try:
                version, listed = await self._list(path, metadata_only)
                for uid, gone in [(uid, old) for uid, old in known.items() if uid not in listed]:
                    del known[uid]
                    yield "DELETED", gone
                for uid, item in listed.items():
                    kind = "MODIFIED" if uid in known else "ADDED"
                    known[uid] = item
                    yield kind, item
                yield "LISTED", {}
                async for kind, item in self._stream(path, version, metadata_only):
                    uid = item["metadata"]["uid"]
                    if kind == "DELETED":
                        known.pop(uid, None)
                    else:
                        known[uid] = item
                    yield kind, item
            except (ApiError, *UNREACHABLE):
                await asyncio.sleep(0.5)

    async def _list(self, path: str, metadata_only: bool) -> tuple[str, dict[str, Object]]:
        page = await self.request("GET", path, headers=_METADATA_LIST if metadata_only else None)
        kind = str(page.get("kind", "List")).removesuffix("List")
        items: Sequence[Object] = page.get("items") or []
        for item in items:
            item.setdefault("apiVersion", page.get("apiVersion"))
            item.setdefault("kind", kind)
        return page["metadata"]["resourceVersion"], {item["metadata"]["uid"]: item for item in items}

    async def _stream(self, path: str, version: str, metadata_only: bool) -> AsyncIterator[tuple[str, Object]]:
        query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "290"}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=300)
        headers = _METADATA if metadata_only else None
        url = self.config.server + path
        async with self._open.get(url, params=query, timeout=timeout, headers=headers) as response:
            if response.status >= 400:
                raise _refusal(response.status, await response.text())
            pending = b""
            async for chunk in response.content.iter_any():
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise ApiError(status.get("code", 500), status.get("reason", ""), status.get("message", ""))
                    yield event["type"], event["object"]

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("KubeApi is used inside its `async with`")
        return self._session


def _refusal(status: int, text: str) -> ApiError:
    try:
        said = json.loads(text)
        return ApiError(status, said.get("reason", ""), said.get("message", ""))
    except (ValueError, AttributeError):
        return ApiError(status, "", text[:500])


def write_kubeconfig(
    path: Path,
    *,
    server: str,
    authority: bytes | None = None,
    authority_file: Path | None = None,
    token: str | None = None,
    token_file: Path | None = None,
) -> Path:
    """Write a kubeconfig with one context (readable by its owner alone) and give its path back."""
    cluster: Object = {"server": server}
    if authority:
        cluster["certificate-authority-data"] = base64.b64encode(authority).decode()
    elif authority_file:
        cluster["certificate-authority"] = str(authority_file)
    user: Object = {"token": token} if token else {"tokenFile": str(token_file)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "malote",
        "clusters": [{"name": "malote", "cluster": cluster}],
        "users": [{"name": "malote", "user": user}],
        "contexts": [{"name": "malote", "context": {"cluster": "malote", "user": "malote"}}],
    }
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        yaml.safe_dump(document, file, sort_keys=False)
    return path
