"""``make reliability``: the relay killed, its disk slowed down and filled, its clock moved, its power lost.

Prints a table for people and writes build/bench/reliability.json. Every run prints its seed; the same seed makes the
same choices (the moments are those of the machine, though). Ends with 1 when anything acknowledged was lost, arrived
damaged, or arrived twice without the one reason there is.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.harness import program, results
from tests.harness.results import Result
from tests.reliability import powerloss
from tests.reliability.kills import CASES, Outcome
from tests.reliability.stage import Settings

SHARES = {"kills": 0.6, "slow-disk": 0.12, "full-disk": 0.1, "clock-steps": 0.18}
"""Of all kills of a run, by case."""

MARK_KILLS = 100
"""What a whole run must have."""


async def run(options: argparse.Namespace) -> int:
    print(f"seed {options.seed}", flush=True)
    found: list[Result] = []
    complaints: list[str] = []
    with tempfile.TemporaryDirectory(prefix="malote-reliability-", dir=options.directory or program.SCRATCH) as name:
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
            found += _results(outcomes)
        if "power-loss" in options.cases:
            lost = await powerloss.run(settings, options.boundaries)
            complaints += [f"power loss: {words}" for words in lost.complaints]
            print(lost.words())
            found += lost.results()
    results.write("reliability", found)
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


def _results(outcomes: Sequence[Outcome]) -> list[Result]:
    found = [results.at_least("kills", sum(outcome.kills for outcome in outcomes), "", MARK_KILLS)]
    for outcome in outcomes:
        account, name = outcome.account, outcome.name
        found += [
            results.alone(f"{name}: acknowledged", account.acknowledged, "messages"),
            results.at_most(f"{name}: acknowledged and lost", len(account.lost), "recipients", 0),
            results.at_most(f"{name}: damaged", len(account.damaged), "copies", 0),
            results.alone(f"{name}: arrived twice", account.duplicates, "copies"),
            results.at_most(f"{name}: arrived twice without a reason", len(account.unexplained), "copies", 0),
            results.at_most(f"{name}: all complaints", len(account.complaints), "", 0),
        ]
    return found


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
    return program.ends("reliability", run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
