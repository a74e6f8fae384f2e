"""Libraries that are preloaded into a server under test: built from C once for each version of their source."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.harness.processes import RunError

from malote_dev.toolchain import cache_directory


def missing() -> str:
    """Why none can be built here; "" when they can."""
    return "" if shutil.which("cc") else "there is no C compiler (cc): apt-get install gcc libc6-dev"


def library(source: Path) -> Path:
    """The shared object of that source. Raises RunError."""
    if reason := missing():
        raise RunError(reason)
    folder = cache_directory() / "preloads"
    built = folder / f"{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}-{source.stem}.so"
    if not built.exists():
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f".{os.getpid()}-{built.name}"
        command = ["cc", "-O2", "-fPIC", "-shared", "-o", str(fresh), str(source), "-ldl", "-lpthread"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RunError(f"{source.name} could not be compiled:\n{done.stderr}")
        fresh.replace(built)
    return built
