"""What a bench needs built or fetched: the load generator, the slow disk, Haraka. All of it is kept in the cache.

Each is named by a hash of what it was made from, so that a change is made anew; deleting the cache costs only time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.harness import preloads
from tests.harness.processes import RunError

from malote_dev import gotoolchain
from malote_dev.progress import Progress
from malote_dev.toolchain import cache_directory

_HERE = Path(__file__).parent
HARAKA = ("Haraka@3.3.4", "haraka-plugin-dkim@1.3.1")


def load_generator() -> Path:
    """The compiled `loadgen`. Raises RunError."""
    sources = [_HERE / "loadgen" / name for name in ("go.mod", "main.go")]
    target = _place("loadgen", *(source.read_bytes() for source in sources))
    if not target.exists():
        with Progress() as progress:
            try:
                go = gotoolchain.find((1, 22), cache_directory(), os.environ, progress)
            except gotoolchain.GoError as error:
                raise RunError(str(error)) from error
        scratch = _scratch(target)
        _run([go.program, "build", "-o", scratch, "."], _HERE / "loadgen", {**go.environ, "CGO_ENABLED": "0"})
        scratch.replace(target)
    return target


def slow_disk() -> Path:
    """The library to preload, compiled from `syncdelay.c`. Raises RunError."""
    return preloads.library(_HERE / "syncdelay.c")


def haraka() -> Path:
    """The folder whose `node_modules` has Haraka and its DKIM plugin. Raises RunError."""
    target = _place("haraka", " ".join(HARAKA).encode())
    if not target.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise RunError("no npm: apt-get install nodejs npm")
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".haraka-"))
        _run([npm, "install", "--no-audit", "--no-fund", "--loglevel=error", *HARAKA], scratch, {})
        scratch.replace(target)
    return target


def _place(name: str, *made_from: bytes) -> Path:
    folder = cache_directory() / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{hashlib.sha256(b''.join(made_from)).hexdigest()[:12]}-{name}"


def _scratch(target: Path) -> Path:
    return target.with_name(f".{os.getpid()}-{target.name}")


def _run(command: list[str | Path], directory: Path, environment: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            command, cwd=directory, env={**os.environ, **environment}, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise RunError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        raise RunError(f"{Path(command[0]).name} failed:\n{(done.stderr or done.stdout).strip()[-2000:]}")
