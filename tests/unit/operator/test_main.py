"""Starting and stopping: the parts of the program beside each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from malote_operator import main
from malote_operator.kube.errors import Transient
from malote_operator.kube.kinds import Kind
from malote_operator.kube.lease import Leadership
from malote_operator.reconcile.assembly import assemble
from malote_operator.settings import Settings


class Away:
    """An API server that does not answer."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def pages(self, kind: Kind, namespace: str = "", *, selector: str = "") -> AsyncIterator[Any]:
        self.asked.set()
        raise Transient("the API server does not answer")
        yield

    async def find(self, kind: Kind, name: str, namespace: str = "") -> None:
        raise AssertionError("one that is to stop takes no Lease")


async def test_a_signal_to_stop_does_not_wait_for_an_api_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    server, stop = Away(), asyncio.Event()

    async def watch(*_: Any, **__: Any) -> None:
        await stop.wait()

    monkeypatch.setattr(main, "watch", watch)
    operator = assemble(Settings(), server, None, identity="me", operator_namespace="malote")  # type: ignore[arg-type]
    leadership = Leadership(server, namespace="malote", name="l", identity="me")  # type: ignore[arg-type]
    connection: Any = SimpleNamespace()
    working = asyncio.create_task(main._work(operator, leadership, connection, stop))
    await server.asked.wait()
    stop.set()
    ended, _ = await asyncio.wait([working], timeout=30)
    working.cancel()
    assert ended, "it was still listing when it should have ended"
    await working
