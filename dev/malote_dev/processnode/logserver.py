"""What ``kubectl logs`` needs of a node: an HTTPS server that the API server asks for a container's log.

As with the kubelet, only the API server may ask: its client certificate must come from the authority that it
publishes in ConfigMap kube-system/extension-apiserver-authentication. A log holds all runs of a container, one after
the other.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from cryptography.x509.oid import ExtendedKeyUsageOID

from malote_dev.kubeapi import UNREACHABLE, ApiError, KubeApi
from malote_dev.pki import Authority

_AUTHENTICATION = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
_POLL = 0.2
_BLOCK = 64 * 1024

FindLog = Callable[[str, str, str], Path]


async def client_authority(api: KubeApi) -> str:
    """The authority (PEM) of the API server's own client certificate, once the API server has published it."""
    while True:
        try:
            found = await api.find(_AUTHENTICATION)
        except (ApiError, *UNREACHABLE):
            found = None
        if found is not None and (authority := (found.get("data") or {}).get("client-ca-file")):
            return str(authority)
        await asyncio.sleep(1.0)


class LogServer:
    """Serves ``/containerLogs/NAMESPACE/POD/CONTAINER`` with ``follow``, ``tailLines`` and ``limitBytes``."""

    def __init__(self, address: str, directory: Path, find_log: FindLog) -> None:
        self._address = address
        self._directory = directory
        self._find_log = find_log
        self._runner: web.AppRunner | None = None

    async def start(self, authority: str) -> int:
        """Listen for clients that *authority* has signed; gives the port."""
        application = web.Application()
        application.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._address, 0, ssl_context=self._tls(authority))
        await site.start()
        port: int = self._runner.addresses[0][1]
        return port

    async def stop(self) -> None:
        """Stop listening; who follows a log is cut off."""
        if self._runner is not None:
            await self._runner.cleanup()

    def _tls(self, authority: str) -> ssl.SSLContext:
        path = self._directory / "logserver"
        Authority.create("process node").issue(path, "node", ExtendedKeyUsageOID.SERVER_AUTH, (self._address,))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority)
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.load_cert_chain(path.with_suffix(".crt"), path.with_suffix(".key"))
        return context

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        names = request.match_info
        path = self._find_log(names["namespace"], names["pod"], names["container"])
        if request.query.get("previous") == "true":
            raise web.HTTPBadRequest(text="the process node keeps all runs of a container in one log: leave -p out")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        left = int(request.query.get("limitBytes", 1 << 62))
        follow = request.query.get("follow") == "true"
        position = _tail(path, int(request.query["tailLines"])) if "tailLines" in request.query else 0
        while left > 0:
            block = _read(path, position, min(_BLOCK, left))
            if block:
                await response.write(block)
                left -= len(block)
                position += len(block)
            elif follow:
                await asyncio.sleep(_POLL)
            else:
                break
        return response


def _read(path: Path, position: int, size: int) -> bytes:
    """A piece of a log; nothing where there is none yet."""
    try:
        with path.open("rb") as log:
            log.seek(position)
            return log.read(size)
    except FileNotFoundError:
        return b""


def _tail(path: Path, lines: int) -> int:
    """Where the last *lines* lines of a log begin."""
    if not path.exists() or lines == 0:
        return path.stat().st_size if path.exists() else 0
    content = path.read_bytes()
    at = len(content.removesuffix(b"\n"))
    for _ in range(lines):
        at = content.rfind(b"\n", 0, at)
        if at < 0:
            return 0
    return at + 1
