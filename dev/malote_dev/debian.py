"""Programs of Debian's packages for whoever may not install them: fetched once, unpacked into the cache.

The tests run dashboards' queries on a real Prometheus, which is in Debian and Ubuntu but not on PyPI. Installed, it
is used as it is; otherwise `apt-get download` and `dpkg-deb --extract` get it without root, the system untouched.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from malote_dev.toolchain import cache_directory


class PackageError(RuntimeError):
    """The program is neither installed nor to be had; the message says what to do."""


def program(name: str, package: str, environ: Mapping[str, str] = os.environ) -> Path:
    """The path of a program, from PATH or from a Debian package in the cache. Raises PackageError."""
    if installed := shutil.which(name, path=environ.get("PATH", os.defpath)):
        return Path(installed)
    folder = cache_directory(environ) / "debian" / package
    found = folder / "usr/bin" / name
    if not found.exists():
        _fetch(package, folder)
    if not found.exists():
        raise PackageError(f"Debian's package {package} has no usr/bin/{name}")
    return found


def _fetch(package: str, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{package}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            unpacked = Path(scratch) / "unpacked"
            try:
                _run("apt-get", "download", "--quiet", package, cwd=scratch)
                (archive,) = Path(scratch).glob("*.deb")
                _run("dpkg-deb", "--extract", str(archive), str(unpacked), cwd=scratch)
            except (OSError, subprocess.CalledProcessError, ValueError) as error:
                words = getattr(error, "stderr", "") or str(error)
                raise PackageError(
                    f"{package} is not installed and could not be fetched: {words.strip()}\n"
                    f"Run `apt-get update` once, or `apt-get install {package}`."
                ) from error
            unpacked.rename(folder)


def _run(*command: str, cwd: str) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True)
