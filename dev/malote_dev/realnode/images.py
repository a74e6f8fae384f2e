"""Container images from nothing but Debian packages and the project's own Dockerfile.

Where no registry can be reached, the Dockerfile's base image is made by debootstrap and given the base's name; the
Dockerfile itself then builds unchanged. Each image is kept in the cache as a docker-archive file whose name carries a
hash of everything it was made from, so that a run in which nothing changed builds nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from malote_dev.realnode.commands import run

PAUSE = "localhost/pause:1"
"""What keeps a pod's namespaces open; containerd's configuration names it."""
WORLD = "localhost/malote-world:dev"
"""The test world: sink MX hosts and mailbox providers of `malote_dev`, on top of the project's image."""

_SUITE = "bookworm"
_BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates")
_HOST_FILES = ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class Image:
    """An image and the file that holds it."""

    name: str
    archive: Path


class Builder:
    """Builds the images of one checkout into a cache folder; a second builder on the machine waits for the first."""

    def __init__(self, checkout: Path, cache: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self._checkout = checkout
        self._cache = cache / "images"
        self._say = say
        self._cache.mkdir(parents=True, exist_ok=True)

    def all(self, project: str) -> list[Image]:
        """The images a node needs, built where they are not there yet; the project's own gets the name `project`."""
        with (self._cache / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            made = self._project(project)
            return [self._pause(), made, self._world(made)]

    def _pause(self) -> Image:
        busybox = Path(shutil.which("busybox") or "/bin/busybox")
        key = _hash([busybox.read_bytes()])

        def build(buildah: _Buildah, target: Path) -> None:
            container = buildah("from", "scratch").strip()
            buildah("copy", "--quiet", container, str(busybox), "/bin/busybox")
            buildah("config", "--cmd", '["/bin/busybox", "sleep", "2147483647"]', container)
            buildah.commit(container, PAUSE, target)

        return self._cached("pause", PAUSE, key, build)

    def _base(self) -> Image:
        name = base_name((self._checkout / "Dockerfile").read_text())
        mirror = os.environ.get("MALOTE_DEBIAN_MIRROR", "")

        def build(buildah: _Buildah, target: Path) -> None:
            with tempfile.TemporaryDirectory(dir=self._cache, prefix=".root-") as scratch:
                root = Path(scratch) / "root"
                run(
                    [
                        "debootstrap",
                        "--variant=minbase",
                        f"--include={','.join(_BASE_PACKAGES)}",
                        _SUITE,
                        root,
                        *([mirror] if mirror else ()),  # none: debootstrap knows its own
                    ],
                    timeout=900,
                    log=self._cache / "debootstrap.log",
                )
                for leftover in (*root.glob("var/cache/apt/archives/*.deb"), *root.glob("var/lib/apt/lists/*_*")):
                    leftover.unlink()
                shutil.rmtree(root / "usr/share/doc", ignore_errors=True)
                shutil.rmtree(root / "usr/share/locale", ignore_errors=True)
                container = buildah("from", "scratch").strip()
                buildah("copy", "--quiet", container, f"{root}/", "/")
            buildah.commit(container, name, target)

        return self._cached("base", name, _hash([repr((_SUITE, _BASE_PACKAGES, name)).encode()]), build)

    def _project(self, name: str) -> Image:
        base = self._base()
        sources = [self._checkout / part for part in ("Dockerfile", "pyproject.toml", "README.md")]
        trees = [self._checkout / part for part in ("requirements/image.lock", "operator", "relay")]
        key = _hash(
            [base.archive.name.encode(), name.encode(), contents_key(self._checkout, [*sources, *trees]).encode()]
        )

        def build(buildah: _Buildah, target: Path) -> None:
            buildah("pull", "--quiet", f"docker-archive:{base.archive}")
            volumes = [f"--volume={path}:{path}:ro" for path in _HOST_FILES if Path(path).exists()]
            buildah(
                "bud", "--isolation", "chroot", "--pull-never", "--timestamp", "0", *volumes,
                "--tag", name, "--file", str(self._checkout / "Dockerfile"), str(self._checkout),
                log=self._cache / "project.log",
            )  # fmt: skip
            buildah("push", "--quiet", name, f"docker-archive:{target}:{name}")

        return self._cached("malote", name, key, build)

    def _world(self, below: Image) -> Image:
        package = self._checkout / "dev/malote_dev"
        key = _hash([below.archive.name.encode(), contents_key(self._checkout, [package]).encode()])

        def build(buildah: _Buildah, target: Path) -> None:
            buildah("pull", "--quiet", f"docker-archive:{below.archive}")
            container = buildah("from", "--pull-never", below.name).strip()
            buildah("copy", "--quiet", container, str(package), "/opt/malote-dev/malote_dev")
            buildah("config", "--env", "PYTHONPATH=/opt/malote-dev", container)
            buildah.commit(container, WORLD, target)

        return self._cached("world", WORLD, key, build)

    def _cached(self, kind: str, name: str, key: str, build: Callable[[_Buildah, Path], None]) -> Image:
        archive = self._cache / f"{kind}-{key}.tar"
        if not archive.exists():
            self._say(f"building image {name}")
            with _buildah(self._cache) as buildah:
                made = archive.with_suffix(".part")
                made.unlink(missing_ok=True)
                build(buildah, made)
            if not tarfile.is_tarfile(made):
                raise RuntimeError(f"{made} is not an image archive: remove {self._cache} and try again")
            made.replace(archive)
            _keep_newest(self._cache.glob(f"{kind}-*.tar"), 3)
        archive.touch()
        return Image(name, archive)


class _Buildah:
    """buildah with a storage of its own: nothing of the machine's other images is seen or touched."""

    def __init__(self, folder: Path) -> None:
        self._options = [
            "--root",
            str(folder / "storage"),
            "--runroot",
            str(folder / "run"),
            "--storage-driver",
            "vfs",
        ]

    def __call__(self, *arguments: str, log: Path | None = None) -> str:
        return run(["buildah", *self._options, *arguments], timeout=900, log=log, env=_build_environment(os.environ))

    def commit(self, container: str, name: str, target: Path) -> None:
        """Write a working container out as an image archive."""
        self("commit", "--quiet", "--timestamp", "0", container, f"docker-archive:{target}:{name}")


@contextmanager
def _buildah(cache: Path) -> Iterator[_Buildah]:
    folder = Path(tempfile.mkdtemp(dir=cache, prefix=".buildah-"))
    buildah = _Buildah(folder)
    try:
        yield buildah
    finally:
        # Working containers may be mounted: let buildah take them down before their folder goes.
        run(["buildah", *buildah._options, "rm", "--all"])
        shutil.rmtree(folder)


def base_name(dockerfile: str) -> str:
    """The default of a Dockerfile's `ARG BASE=`."""
    found = re.search(r"^ARG BASE=(\S+)$", dockerfile, re.MULTILINE)
    if found is None:
        raise ValueError("the Dockerfile has no ARG BASE=… line to take the base image's name from")
    return found.group(1)


def _build_environment(environ: Mapping[str, str]) -> dict[str, str]:
    # buildah hands proxies on to RUN by itself; nothing else of ours should get into an image.
    kept = (
        "PATH",
        "HOME",
        "TMPDIR",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
    )
    return {name: environ[name] for name in kept if name in environ}


def contents_key(checkout: Path, paths: Iterable[Path]) -> str:
    """A hash of the files at and below these paths: of their names in the checkout and their contents."""
    return _hash(_contents(checkout, paths))


def _contents(checkout: Path, paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                yield str(file.relative_to(checkout)).encode()
                yield file.read_bytes()


def _hash(parts: Iterable[bytes]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()[:16]


def _keep_newest(archives: Iterable[Path], count: int) -> None:
    for old in sorted(archives, key=lambda path: path.stat().st_mtime, reverse=True)[count:]:
        old.unlink(missing_ok=True)
