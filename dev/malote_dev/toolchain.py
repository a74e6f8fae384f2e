"""The Kubernetes programs of the local world: found on this machine, or built once from the Go module proxy.

There is no package with kube-apiserver and friends for a machine without a container engine, so this module looks
where developers have them already (``KUBEBUILDER_ASSETS``, the folders of ``setup-envtest``, PATH) and otherwise
builds them from ``dev/toolchain/*/go.mod``, which pin every dependency by hash. What was built stays in a cache
outside the checkout, keyed by those pins: the first run takes minutes, each later one a few milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from malote_dev import gotoolchain
from malote_dev.progress import Progress

KUBERNETES_VERSION = "v1.34.4"
OLDEST_KUBERNETES = (1, 31)
# kubectl may differ from the API server by one minor version.
OLDEST_KUBECTL = (1, 33)
OLDEST_HELM = (3, 14)
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl", "helm")

_KUBERNETES_LDFLAGS = (
    f"-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION}"
    " -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34"
)
# The second pair is the cluster's version that `helm template` assumes.
_HELM_LDFLAGS = (
    "-s -w -X helm.sh/helm/v3/internal/version.version=v3.22.0"
    " -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=34"
)


@dataclass(frozen=True)
class _Recipe:
    """How one program is built: the folder of its go.mod, its package, and what a cold build took on two cores."""

    module: str
    package: str
    seconds: int
    ldflags: str = _KUBERNETES_LDFLAGS


RECIPES: Mapping[str, _Recipe] = {
    "etcd": _Recipe("kubernetes", "go.etcd.io/etcd/server/v3", 45),
    "kube-apiserver": _Recipe("kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver", 170),
    "kube-controller-manager": _Recipe("kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager", 50),
    "kubectl": _Recipe("kubernetes", "k8s.io/kubernetes/cmd/kubectl", 20),
    "kube-scheduler": _Recipe("kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler", 5),
    "kubelet": _Recipe("kubernetes", "k8s.io/kubernetes/cmd/kubelet", 20),
    "kube-proxy": _Recipe("kubernetes", "k8s.io/kubernetes/cmd/kube-proxy", 10),
    "helm": _Recipe("helm", "helm.sh/helm/v3/cmd/helm", 60, _HELM_LDFLAGS),
    "coredns": _Recipe("coredns", "github.com/coredns/coredns", 100, "-s -w"),
    "dkim-verify": _Recipe("dkimverify", ".", 10, "-s -w"),
}


class ToolchainError(RuntimeError):
    """A program can neither be found nor built; the message says what was tried and what to do."""


def cache_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Where built programs stay: ``$MALOTE_CACHE``, else ``$XDG_CACHE_HOME/malote``, else ``~/.cache/malote``."""
    if named := environ.get("MALOTE_CACHE"):
        return Path(named)
    if xdg := environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "malote"
    return Path(environ.get("HOME") or Path.home()) / ".cache/malote"


def modules_directory() -> Path:
    """The committed go.mod files; Malote's local world runs from a checkout (an editable installation)."""
    return Path(__file__).resolve().parents[1] / "toolchain"


def version_of(text: str) -> tuple[int, ...]:
    """The first ``1.34`` or ``v1.34.4`` in a program's words, as numbers; empty where there is none."""
    found = re.search(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in found.groups() if part is not None) if found else ()


def _reported_version(program: Path, *arguments: str) -> tuple[int, ...]:
    try:
        said = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return version_of(said.stdout)


def kubernetes_version(program: Path) -> tuple[int, ...]:
    """What ``kube-apiserver --version`` or ``kubectl version --client`` reports; empty if it does not run."""
    if program.name == "kubectl":
        return _reported_version(program, "version", "--client")
    return _reported_version(program, "--version")


