"""containerd: images in, and everything that its containers left out again."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from malote_dev.realnode.commands import run

_CGROUPS = Path("/sys/fs/cgroup")


def import_image(socket: Path, archive: Path) -> None:
    """Load an image archive into the namespace that the kubelet uses."""
    run(["ctr", "--address", socket, "--namespace", "k8s.io", "images", "import", archive], timeout=300)


def may_lower_oom_scores() -> bool:
    """Whether this machine lets root lower a process's OOM score (CAP_SYS_RESOURCE, bit 24)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> 24 & 1)
    return False


def cgroup_folders(name: str) -> list[Path]:
    """The folders of control group `name`: one in each hierarchy (version 1), or the one (version 2)."""
    return [folder for folder in (_CGROUPS / name, *_CGROUPS.glob(f"*/{name}")) if folder.is_dir()]


def make_cgroup(name: str) -> None:
    """Make the control group below which the kubelet puts its pods."""
    hierarchies = [_CGROUPS] if (_CGROUPS / "cgroup.controllers").exists() else [*_CGROUPS.iterdir()]
    for hierarchy in hierarchies:
        if not hierarchy.is_dir() or hierarchy.is_symlink():
            continue
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):
            # Version 1: a new cpuset is empty and takes no process.
            if (hierarchy / file).exists() and not (group / file).read_text().strip():
                (group / file).write_text((hierarchy / file).read_text())


def kill_cgroup(name: str, patience: float = 10.0) -> None:
    """SIGKILL every process in control group `name` and below, then remove the group."""
    deadline = time.monotonic() + patience
    while (found := set(_members(name))) and time.monotonic() < deadline:
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)
    for top in cgroup_folders(name):
        for folder in _folders_below(top):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _folders_below(top: Path) -> Iterator[Path]:
    """Every folder of `top` and `top` itself, the deepest first.

    Control groups vanish while they are read (containerd removes an ended container's): os.walk passes over
    a folder that is gone, where Path.rglob raises.
    """
    for folder, _, _ in os.walk(top, topdown=False):
        yield Path(folder)


def _members(name: str) -> Iterator[int]:
    for top in cgroup_folders(name):
        for folder in _folders_below(top):
            with contextlib.suppress(OSError):
                yield from (int(line) for line in (folder / "cgroup.procs").read_text().split())


def mounts_below(folder: Path) -> list[Path]:
    """Mount points in `folder`, the deepest and newest first."""
    prefix = f"{folder}/"
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    # The kernel writes a space in a path as \\040.
    decoded = [point.encode().decode("unicode_escape") for point in points]
    return [Path(point) for point in reversed(decoded) if point.startswith(prefix)]


def unmount_below(folder: Path) -> None:
    """Unmount everything in `folder`, so that deleting it deletes nothing that is only mounted there."""
    for point in mounts_below(folder):
        run(["umount", "--lazy", point])
