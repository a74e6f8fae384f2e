"""Files of a volume, replaced all at once: a reader sees the old set or the new one, never a mixture.

The kubelet's scheme, which programs rely on to notice changes: the files lie in a folder with the time in its name,
``..data`` is a symbolic link to it, and each visible name is a link through ``..data``. A swap is one rename of
``..data``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_DATA = "..data"


@dataclass(frozen=True)
class FileContent:
    """One file of a volume."""

    content: bytes
    mode: int = 0o644


def replace_files(folder: Path, files: Mapping[str, FileContent]) -> bool:
    """Make *folder* hold exactly *files* (relative names); False where it already did and nothing was written."""
    folder.mkdir(parents=True, exist_ok=True)
    if _present(folder) == dict(files):
        return False
    stamp = datetime.now(UTC).strftime("..%Y_%m_%d_%H_%M_%S.")
    fresh = Path(tempfile.mkdtemp(prefix=stamp, dir=folder))
    fresh.chmod(0o755)
    for name, file in files.items():
        target = fresh / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(0o600)
        target.write_bytes(file.content)
        target.chmod(file.mode)
    data = folder / _DATA
    old = folder / os.readlink(data) if data.is_symlink() else None
    swap = folder / "..data_tmp"
    with contextlib.suppress(FileNotFoundError):
        swap.unlink()
    swap.symlink_to(fresh.name)
    swap.replace(data)
    _link_visible_names(folder, {Path(name).parts[0] for name in files})
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
    return True


def _link_visible_names(folder: Path, names: set[str]) -> None:
    for entry in folder.iterdir():
        if not entry.name.startswith("..") and entry.name not in names:
            entry.unlink()
    for name in names:
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(Path(_DATA) / name)


def _present(folder: Path) -> dict[str, FileContent] | None:
    data = folder / _DATA
    if not data.is_dir():
        return None
    return {
        str(path.relative_to(data)): FileContent(path.read_bytes(), path.stat().st_mode & 0o7777)
        for path in data.rglob("*")
        if path.is_file()
    }
