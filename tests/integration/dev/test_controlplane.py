"""The control plane: the real programs, alone on free ports, gone with whoever started them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.harness.processes import free_port

from malote_dev.controlplane import ControlPlane, ControlPlaneError
from malote_dev.keeper import marked
from malote_dev.kubeapi import KubeApi, KubeConfig
from malote_dev.offspring import Offspring
from malote_dev.toolchain import Toolchain

pytestmark = pytest.mark.cluster

Kubectl = Any
Eventually = Callable[..., Any]
Alive = Callable[[int], bool]


async def test_a_port_that_another_program_takes_first_is_no_failure(
    toolchain: Toolchain, tmp_path: Path, alive: Alive
) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        taken = squatter.getsockname()[1]
        picked: list[int] = []

        def pick_port() -> int:
            picked.append(free_port() if picked else taken)
            return picked[-1]

        async with ControlPlane(toolchain, tmp_path, pick_port=pick_port, environ={}) as plane:
            assert len(picked) > 1
            assert plane.url.endswith(f":{picked[-1]}")
            async with KubeApi(KubeConfig(plane.kubeconfig)) as api:
                assert (await api.get("/version"))["gitVersion"].startswith("v1.")
            started = plane.pids
            assert len(started) == 3
    assert not any(alive(pid) for pid in started)


async def test_a_program_that_does_not_start_is_reported_with_the_end_of_its_log(
    toolchain: Toolchain, tmp_path: Path
) -> None:
    broken = tmp_path / "etcd"
    broken.write_text("#!/bin/sh\necho the disk is full >&2\nexit 3\n")
    broken.chmod(0o755)
    programs = {"etcd": broken, "kube-apiserver": toolchain["kube-apiserver"]}
    with pytest.raises(ControlPlaneError, match=r"etcd ended with status 3(?s:.*)the disk is full"):
        async with ControlPlane(programs, tmp_path / "plane", environ={}):
            pass


async def test_a_cluster_that_the_user_names_is_used_and_nothing_is_started(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    environ = {"MALOTE_KUBECONFIG": str(control_plane.kubeconfig)}
    async with ControlPlane({}, tmp_path, environ=environ) as plane:
        assert plane.url == control_plane.url
        assert plane.borrowed
        assert plane.pids == ()


def test_the_garbage_collector_and_the_namespace_controller_work(
    kubectl: Kubectl, namespace: str, eventually: Eventually
) -> None:
    kubectl("create", "configmap", "owner", "-n", namespace)
    uid = kubectl.json("get", "configmap", "owner", "-n", namespace)["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    kubectl.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "child", "ownerReferences": [owner]}},
        namespace=namespace,
    )
    kubectl("delete", "configmap", "owner", "-n", namespace)
    eventually(lambda: "child" not in kubectl("get", "secrets", "-n", namespace, "-o", "name"))


def test_nothing_survives_a_parent_that_is_killed(
    kubectl: Kubectl, tmp_path: Path, eventually: Eventually, alive: Alive
) -> None:
    """Neither the control plane, nor a pod's process, nor one that left its session."""
    directory = tmp_path / "world"
    command = [sys.executable, "-m", "malote_dev.main", "cluster", "--directory", str(directory)]
    environ = {name: value for name, value in os.environ.items() if name != "MALOTE_KUBECONFIG"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().startswith("ready after")
        there = kubectl.against(directory / "control-plane/kubeconfig")
        there("wait", "--for=create", "serviceaccount/default", "--timeout=60s")
        container = {"name": "main", "image": "none", "command": ["sh", "-c", "setsid sleep 300 & exec sleep 300"]}
        spec = {"containers": [container]}
        there.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stays"}, "spec": spec})
        there("wait", "--for=condition=Ready", "pod/stays", "--timeout=60s")
        children = eventually(lambda: len(found := descendants(parent.pid)) >= 7 and found)
        parent.send_signal(signal.SIGKILL)
    eventually(lambda: not any(alive(pid) for pid in children))


def test_sigterm_ends_a_cluster_in_order(toolchain: Toolchain, tmp_path: Path, alive: Alive) -> None:
    command = [sys.executable, "-m", "malote_dev.main", "cluster", "--directory", str(tmp_path / "world")]
    environ = {name: value for name, value in os.environ.items() if name != "MALOTE_KUBECONFIG"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().startswith("ready after")
        children = descendants(parent.pid)
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(60) == 0
    assert not any(alive(pid) for pid in children)


def descendants(pid: int) -> list[int]:
    """All living processes below *pid*."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for known in found:
        found.extend(child for child, parent in parents.items() if parent == known)
    return found[1:]


async def test_a_process_that_leaves_its_session_is_found_by_the_keeper(tmp_path: Path, alive: Alive) -> None:
    async with Offspring() as offspring:
        escape = ["sh", "-c", "setsid sh -c 'sleep 300 & echo $! > pid; wait' &"]
        await (await offspring.start(escape, environ={"PATH": os.environ["PATH"]}, directory=tmp_path)).wait()
        deadline = time.monotonic() + 30
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        escaped = int((tmp_path / "pid").read_text())
        assert alive(escaped)
        mark = offspring.mark.encode()
        while escaped not in marked(mark):  # between fork and exec it has no environment of its own
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
    assert not alive(escaped)
    assert marked(mark) == []
