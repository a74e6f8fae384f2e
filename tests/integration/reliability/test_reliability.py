"""The reliability run in brief (`make reliability` is the long one), and the model of a disk that it rests on."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.harness import preloads
from tests.harness.processes import ROOT
from tests.reliability import disk, kills, oplog, powerloss
from tests.reliability.disk import Disk
from tests.reliability.shim import Faults
from tests.reliability.stage import Settings
from tests.unit.relay.store.contract import NOW

from malote_relay.store.sqlite import SqliteStore

SEED = 20_261_123

needs_a_compiler = pytest.mark.skipif(bool(preloads.missing()), reason=preloads.missing())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(SEED, tmp_path, sessions=6, mount=False, verbose=False)


async def test_kills_under_load_lose_nothing(settings: Settings) -> None:
    outcome = await kills.under_load(settings, 8)
    assert outcome.account.complaints == []
    assert outcome.kills == 8
    assert outcome.account.acknowledged > 50
    assert outcome.account.notifications > 0


@needs_a_compiler
async def test_a_full_disk_is_answered_with_452_and_loses_nothing(settings: Settings) -> None:
    outcome = await kills.full_disk(settings, 2)
    assert outcome.account.complaints == []
    assert outcome.account.refused > 0


async def test_clock_steps_break_no_promise_of_the_hours(settings: Settings) -> None:
    outcome = await kills.clock_steps(settings, 3)
    assert outcome.account.complaints == []
    assert outcome.account.acknowledged > 20


@needs_a_compiler
async def test_power_lost_at_a_sync_or_between_loses_nothing(settings: Settings) -> None:
    lost = await powerloss.run(settings, 40, seconds=3.0)
    assert lost.complaints == []
    assert lost.boundaries >= 40
    assert lost.starts == 2
    assert lost.accepted > 50


_WRITES = """
import os, sys
from pathlib import Path
root = Path(sys.argv[1])
def synced(path, data):
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
def sync(directory):
    descriptor = os.open(directory, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
synced(root / "named", b"a" * 2000)
synced(root / "nameless", b"b")
with (root / "unsynced").open("wb") as file:
    file.write(b"c" * 2000)
(root / "folder").mkdir()
sync(root)
(root / "named").rename(root / "folder" / "moved")
with (root / "unsynced").open("r+b") as file:
    file.write(b"d" * 1000)
synced(root / "late", b"e")
(root / "nameless").unlink()
"""


@needs_a_compiler
async def test_the_model_keeps_what_was_synced_and_no_more(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    faults = Faults(tmp_path, root, log=True)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WRITES, str(root), env={**os.environ, **faults.environment}
    )
    assert await child.wait() == 0
    model = Disk(root)
    for operation in oplog.operations(faults.log):
        model.apply(operation)

    def after(loss: disk.Loss, name: str) -> dict[str, bytes]:
        model.write(tmp_path / name, loss)
        found = (tmp_path / name).rglob("*")
        return {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in found if path.is_file()}

    assert after(disk.dropped(), "dropped") == {"named": b"a" * 2000, "nameless": b"b", "unsynced": b""}
    whole = {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert {Path(name).name: data for name, data in after(disk.kept(), "kept").items()} == whole
    seen = set()
    for number in range(40):
        torn = after(disk.torn(random.Random(number)), f"torn-{number}")
        assert ("named" in torn) is not ("folder/moved" in torn), "a rename is one step"
        content = torn["unsynced"]
        sectors = {content[at : at + 512] for at in range(0, len(content), 512)}
        seen.add(content)
        assert all(set(sector) <= {0, ord("c"), ord("d")} for sector in sectors)
    assert len(seen) > 5


_REFUSED_THEN_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from malote_relay.store import writer
from malote_relay.store.model import StoreError
from malote_relay.store.sqlite import SqliteStore
from tests.unit.relay.store.contract import BODY, message

async def work():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    writer.sync_directory = lambda directory: None  # the sync that fails is to be the commit's
    (store.incoming / "big").write_bytes(BODY)
    print("open", flush=True)
    sys.stdin.readline()
    try:
        await store.accept(message(content=store.incoming / "big", identifier="big"))
    except StoreError:
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(work())
"""


@needs_a_compiler
async def test_a_message_whose_sync_failed_is_whole_if_it_is_there_after_a_kill(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    faults = Faults(tmp_path, root)
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _REFUSED_THEN_KILLED,
        str(root / "spool"),
        env={**os.environ, **faults.environment},
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert await child.stdout.readline() == b"open\n"
    faults.failing(1.0)
    await child.communicate(b"go on\n")
    assert child.returncode == -signal.SIGKILL
    store = SqliteStore(root / "spool")
    recovered = await store.open()
    due = await store.due(NOW, 10)
    await store.close()
    assert [one.message_id for one in due] == ["big"], "else this test shows nothing"
    assert recovered.quarantined == ()


def test_the_command_says_what_it_can_do() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.reliability", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--seed" in done.stdout
