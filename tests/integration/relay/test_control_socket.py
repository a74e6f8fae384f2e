"""The socket itself: who may use it, long paths, bad requests, clients that do not read."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

import pytest

from malote_relay.control.client import Client, Failed, Unreachable
from malote_relay.control.fields import Answer, Request, option
from malote_relay.control.place import SOCKET
from malote_relay.control.registry import Controls, Refused
from malote_relay.control.server import MAX_CONNECTIONS, MAX_REQUEST, ControlServer


class Count(Request, frozen=True, kw_only=True):
    to: Annotated[int, option("how far", ge=0)] = 3


class Number(Answer, frozen=True, kw_only=True):
    number: int
    words: str = "x" * 100


class Counting:
    """A relay's commands, and how far they got."""

    def __init__(self) -> None:
        self.reached = 0
        self.ended = False
        self.controls = Controls()
        self.controls.rows("count", "Count.", Count, Number, self.count)
        self.controls.one("refuse", "Refuse.", Count, Number, self.refuse)
        self.controls.one("break", "Break.", Count, Number, self.fail)

    async def count(self, asked: Count) -> AsyncIterator[Number]:
        try:
            for self.reached in range(1, asked.to + 1):
                yield Number(number=self.reached)
        finally:
            self.ended = True

    async def refuse(self, asked: Count) -> Number:
        raise Refused("not today")

    async def fail(self, asked: Count) -> Number:
        raise ZeroDivisionError("by zero")


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
async def serve(counting: Counting) -> AsyncIterator[Callable[..., Any]]:
    servers: list[ControlServer] = []

    async def serve(spool: Path, **settings: float) -> ControlServer:
        server = ControlServer(counting.controls, spool, **settings)
        await server.start()
        servers.append(server)
        return server

    yield serve
    for server in servers:
        await server.stop()


def asked(spool: Path, command: str, **arguments: Any) -> list[dict[str, Any]]:
    with Client(spool, 10.0) as client:
        return list(client.ask(command, **arguments))


async def said(spool: Path, *requests: bytes) -> list[Any]:
    """Send lines as they are; all that comes back until the relay waits or hangs up."""
    reader, writer = await asyncio.open_unix_connection(str(spool / SOCKET))
    writer.write(b"".join(requests))
    writer.write_eof()
    answers = [json.loads(line) for line in (await reader.read()).splitlines()]
    writer.close()
    return answers


async def test_only_the_spools_owner_may_use_it_and_it_goes_with_the_relay(
    serve: Callable[..., Any], tmp_path: Path
) -> None:
    old = os.umask(0)
    try:
        server = await serve(tmp_path)
    finally:
        os.umask(old)
    mode = (tmp_path / SOCKET).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    await server.stop()
    assert not (tmp_path / SOCKET).exists()
    with pytest.raises(Unreachable, match=r"no relay answers at .*Is it running"):
        asked(tmp_path, "count")


async def test_a_socket_that_a_killed_relay_left_is_in_nobodys_way(serve: Callable[..., Any], tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / SOCKET))
    left.close()
    with pytest.raises(Unreachable):
        asked(tmp_path, "count")
    await serve(tmp_path)
    assert len(await asyncio.to_thread(asked, tmp_path, "count")) == 3


async def test_the_spools_path_may_be_longer_than_a_sockets_address(
    serve: Callable[..., Any], tmp_path: Path
) -> None:
    spool = tmp_path / ("long" * 30) / ("longer" * 30)
    spool.mkdir(parents=True)
    await serve(spool)
    assert len(await asyncio.to_thread(asked, spool, "count", to=250)) == 250
    assert stat.S_IMODE((spool / SOCKET).stat().st_mode) == 0o600


async def test_where_no_socket_can_be_the_relay_goes_on_without(serve: Callable[..., Any], tmp_path: Path) -> None:
    server = await serve(tmp_path / "gone")
    await server.stop()


async def test_requests_follow_one_another_and_bad_ones_are_answered_in_words(
    serve: Callable[..., Any], tmp_path: Path
) -> None:
    await serve(tmp_path)
    answers = await said(
        tmp_path,
        b'{"command": "count", "to": 1}\n',
        b"count\n",
        b"[1]\n",
        b"\xff\xfe\n",
        b'{"command": "count", "to": -1}\n',
        b'{"command": "cuont"}\n',
        b'{"command": "help", "me": true}\n',
        b'{"command": "refuse"}\n',
        b'{"command": "break"}\n',
        b'{"command": "count", "to": 0}\n',
    )
    assert answers[0]["row"]["number"] == 1
    assert answers[1] == {"end": 1}
    errors = [answer["error"] for answer in answers[2:-1]]
    for error, words in zip(
        errors,
        ["a JSON object", "a JSON object", "a JSON object", ">= 0", "no command 'cuont'", "unknown field `me`",
         "not today", "it failed in the relay: ZeroDivisionError: by zero"],
        strict=True,
    ):  # fmt: skip
        assert words in error
    assert answers[-1] == {"end": 0}


async def test_a_request_without_end_is_refused(serve: Callable[..., Any], tmp_path: Path) -> None:
    await serve(tmp_path)
    answers = await said(tmp_path, b"x" * (MAX_REQUEST + 1))
    assert "at most" in answers[0]["error"]


async def test_an_answer_is_made_no_faster_than_it_is_read(
    serve: Callable[..., Any], counting: Counting, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    """A million rows that nobody reads are not made; and who does not read at all is cut off."""
    await serve(tmp_path, idle_seconds=1.0)
    _, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET), limit=1024)
    writer.write(b'{"command": "count", "to": 1000000}\n')
    await eventually(lambda: counting.reached)
    reached = 0
    while counting.reached != reached and reached < 20_000:  # until all room on the way is taken
        reached = counting.reached
        await asyncio.sleep(0.2)
    assert counting.reached == reached < 20_000
    await eventually(lambda: counting.ended)
    assert counting.reached == reached
    writer.transport.abort()


async def test_who_hangs_up_ends_the_work(
    serve: Callable[..., Any], counting: Counting, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    await serve(tmp_path)
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET), limit=1024)
    writer.write(b'{"command": "count", "to": 1000000}\n')
    await reader.readline()
    writer.transport.abort()
    await eventually(lambda: counting.ended)
    assert counting.reached < 100_000


async def test_no_more_than_a_few_ask_at_a_time(serve: Callable[..., Any], tmp_path: Path) -> None:
    await serve(tmp_path)
    others = [await asyncio.open_unix_connection(str(tmp_path / SOCKET)) for _ in range(MAX_CONNECTIONS)]
    await asyncio.sleep(0.1)
    with pytest.raises(Failed, match="too many ask"):
        await asyncio.to_thread(asked, tmp_path, "count")
    for _, writer in others:
        writer.close()


async def test_the_relays_end_ends_every_conversation(serve: Callable[..., Any], tmp_path: Path) -> None:
    server = await serve(tmp_path)
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET))
    writer.write(b'{"command": "count", "to": 0}\n')
    assert json.loads(await reader.readline()) == {"end": 0}
    await server.stop()
    assert await reader.read() == b""
    writer.close()
