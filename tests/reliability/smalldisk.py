"""A disk that can be filled: a small file system in memory, where this process may mount one."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A small file system; a ballast file takes its room away and gives it back."""

    path: Path

    def room(self, much: bool) -> None:
        ballast = self.path / "ballast"
        if much:
            ballast.unlink(missing_ok=True)
            return
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 65_536)


@contextlib.contextmanager
def small_disk(directory: Path, *, wanted: bool = True) -> Iterator[SmallDisk | None]:
    """A file system of 64 MB in memory, where this process may mount one and it is wanted; else None."""
    path = directory / "small-disk"
    path.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=64m", "malote-reliability", str(path)]
    mounted = (
        wanted and mount and umount and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )
    try:
        yield SmallDisk(path) if mounted else None
    finally:
        if mounted:
            subprocess.run([str(umount), str(path)], check=True)
