"""``make reliability``: the relay killed, its disk slowed down and filled, its clock moved, its power lost.

Prints a table for people and writes build/bench/reliability.json. Every run prints its seed; the same seed makes the
same choices (the moments are those of the machine, though). Ends with 1 when anything acknowledged was lost, arrived
damaged, or arrived twice without the one reason there is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from tests.bench.processes import ROOT, BenchError
from tests.reliability import powerloss
from tests.reliability.kills import CASES, Outcome
from tests.reliability.stage import Settings

RESULT = ROOT / "build" / "bench" / "reliability.json"
SHARES = {"kills": 0.6, "slow-disk": 0.12, "full-disk": 0.1, "clock-steps": 0.18}
"""Of all kills of a run, by case."""


MARK_KILLS = 100
"""What a whole run must have."""


async def run(options: argparse.Namespace) -> int:
    print(f"seed {options.seed}", flush=True)
    results: list[dict[str, Any]] = []
    complaints: list[str] = []
    with tempfile.TemporaryDirectory(prefix="malote-reliability-", dir=options.directory or "/var/tmp") as name:
        settings = Settings(
            seed=options.seed,
            directory=Path(name),
            extra={"listen": {"processes": options.processes}} if options.processes else {},
            one_of_many=bool(options.processes),
            mount=not options.no_mount,
        )
        outcomes = []
        for case in options.cases:
            if case == "power-loss":
                continue
            outcome = await CASES[case](settings, max(1, round(options.kills * SHARES[case])))
            outcomes.append(outcome)
            complaints += [f"{outcome.name}: {words}" for words in outcome.account.complaints]
        if outcomes:
            _print(outcomes)
            results += _results(outcomes)
        if "power-loss" in options.cases:
            lost = await powerloss.run(settings, options.boundaries)
            complaints += [f"power loss: {words}" for words in lost.complaints]
            print(lost.words())
            results += lost.results()
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\nwritten: {RESULT.relative_to(ROOT)}")
    for words in complaints[:50]:
        print(f"FAILED  {words}", file=sys.stderr)
    return 1 if complaints else 0


def _print(outcomes: Sequence[Outcome]) -> None:
    print(
        f"\n{'':18}{'kills':>7}{'begun':>8}{'refused':>9}{'250':>8}{'recipients':>12}{'copies':>8}"
        f"{'lost':>6}{'damaged':>9}{'twice':>7}{'unexplained':>13}{'gap':>8}{'DSNs':>6}{'seconds':>9}"
    )
    for outcome in outcomes:
        account = outcome.account
        print(
            f"{outcome.name:18}{outcome.kills:>7}{account.begun:>8}{account.refused:>9}{account.acknowledged:>8}"
            f"{account.acknowledged_recipients:>12}{account.copies:>8}{len(account.lost):>6}{len(account.damaged):>9}"
            f"{account.duplicates:>7}{len(account.unexplained):>13}{account.longest_gap:>7.2f}s"
            f"{account.notifications:>6}{outcome.seconds:>9.0f}"
        )
        for note in outcome.notes:
            print(f"{'':18}  {note}")
    print(
        "\ntwice: recipients who got a second copy; each is explained when the relay was killed between the remote"
        "\nhost's final 250 and the commit that records it. gap: the longest time from that 250 to the kill."
    )


def _results(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    kills = sum(outcome.kills for outcome in outcomes)
    results = [_figure("kills", kills, "", MARK_KILLS, kills >= MARK_KILLS)]
    for outcome in outcomes:
        account, name = outcome.account, outcome.name
        results += [
            _figure(f"{name}: acknowledged", account.acknowledged, "messages", None, None),
            _figure(f"{name}: acknowledged and lost", len(account.lost), "recipients", 0, not account.lost),
            _figure(f"{name}: damaged", len(account.damaged), "copies", 0, not account.damaged),
            _figure(f"{name}: arrived twice", account.duplicates, "copies", None, None),
            _figure(
                f"{name}: arrived twice without a reason",
                len(account.unexplained),
                "copies",
                0,
                not account.unexplained,
            ),
            _figure(f"{name}: all complaints", len(account.complaints), "", 0, not account.complaints),
        ]
    return results


def _figure(name: str, value: float, unit: str, mark: float | None, met: bool | None) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "peer": None, "ratio": None, "mark": mark, "met": met}


async def _until_told(work: Coroutine[Any, Any, int]) -> int:
    """Let SIGTERM end what was started, as Ctrl-C does."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    cases = [*CASES, "power-loss"]
    parser.add_argument("--kills", type=int, default=120, help="in all cases together (default %(default)s)")
    parser.add_argument(
        "--boundaries",
        type=int,
        default=1_000_000,
        help="lose power at so many syncs at most (default: at every one)",
    )
    parser.add_argument("--cases", nargs="+", choices=cases, default=cases, help="default: all")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--processes", type=int, default=0, help="listen.processes of the relay (default: not set)")
    parser.add_argument("--directory", type=Path, help="where spools are kept: a disk (default /var/tmp)")
    parser.add_argument("--no-mount", action="store_true", help="fill the disk by the shim, even as root")
    started = time.monotonic()
    try:
        code = asyncio.run(_until_told(run(parser.parse_args())))
    except BenchError as error:
        print(f"reliability: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        return 143
    print(f"took {time.monotonic() - started:.0f} s on {len(os.sched_getaffinity(0))} cores")
    return code


if __name__ == "__main__":
    sys.exit(main())