@dataclass(frozen=True)
class Toolchain:
    """Paths of the programs that were asked for: ``toolchain["kubectl"]``."""

    programs: Mapping[str, Path]

    def __getitem__(self, name: str) -> Path:
        """The program's path; ToolchainError where it was not asked for."""
        try:
            return self.programs[name]
        except KeyError:
            raise ToolchainError(f"{name} was not asked of Toolchain.find; it has {sorted(self.programs)}") from None

    @classmethod
    def find(
        cls,
        names: Iterable[str] = CONTROL_PLANE,
        *,
        progress: Progress | None = None,
        environ: Mapping[str, str] = os.environ,
        abort: Abort | None = None,
    ) -> Toolchain:
        """Find each program, or build it; blocks for minutes the first time, shown by *progress*.

        The order: ``KUBEBUILDER_ASSETS``, the newest ``setup-envtest`` folder that is new enough, PATH (kubectl and
        helm only), the cache, a build. Raises ToolchainError.
        """
        names = list(dict.fromkeys(names))
        if unknown := [name for name in names if name not in RECIPES]:
            raise ToolchainError(f"unknown program {unknown[0]!r}; there are {', '.join(RECIPES)}")
        search = Search(environ)
        programs = {name: found for name in names if (found := search.find(name)) is not None}
        missing = [name for name in names if name not in programs]
        if missing:
            with progress or Progress() as shown:
                builder = Builder(cache_directory(environ), environ, shown, abort)
                for number, name in enumerate(missing, 1):
                    shown.step(f"{number} of {len(missing)}")
                    programs[name] = builder.build(name)
        return cls(programs)

    @classmethod
    async def find_async(
        cls, names: Iterable[str] = CONTROL_PLANE, *, environ: Mapping[str, str] = os.environ
    ) -> Toolchain:
        """`find` beside a running event loop; cancelling it ends a build that is under way."""
        abort = Abort()
        try:
            return await asyncio.to_thread(cls.find, list(names), environ=environ, abort=abort)
        except asyncio.CancelledError:
            abort.now()
            raise


class Abort:
    """Lets another thread end a build; the build then raises ToolchainError."""

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self._process: subprocess.Popen[str] | None = None

    def now(self) -> None:
        """End what is going on, and let nothing new begin."""
        self._wanted.set()
        if self._process is not None:
            self._process.kill()

    def watch(self, process: subprocess.Popen[str]) -> None:
        """The process to end when it comes to that."""
        self._process = process
        if self._wanted.is_set():
            process.kill()

    def check(self) -> None:
        """Raise ToolchainError if the end is wanted."""
        if self._wanted.is_set():
            raise ToolchainError("the build was broken off")


class Search:
    """Where a program may already be on this machine, best place first."""

    def __init__(
        self,
        environ: Mapping[str, str],
        version: Callable[[Path], tuple[int, ...]] = kubernetes_version,
        helm_version: Callable[[Path], tuple[int, ...]] = lambda helm: _reported_version(helm, "version", "--short"),
    ) -> None:
        self._environ = environ
        self._version = version
        self._helm_version = helm_version
        self._assets = list(self._assets_folders())

    def find(self, name: str) -> Path | None:
        """The program's path, or None where it must be built."""
        for folder in self._assets:
            if _is_program(folder / name):
                return folder / name
        return self._on_path(name) or self._in_cache(name)

    def _assets_folders(self) -> Iterator[Path]:
        if named := self._environ.get("KUBEBUILDER_ASSETS"):
            folder = Path(named)
            if not folder.is_dir():
                raise ToolchainError(f"KUBEBUILDER_ASSETS names {folder}, which is no folder; unset it or correct it")
            if self._new_enough(folder):
                yield folder
        data = Path(self._environ.get("XDG_DATA_HOME") or Path(self._environ.get("HOME", "/")) / ".local/share")
        # A folder is named VERSION-OS-ARCH: 1.34.1-linux-amd64.
        installed = [
            (version_of(folder.name), folder)
            for folder in (data / "kubebuilder-envtest/k8s").glob("*-linux-*")
            if version_of(folder.name)[:2] >= OLDEST_KUBERNETES and _is_program(folder / "kube-apiserver")
        ]
        if installed:
            yield max(installed)[1]

    def _new_enough(self, folder: Path) -> bool:
        server = folder / "kube-apiserver"
        return _is_program(server) and self._version(server)[:2] >= OLDEST_KUBERNETES

    def _on_path(self, name: str) -> Path | None:
        if name not in {"kubectl", "helm"}:
            return None
        found = shutil.which(name, path=self._environ.get("PATH", os.defpath))
        if found is None:
            return None
        program = Path(found)
        if name == "helm":
            version = self._helm_version(program)
            usable = version[:1] == OLDEST_HELM[:1] and version >= OLDEST_HELM
        else:
            usable = self._version(program)[:2] >= OLDEST_KUBECTL
        return program if usable else None

    def _in_cache(self, name: str) -> Path | None:
        program = cached_program(cache_directory(self._environ), name)
        return program if _is_program(program) else None


