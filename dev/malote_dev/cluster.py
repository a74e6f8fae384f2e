"""``malote-dev cluster``: a control plane and a process node for as long as the command runs."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from malote_dev.controlplane import ControlPlane
from malote_dev.processnode import ProcessNode
from malote_dev.toolchain import Toolchain


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    command = subparsers.add_parser("cluster", help="a control plane and a node that runs pods as processes")
    command.add_argument(
        "--directory", type=Path, metavar="DIR", help="keep its files and logs there (default: a temporary folder)"
    )
    command.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    toolchain = Toolchain.find()
    if arguments.directory is not None:
        return asyncio.run(run(toolchain, arguments.directory))
    with tempfile.TemporaryDirectory(prefix="malote-cluster-") as directory:
        return asyncio.run(run(toolchain, Path(directory)))


async def run(toolchain: Toolchain, directory: Path) -> int:
    """Run until SIGINT or SIGTERM; a second one does not shorten the end, which takes seconds at most."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    began = time.monotonic()
    async with (
        ControlPlane(toolchain, directory / "control-plane") as plane,
        ProcessNode(kubeconfig=plane.kubeconfig, directory=directory / "node"),
    ):
        sys.stdout.write(
            f"ready after {time.monotonic() - began:.1f} s; it runs until Ctrl-C\n\n"
            f"export KUBECONFIG={plane.kubeconfig}\n"
            f"alias kubectl={toolchain['kubectl']}\n\n"
            f"logs: {directory}/node/logs/NAMESPACE/POD/CONTAINER.log, {directory}/control-plane/logs/\n"
        )
        sys.stdout.flush()
        await stopped.wait()
    return 0
