"""A relay on real sockets, in a made-up Internet: `site` has what is around it, `running` the relay and clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from tests.integration.relay.running import Ctl, Program, Running, eventually, message
from tests.integration.relay.site import Key, Site, World


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The relay's event loop: uvloop's transports and TLS are code of its own and behave differently."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def key() -> Key:
    return Key()


@pytest.fixture
async def world(key: Key) -> AsyncIterator[World]:
    world = World(key)
    await world.start()
    yield world
    await world.stop()


@pytest.fixture
def site(world: World, tmp_path: Path) -> Site:
    return Site(tmp_path, world)


@pytest.fixture
async def start(site: Site) -> AsyncIterator[Callable[[], Any]]:
    """Starts the relay, once the test has changed what it wants in the configuration."""
    running: list[Running] = []

    async def start() -> Running:
        one = Running(site)
        await one.relay.start()
        running.append(one)
        return one

    yield start
    for one in running:
        await one.stop()


@pytest.fixture
async def relay(start: Callable[[], Any]) -> Running:
    started: Running = await start()
    return started


@pytest.fixture
async def program(site: Site) -> AsyncIterator[Program]:
    program = Program(site)
    yield program
    if program.process is not None and program.process.returncode is None:
        program.process.kill()
        await program.process.communicate()


@pytest.fixture
def ctl(site: Site) -> Ctl:
    return Ctl(site)


@pytest.fixture(name="eventually")
def eventually_() -> Callable[..., Any]:
    return eventually


@pytest.fixture
def compose() -> Callable[..., bytes]:
    return message
