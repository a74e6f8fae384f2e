"""Requests to the API server with plain dictionaries as objects, bounded in time and in number at once.

They go through `kubernetes.aio`'s ApiClient by path: its generated models would cost memory for objects that
are written and read as dictionaries anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
from kubernetes.aio.client import ApiClient
from kubernetes.aio.config import ConfigException

from .. import metrics
from .connection import USER_AGENT, Connection
from .errors import AlreadyExists, ApiError, Conflict, Expired, Forbidden, Invalid, NotFound, Transient
from .kinds import Kind

Object = dict[str, Any]

FIELD_MANAGER = "malote-operator"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_JSON = "application/json"
_NOT_IN_SCHEMA = "failed to create typed patch object"


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a listing, and the resource version at which the listing is complete."""

    items: list[Object]
    version: str


class Api:
    """The API server. Every method raises the exceptions of `errors`; use as an async context manager."""

    def __init__(self, connection: Connection, *, timeout: float = 15.0, concurrency: int = 32) -> None:
        self._client: Any = ApiClient(connection.configuration)  # whose annotations have gaps
        self._client.user_agent = USER_AGENT
        self._timeout = timeout
        self._slots = asyncio.Semaphore(concurrency)

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        """One object by name."""
        return await self._request("GET", kind.path(namespace, name))

    async def find(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        """One object by name, or None."""
        try:
            return await self.get(kind, name, namespace)
        except NotFound:
            return None

    async def pages(self, kind: Kind, namespace: str = "", *, selector: str = "") -> AsyncIterator[Page]:
        """Every object, in pages of one consistent listing, so that neither side holds them all at once."""
        params = {"limit": "500"}
        if selector:
            params["labelSelector"] = selector
        while True:
            page = await self._request("GET", kind.path(namespace), params=params)
            common = {"apiVersion": kind.api_version, "kind": kind.name}
            metadata = page.get("metadata", {})
            yield Page([common | item for item in page.get("items") or ()], metadata.get("resourceVersion", ""))
            following = metadata.get("continue")
            if not following:
                return
            params["continue"] = following

    async def create(self, kind: Kind, body: Object) -> Object:
        """Make an object that must not exist yet. Raises AlreadyExists."""
        path = kind.path(body["metadata"].get("namespace", ""))
        metrics.API_WRITES.labels(kind.name, "create").inc()
        return await self._request("POST", path, body=body, params={"fieldManager": FIELD_MANAGER})

    async def apply(self, kind: Kind, body: Object, *, subresource: str = "") -> Object:
        """Server-side apply: the fields of `body` become the operator's and have the values given."""
        metadata = body["metadata"]
        path = kind.path(metadata.get("namespace", ""), metadata["name"], subresource)
        params = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
        metrics.API_WRITES.labels(kind.name, "apply").inc()
        return await self._request("PATCH", path, body=body, params=params, content_type=_APPLY)

    async def merge(self, kind: Kind, name: str, namespace: str, body: Object) -> Object:
        """A JSON merge patch (RFC 7396): what is null goes."""
        params = {"fieldManager": FIELD_MANAGER}
        metrics.API_WRITES.labels(kind.name, "patch").inc()
        return await self._request("PATCH", kind.path(namespace, name), body=body, params=params, content_type=_MERGE)

    async def replace(self, kind: Kind, body: Object) -> Object:
        """Put the whole object in the place of the version it was read as. Raises Conflict when it has changed."""
        metadata = body["metadata"]
        metrics.API_WRITES.labels(kind.name, "update").inc()
        return await self._request(
            "PUT",
            kind.path(metadata.get("namespace", ""), metadata["name"]),
            body=body,
            params={"fieldManager": FIELD_MANAGER},
        )

    async def delete(self, kind: Kind, name: str, namespace: str = "", *, uid: str = "") -> bool:
        """Delete one object, only if it is still the one with `uid`; False if it was gone already."""
        body: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        metrics.API_WRITES.labels(kind.name, "delete").inc()
        try:
            await self._request("DELETE", kind.path(namespace, name), body=body)
        except NotFound:
            return False
        return True

    async def serves(self, kind: Kind) -> bool:
        """Whether the server knows the kind (its CRD is there and established)."""
        group = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
        try:
            found = await self._request("GET", group)
        except NotFound:
            return False
        return any(resource["name"] == kind.plural for resource in found.get("resources", ()))

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Object | None = None,
        params: dict[str, str] | None = None,
        content_type: str = _JSON,
    ) -> Object:
        headers = {"Content-Type": content_type, "Accept": _JSON}
        code = "none"
        try:
            async with self._slots, asyncio.timeout(self._timeout):
                method, url, headers, *_ = await self._client.param_serialize(
                    method, path, header_params=headers, query_params=params, auth_settings=["BearerToken"]
                )
                response = await self._client.call_api(method, url, headers, body)
                code = str(response.status)
                text = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError, ConfigException) as error:
            problem = str(error) or type(error).__name__
            raise Transient(f"{method} {path}: the API server does not answer: {problem}") from error
        finally:
            metrics.API_REQUESTS.labels(method, code).inc()
        if response.status >= 400:
            raise _refusal(method, path, response.status, text, response.headers.get("Retry-After", ""))
        decoded: Object = msgspec.json.decode(text)
        return decoded


def _refusal(method: str, path: str, status: int, text: bytes, retry_after: str) -> ApiError:
    try:
        answer = msgspec.json.decode(text)
        message, reason = str(answer.get("message", "")), str(answer.get("reason", ""))
    except (msgspec.DecodeError, AttributeError):
        message, reason = text[:200].decode(errors="replace"), ""
    words = f"{method} {path}: {message or f'HTTP status {status}'}"
    if status == 404:
        return NotFound(words, status=status, reason=reason)
    if status == 409:
        return (AlreadyExists if reason == "AlreadyExists" else Conflict)(words, status=status, reason=reason)
    if status == 410:
        return Expired(words, status=status, reason=reason)
    if status == 403 and "is being terminated" in message:
        return NotFound(words, status=status, reason="NamespaceTerminating")
    if status == 403:
        return Forbidden(words, status=status, reason=reason)
    # The server's own error, to a server-side apply of fields that its CustomResourceDefinition does not have.
    if status in {400, 415, 422} or (status == 500 and _NOT_IN_SCHEMA in message):
        return Invalid(words, status=status, reason=reason)
    if status in {401, 408, 429} or status >= 500:
        wait = float(retry_after) if retry_after.isdigit() else 0.0
        return Transient(words, status=status, reason=reason, retry_after=wait)
    return ApiError(words, status=status, reason=reason)
