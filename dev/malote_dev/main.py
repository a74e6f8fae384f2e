"""``malote-dev``: the local world from the command line. Each subject registers its own subcommands."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from malote_dev import cluster, toolchain
from malote_dev.controlplane import ControlPlaneError
from malote_dev.kubeapi import ApiError, KubeConfigError
from malote_dev.mailworld import commands as mailworld
from malote_dev.toolchain import ToolchainError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; gives the exit status (130 after Ctrl-C, 143 after SIGTERM)."""
    arguments = parser().parse_args(argv)
    # As an exception, so that a build or a start-up that nobody awaits any more is undone like after Ctrl-C; commands
    # with an event loop of their own install their own handlers.
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return int(arguments.run(arguments) or 0)
    except (ToolchainError, ControlPlaneError, KubeConfigError, ApiError) as error:
        sys.stderr.write(f"malote-dev {arguments.command}: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """The command line of all subcommands."""
    top = argparse.ArgumentParser(
        prog="malote-dev", description="Malote's local world: a cluster, a mail world, a demo."
    )
    subparsers = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    toolchain.register(subparsers)
    cluster.register(subparsers)
    mailworld.register(subparsers)
    demo = subparsers.add_parser("demo", help="the whole story: YAML in, signed mail out")
    demo.add_argument("--oneshot", action="store_true", help="end after the last step (so too without a terminal)")
    demo.set_defaults(run=_demo)
    return top


def _demo(arguments: argparse.Namespace) -> int:
    # The story imports half the project; the other commands need none of it.
    from malote_dev.demo import story  # noqa: PLC0415

    return story.main(oneshot=arguments.oneshot)


def _terminate(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
