"""One control plane and one process node for a whole test session, and a namespace for each test.

Both live on an event loop in a thread of their own, so that they go on working whatever loop a test runs on.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from malote_dev.controlplane import ControlPlane
from malote_dev.toolchain import Toolchain

if TYPE_CHECKING:
    from malote_dev.processnode import ProcessNode

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread; what was entered on it is left in reverse order when it closes."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        self._thread = threading.Thread(target=self.loop.run_forever, name="cluster", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 600.0) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def enter(self, context: AbstractAsyncContextManager[T]) -> T:
        return self.run(self._stack.enter_async_context(context))

    def close(self) -> None:
        self.run(self._stack.aclose())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Kubectl:
    """Runs kubectl against the session's cluster; a refusal raises CalledProcessError with its words in `stderr`."""

    def __init__(self, program: Path, kubeconfig: Path) -> None:
        self.program = program
        self.kubeconfig = kubeconfig

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 180.0) -> str:
        done = subprocess.run(
            [self.program, f"--kubeconfig={self.kubeconfig}", *arguments],
            input=stdin,
            text=True,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
        return done.stdout

    def against(self, kubeconfig: Path) -> Kubectl:
        """The same program against another cluster."""
        return Kubectl(self.program, kubeconfig)

    def apply(self, *objects: dict[str, Any] | str, namespace: str = "default") -> None:
        """Apply manifests: dictionaries, or YAML text."""
        documents = (item if isinstance(item, str) else json.dumps(item) for item in objects)
        self("apply", "-n", namespace, "-f", "-", stdin="\n---\n".join(documents))

    def serve(self, kinds: Path) -> None:
        """Apply a folder of CustomResourceDefinitions; returns when kubectl finds every kind."""
        self("apply", "-f", str(kinds))
        self("wait", "--for=condition=Established", "--timeout=120s", "-f", str(kinds))
        deadline = time.monotonic() + 60
        while True:
            try:
                # Established comes first, the lists that clients find kinds by a moment later.
                for file in kinds.glob("*.yaml"):
                    self("get", f"{file.stem}.malote.dev")
                return
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def json(self, *arguments: str) -> dict[str, Any]:
        """What a `kubectl get … -o json` gives."""
        answer: dict[str, Any] = json.loads(self(*arguments, "-o", "json"))
        return answer


@pytest.fixture(scope="session")
def toolchain(request: pytest.FixtureRequest) -> Toolchain:
    """The control plane's programs; building them the first time is shown, not captured."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    if capture is None:
        return Toolchain.find()
    with capture.global_and_fixture_disabled():
        return Toolchain.find()


@pytest.fixture(scope="session")
def cluster_loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture(scope="session")
def control_plane(
    toolchain: Toolchain, cluster_loop: LoopThread, tmp_path_factory: pytest.TempPathFactory
) -> ControlPlane:
    """etcd, kube-apiserver and kube-controller-manager, ready."""
    return cluster_loop.enter(ControlPlane(toolchain, tmp_path_factory.mktemp("control-plane")))


@pytest.fixture(scope="session")
def process_node(
    control_plane: ControlPlane, cluster_loop: LoopThread, tmp_path_factory: pytest.TempPathFactory
) -> ProcessNode:
    """The node that runs pods as processes; without it pods stay Pending."""
    from malote_dev.processnode import ProcessNode

    node = ProcessNode(
        kubeconfig=control_plane.kubeconfig,
        directory=tmp_path_factory.mktemp("process-node"),
        path=[os.path.dirname(sys.executable)],
    )
    return cluster_loop.enter(node)


@pytest.fixture(scope="session")
def kubectl(toolchain: Toolchain, control_plane: ControlPlane) -> Kubectl:
    return Kubectl(toolchain["kubectl"], control_plane.kubeconfig)


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """A namespace for this test alone, deleted after it."""
    name = f"test-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    # Its default service account comes a moment later; a pod made before is refused.
    kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=60s")
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """`eventually(look, within=60)`: call *look* until it gives something true; its last answer or error else."""

    def wait(look: Callable[[], T], within: float = 60.0) -> T:
        deadline = time.monotonic() + within
        while True:
            error: Exception | None = None
            try:
                if seen := look():
                    return seen
                last: object = seen
            except (AssertionError, LookupError, OSError, subprocess.CalledProcessError) as caught:
                error, last = caught, getattr(caught, "stderr", None) or caught
            if time.monotonic() > deadline:
                raise AssertionError(f"not so within {within} s; the last look gave: {last}") from error
            time.sleep(0.1)

    return wait
