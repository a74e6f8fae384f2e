"""The node's control groups are removed even while containerd removes some of them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from malote_dev.realnode import cri


def test_a_group_that_vanishes_while_the_tree_is_read_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cri, "_CGROUPS", tmp_path)
    container = tmp_path / "cpu" / "node" / "pods" / "pod" / "container"
    container.mkdir(parents=True)
    read: Callable[[Any], Any] = os.scandir
    vanished = []

    def vanish_before_it_is_read(path: Any) -> Any:
        if str(path) == str(container) and container.exists():
            container.rmdir()
            vanished.append(path)
        return read(path)

    monkeypatch.setattr(os, "scandir", vanish_before_it_is_read)
    cri.kill_cgroup("node")

    assert vanished
    assert not (tmp_path / "cpu" / "node").exists()
