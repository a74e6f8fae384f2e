"""``make bench``: this relay against Postfix + OpenDKIM and Haraka + DKIM; same messages, same machine, same run.

Prints tables for people and writes build/bench/relay.json. Parts can be chosen (``--only``): *throughput* (end to
end, by size, sessions and kind of connection), *slow-disk* (the same with 5 ms added to every sync), *latency* (time
to 250 at 100 messages a second), *idle*, *backlog* (a million messages wait), *large* (ten sessions with 25 MB each).
``--quick`` takes only the cases that have marks, and fewer rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.bench import backlog, contenders, programs
from tests.bench.contenders import Contender, Entry, Malote, Material
from tests.bench.costs import Peak, idle, memory, watched
from tests.bench.latency import latency
from tests.bench.peers import Haraka, Postfix
from tests.bench.throughput import Case, Measured, World, compare, send
from tests.harness import program, results
from tests.harness.processes import Child, RunError
from tests.harness.results import Result

PARTS = ("throughput", "slow-disk", "latency", "idle", "backlog", "large")
ONE, ALL = "Malote", "Malote, all cores"
MARKS = {ONE: {"Postfix + OpenDKIM": 2.0, "Haraka": 1.5}, ALL: {"Postfix + OpenDKIM": 3.0, "Haraka": 2.0}}
"""How many times the faster way into each peer is to be reached, at 5 KB over 50 kept connections."""

MAIN = Case(5120, 50, 5000, rounds=5)
CASES = (
    Case(5120, 50, 1500, fresh=True),
    Case(5120, 1, 500),
    Case(5120, 1, 300, fresh=True),
    Case(51_200, 50, 2000),
    Case(51_200, 50, 1000, fresh=True),
    Case(51_200, 1, 300),
    Case(51_200, 1, 150, fresh=True),
    Case(5_000_000, 50, 100, rounds=2),
    Case(5_000_000, 50, 100, fresh=True, rounds=2),
    Case(5_000_000, 1, 20, rounds=2),
    Case(5_000_000, 1, 20, fresh=True, rounds=2),
)
SLOW = Case(5120, 50, 3000)
BACKLOG = Case(5120, 50, 4000, rounds=7)


async def run(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="malote-bench-", dir=options.directory or program.SCRATCH) as name:
        os.chmod(name, 0o755)
        async with contextlib.AsyncExitStack() as stack:
            world = await _world(Path(name), stack)
            found: list[Result] = []
            for part in options.only:
                print(f"\n== {part}", flush=True)
                found += await _PARTS[part](world, options)
    results.show_marks(found)
    results.write("relay", found)
    return 0


async def _world(directory: Path, stack: contextlib.AsyncExitStack) -> World:
    domains = [f"--domain={domain}" for domain in (contenders.SENDER_DOMAIN, contenders.RECIPIENT_DOMAIN)]
    sink = await Child.start([sys.executable, "-m", "tests.bench.sink", *domains], directory / "sink.log", talk=True)
    stack.push_async_callback(sink.stop)
    ports = await sink.hear()
    return World(sink, Material(directory, ports["smtp"], ports["dns"]))


@contextlib.asynccontextmanager
async def _started(
    candidates: Sequence[Contender], environment: dict[str, str] | None = None
) -> AsyncIterator[list[Entry]]:
    async with contextlib.AsyncExitStack() as stack:
        entries = []
        for one in candidates:
            stack.push_async_callback(one.stop)
            entries += await one.start(environment)
        await asyncio.sleep(1)
        yield entries


def _everybody(material: Material) -> list[Contender]:
    cores = len(os.sched_getaffinity(0))
    everybody: list[Contender] = [Malote(material, ONE), Malote(material, ALL, processes=cores)]
    for peer in (Postfix, Haraka):
        if words := peer.missing():
            print(f"{peer.__name__} is left out. {words[0].upper()}{words[1:]}.", file=sys.stderr)
        else:
            everybody.append(peer(material))
    return everybody


async def _throughput(world: World, options: argparse.Namespace) -> list[Result]:
    found = []
    async with _started(_everybody(world.material)) as entries:
        for case in (MAIN,) if options.quick else (MAIN, *CASES):
            measured = await compare(entries, case, world)
            _print(case, measured)
            found += _ratios(f"end to end, {case}", measured, entries, MARKS if case == MAIN else {})
    return found


async def _slow_disk(world: World, options: argparse.Namespace) -> list[Result]:
    environment = {"LD_PRELOAD": str(programs.slow_disk()), "SYNC_DELAY_US": "5000"}
    async with _started(_everybody(world.material), environment) as entries:
        measured = await compare(entries, SLOW, world)
    _print(f"{SLOW}, 5 ms added to every sync", measured)
    ahead = dict.fromkeys(("Postfix + OpenDKIM", "Haraka"), 1.0)
    return _ratios(f"5 ms added to every sync, {SLOW}", measured, entries, {ONE: ahead, ALL: ahead})


def _ratios(
    name: str, measured: dict[str, Measured], entries: Sequence[Entry], marks: dict[str, dict[str, float]]
) -> list[Result]:
    """Each of our ways against the faster way into each peer."""
    found = []
    for own in (ONE, ALL):
        for peer in dict.fromkeys(entry.peer for entry in entries if entry.peer):
            best = max(measured[entry.name].rate for entry in entries if entry.peer == peer)
            mark = marks.get(own, {}).get(peer)
            found.append(results.against(f"{name}: {own} / {peer}", measured[own].rate, "messages/s", best, mark))
        found.append(
            results.alone(
                f"{name}: {own}, CPU for 1,000 messages", sorted(measured[own].cpu)[len(measured[own].cpu) // 2], "s"
            )
        )
        found.append(results.alone(f"{name}: {own}, most memory (PSS)", measured[own].memory.pss, "MB"))
        found.append(results.alone(f"{name}: {own}, most memory (RSS)", measured[own].memory.rss, "MB"))
    return found


def _print(case: object, measured: dict[str, Measured]) -> None:
    own = measured[ONE].rate
    heads = f"{'messages/s':>12}{'lowest':>9}{'highest':>9}{'of one':>9}{'CPU s/1000':>12}{'PSS MB':>8}{'RSS MB':>8}"
    print(f"\n{case}\n{'':30}{heads}")
    for name, one in measured.items():
        cpu = sorted(one.cpu)[len(one.cpu) // 2]
        print(
            f"{name:30}{one.rate:>12,.1f}{min(one.rates):>9,.1f}{max(one.rates):>9,.1f}{one.rate / own:>7.2f} ×"
            f"{cpu:>12.2f}{one.memory.pss:>8.0f}{one.memory.rss:>8.0f}"
        )


async def _latency(world: World, options: argparse.Namespace) -> list[Result]:
    runs, seconds = (3, 10.0) if options.quick else (5, 20.0)
    async with _started(_everybody(world.material)) as entries:
        times = await latency(entries, runs, seconds, world)
    print(f"\n100 messages/s, 20 sessions, time to 250, median of {runs} runs{'':4}{'p50 ms':>9}{'p99 ms':>9}")
    for name, of in times.items():
        print(f"{name:62}{of['p50']:>9.1f}{of['p99']:>9.1f}")
    found = []
    for own in (ONE, ALL):
        for peer in dict.fromkeys(entry.peer for entry in entries if entry.peer):
            best = min(times[entry.name]["p99"] for entry in entries if entry.peer == peer)
            mark = 1.0 if peer.startswith("Postfix") else None
            name = f"p99 to 250 at 100 messages/s: {own} / {peer}"
            found.append(results.against(name, times[own]["p99"], "ms", best, mark, less=True))
    return found


async def _idle(world: World, options: argparse.Namespace) -> list[Result]:
    relay = Malote(world.material, "Malote at rest")
    async with _started([relay]):
        await asyncio.sleep(3)
        at_rest = await idle(relay.roots[0], 10.0 if options.quick else 30.0)
    pss, rss = at_rest.memory.pss, at_rest.memory.rss
    print(f"with nothing to do: {pss:.1f} MB (PSS), {rss:.1f} MB (RSS), {at_rest.cpu_millicores:.2f} millicores")
    return [
        results.at_most("with nothing to do: memory (PSS)", pss, "MB", 56.0),
        results.alone("with nothing to do: memory (RSS)", rss, "MB"),
        results.at_most("with nothing to do: CPU", at_rest.cpu_millicores, "millicores", 2.0),
    ]


async def _backlog(world: World, options: argparse.Namespace) -> list[Result]:
    empty, full = Malote(world.material, "empty queue"), Malote(world.material, "a million wait")
    begun = time.monotonic()
    await asyncio.to_thread(backlog.fill, full.spool, options.backlog)
    print(f"{options.backlog:,} messages put into a spool in {time.monotonic() - begun:.0f} s", flush=True)
    async with _started([empty, full]) as entries:
        measured = await compare(entries, BACKLOG, world)
        one, other = measured["empty queue"], measured["a million wait"]
        megabytes = memory(full.roots).pss
    times = other.times(one)
    print(
        f"\nempty {one.rate:,.0f} messages/s, with {options.backlog:,} waiting {other.rate:,.0f},"
        f" round by round {times:.2f} ×; {megabytes:.0f} MB"
    )
    return [
        results.at_least("throughput with a million waiting / empty", times, "×", 0.9),
        results.at_most("memory (PSS) with a million waiting", max(megabytes, other.memory.pss), "MB", 200.0),
    ]


async def _large(world: World, options: argparse.Namespace) -> list[Result]:
    relay = Malote(world.material, "Malote large")
    async with _started([relay]) as (entry,):
        at_rest = memory(relay.roots).pss
        peak = Peak(relay.roots, every=0.02)
        await world.sink.ask({"take": 10})
        async with watched(peak):
            await send(entry, world, 25_000_000, 10, 10)
            arrived = await world.sink.ask({"wait": 120})
    if arrived["distinct"] != 10:
        raise RunError(f"of ten messages of 25 MB {arrived['distinct']} arrived")
    above = peak.memory.pss - at_rest
    print(f"ten sessions with 25 MB each at once: {above:.1f} MB above the {at_rest:.1f} MB at rest")
    return [results.at_most("ten sessions with 25 MB each: memory above idle", above, "MB", 80.0)]


_PARTS = {
    "throughput": _throughput,
    "slow-disk": _slow_disk,
    "latency": _latency,
    "idle": _idle,
    "backlog": _backlog,
    "large": _large,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.relay", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run (default all)")
    parser.add_argument("--quick", action="store_true", help="only what has marks, and fewer rounds")
    parser.add_argument("--backlog", type=int, default=1_000_000, help="messages that wait (default %(default)s)")
    parser.add_argument(
        "--directory", type=Path, help="where queues are kept: a disk, not a tmpfs (default /var/tmp)"
    )
    return program.ends("bench", run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