def cached_program(cache: Path, name: str) -> Path:
    """Where a built program lies: in a folder keyed by everything that decides what the build gives."""
    recipe = RECIPES[name]
    module = modules_directory() / recipe.module
    key = hashlib.sha256()
    own = [source.read_bytes() for source in sorted(module.glob("*.go"))]
    for part in ((module / "go.mod").read_bytes(), (module / "go.sum").read_bytes(), recipe.ldflags.encode(), *own):
        key.update(hashlib.sha256(part).digest())
    return cache / "toolchain" / f"{recipe.module}-{key.hexdigest()[:16]}" / name


class Builder:
    """Builds programs into the cache, one at a time; a second builder waits and then finds them there."""

    def __init__(
        self, cache: Path, environ: Mapping[str, str], progress: Progress, abort: Abort | None = None
    ) -> None:
        self._abort = abort or Abort()
        self._cache = cache
        self._environ = environ
        self._progress = progress

    def build(self, name: str) -> Path:
        """Build one program (or find that another builder just did) and give its path. Raises ToolchainError."""
        target = cached_program(self._cache, name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ToolchainError(
                f"the cache cannot be written: {error}; set MALOTE_CACHE to another folder"
            ) from error
        with self._only_builder(target.parent, name):
            if _is_program(target):
                return target
            recipe = RECIPES[name]
            try:
                go = gotoolchain.find(recipe_go_version(recipe), self._cache, self._environ, self._progress)
            except gotoolchain.GoError as error:
                raise ToolchainError(str(error)) from error
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as scratch:
                made = Path(scratch) / name
                self._compile(name, recipe, go, made)
                made.chmod(0o755)
                made.replace(target)
        return target

    @contextmanager
    def _only_builder(self, folder: Path, name: str) -> Iterator[None]:
        with (folder / f".{name}.lock").open("w") as lock:
            if not _try_lock(lock):
                with self._progress.task(f"{name}: another run is building it; waiting", RECIPES[name].seconds):
                    while not _try_lock(lock):
                        self._abort.check()
                        time.sleep(0.1)
            # Only a builder that was killed leaves its scratch folder; we are the only one now.
            for left in folder.glob(f".{name}-*"):
                shutil.rmtree(left, ignore_errors=True)
            yield

    def _compile(self, name: str, recipe: _Recipe, go: gotoolchain.Go, made: Path) -> None:
        module = modules_directory() / recipe.module
        command = [
            str(go.program), "build", "-v", "-trimpath", "-mod=readonly", "-buildvcs=false",
            "-ldflags", recipe.ldflags, "-o", str(made), recipe.package,
        ]  # fmt: skip
        environ = {**self._environ, **go.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
        log = made.parent.parent / f"{name}.build.log"
        expected = max(5, round(recipe.seconds * 2 / (os.cpu_count() or 2)))
        with self._progress.task(f"building {name}", expected) as task, log.open("w") as kept:
            process = subprocess.Popen(
                [*dying_with_us(), *command],
                cwd=module,
                env=environ,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            self._abort.watch(process)
            try:
                for line in process.stdout or ():
                    kept.write(line)
                    task.detail(line.strip())
                status = process.wait()
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        self._abort.check()
        if status != 0:
            last = "\n  ".join(log.read_text().strip().splitlines()[-8:])
            raise ToolchainError(
                f"building {name} with {go.program} failed (exit {status}); the last lines of {log}:\n  {last}\n"
                "Go needs its module proxy (GOPROXY) and some 4 GB of disk; programs that exist already are used when"
                " KUBEBUILDER_ASSETS names their folder."
            )
        log.unlink()


def recipe_go_version(recipe: _Recipe) -> tuple[int, ...]:
    """The oldest Go that a recipe's go.mod accepts."""
    text = (modules_directory() / recipe.module / "go.mod").read_text()
    found = re.search(r"^go (\S+)$", text, re.MULTILINE)
    if found is None:
        raise ToolchainError(f"{recipe.module}/go.mod names no Go version")
    return version_of(found.group(1))


def dying_with_us() -> list[str]:
    """A command prefix: the kernel kills what follows when this process dies, be it by SIGKILL."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _try_lock(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def register(subparsers: Any) -> None:
    """Add the subcommand ``malote-dev toolchain``."""
    command = subparsers.add_parser("toolchain", help="find or build the Kubernetes programs and print their paths")
    command.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)}")
    command.set_defaults(run=_print_paths)


def _print_paths(arguments: argparse.Namespace) -> int:
    toolchain = Toolchain.find(arguments.names or CONTROL_PLANE)
    width = max(map(len, toolchain.programs))
    for name, path in toolchain.programs.items():
        sys.stdout.write(f"{name:<{width}}  {path}\n")
    return 0
