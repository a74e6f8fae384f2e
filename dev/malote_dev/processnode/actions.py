"""Carrying out one probe or life-cycle hook: an HTTP request, a connection, a command, a pause."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

Object = dict[str, Any]
Execute = Callable[[Sequence[str], float], Awaitable[tuple[int, str]]]
"""``await execute(command, timeout)`` in the container: exit status and output; raises TimeoutError."""

_SHOWN = 300


@dataclass(frozen=True)
class Outcome:
    """Whether it went well, and what was seen."""

    ok: bool
    message: str = ""


@dataclass(frozen=True)
class Target:
    """The container that an action is about."""

    address: str
    container: Object
    execute: Execute

    def port(self, named: int | str) -> int:
        """A port's number, given its number or name. Raises LookupError."""
        if isinstance(named, int) or named.isdigit():
            return int(named)
        for port in self.container.get("ports") or ():
            if port.get("name") == named:
                return int(port["containerPort"])
        raise LookupError(f"container {self.container['name']} names no port {named!r}")


async def perform(action: Object, target: Target, timeout: float) -> Outcome:
    """Do what a probe or hook says, within *timeout* seconds."""
    try:
        async with asyncio.timeout(timeout):
            if "httpGet" in action:
                return await _http_get(action["httpGet"], target)
            if "tcpSocket" in action:
                return await _connect(action["tcpSocket"], target)
            if "exec" in action:
                return await _execute(action["exec"]["command"], target, timeout)
            if "sleep" in action:
                await asyncio.sleep(action["sleep"]["seconds"])
                return Outcome(True)
    except TimeoutError:
        return Outcome(False, f"timed out after {timeout:g} s")
    except LookupError as error:
        return Outcome(False, str(error))
    return Outcome(False, f"the process node cannot do {', '.join(action)}")


async def _http_get(request: Object, target: Target) -> Outcome:
    scheme = request.get("scheme", "HTTP").lower()
    host, port = request.get("host") or target.address, target.port(request["port"])
    url = f"{scheme}://{host}:{port}{request.get('path') or '/'}"
    headers = {header["name"]: header["value"] for header in request.get("httpHeaders") or ()}
    headers.setdefault("User-Agent", "kube-probe/process-node")
    try:
        # A probe trusts any certificate, as the kubelet's does: it asks whether something answers, not who.
        connector = aiohttp.TCPConnector(ssl=False)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(url, headers=headers, allow_redirects=False) as answer,
        ):
            body = await answer.content.read(_SHOWN)
    except (aiohttp.ClientError, OSError) as error:
        return Outcome(False, f'Get "{url}": {error}')
    if 200 <= answer.status < 400:
        return Outcome(True)
    return Outcome(
        False, f"HTTP probe failed with statuscode: {answer.status} {body.decode(errors='replace')}".strip()
    )


async def _connect(socket: Object, target: Target) -> Outcome:
    host, port = socket.get("host") or target.address, target.port(socket["port"])
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return Outcome(False, f"dial tcp {host}:{port}: {error}")
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return Outcome(True)


async def _execute(command: Sequence[str], target: Target, timeout: float) -> Outcome:
    try:
        status, output = await target.execute(command, timeout)
    except OSError as error:
        return Outcome(False, str(error))
    shown = output.strip()[-_SHOWN:]
    return Outcome(True, shown) if status == 0 else Outcome(False, f"exit status {status}: {shown}")
