from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from malote_relay import changes
from malote_relay.changes import Changes


@pytest.fixture(autouse=True)
def very_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "SLOW_SECONDS", 120.0)


async def told(watch: Changes) -> bool:
    """Whether a change is told well before the next slow look."""
    began = time.monotonic()
    await watch.wait()
    return time.monotonic() - began < 60.0


def write(directory: Path) -> None:
    (directory / "new").write_text("x")


def rename(directory: Path) -> None:
    (directory / "old").rename(directory / "relay.json")


def swap(directory: Path) -> None:
    """As the kubelet does it for a mounted Secret."""
    (directory / "..2").mkdir()
    os.symlink("..2", directory / "..data_tmp")
    (directory / "..data_tmp").rename(directory / "..data")


def replace(directory: Path) -> None:
    """The directory as a whole."""
    other = directory.with_name("other")
    other.mkdir()
    directory.rename(directory.with_name("gone"))
    other.rename(directory)


@pytest.mark.parametrize("change", [write, rename, swap, replace])
async def test_what_happens_in_a_directory_is_told_at_once(tmp_path: Path, change: Callable[[Path], None]) -> None:
    directory = tmp_path / "config"
    (directory / "..1").mkdir(parents=True)
    os.symlink("..1", directory / "..data")
    (directory / "old").write_text("")
    with Changes(tmp_path, [directory]) as watch:
        assert watch.working
        asyncio.get_running_loop().call_later(0.05, change, directory)
        assert await told(watch)
        # And it goes on: also in a directory that has taken the other's place.
        asyncio.get_running_loop().call_later(0.05, write, directory)
        assert await told(watch)


async def test_a_directory_that_comes_later_is_watched_then(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    with Changes(tmp_path, [keys]) as watch:
        assert watch.working
        asyncio.get_running_loop().call_later(0.05, keys.mkdir)
        assert await told(watch)
        asyncio.get_running_loop().call_later(0.05, write, keys)
        assert await told(watch)


async def test_without_anything_told_it_is_looked_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "SLOW_SECONDS", 0.2)
    with Changes(tmp_path) as watch:
        assert await told(watch)


async def test_where_there_is_no_inotify_it_is_looked_more_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Changes(tmp_path)
    monkeypatch.setattr(watch, "_libc", object())
    with watch:
        assert not watch.working
        assert await told(watch)
