"""``make bench``: this relay against Postfix + OpenDKIM, same messages, same machine, same run.

Prints a table for people and writes build/bench/relay.json. The rate is end to end: from the first MAIL of the load
until the last message has reached the sink; connections are made, and logins done, before. Rounds alternate between
the contenders after one that only warms up, and the median counts. Each round must be complete at the sink, and its
samples must carry a valid signature, else the bench fails.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import dkim
from tests.bench import contenders
from tests.bench.contenders import Entry, Malote, Material, Postfix
from tests.bench.processes import ROOT, BenchError, Child, Idle, idle, load

RESULT = ROOT / "build" / "bench" / "relay.json"

MARK_RATIO = 2.0
"""The rate to reach, as a multiple of the faster Postfix."""
MARK_PSS = 60.0
MARK_CPU = 2.0


async def run(options: argparse.Namespace) -> int:
    if missing := Postfix.missing():
        print(f"The peer is left out. {missing[0].upper()}{missing[1:]}.", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="malote-bench-", dir=options.directory or "/var/tmp") as name:
        os.chmod(name, 0o755)
        directory = Path(name)
        async with contextlib.AsyncExitStack() as stack:
            sink, material = await _sink(directory, stack)
            malote = Malote(material)
            stack.push_async_callback(malote.stop)
            entries = await malote.start()
            if not missing:
                postfix = Postfix(material)
                stack.push_async_callback(postfix.stop)
                entries += await postfix.start()
            await asyncio.sleep(2)
            at_rest = await idle(malote.pid, options.idle_seconds)
            rates = {}
            for sessions in options.sessions:
                rates[sessions] = await _compare(entries, sessions, options, sink, material)
            after = await idle(malote.pid, min(5.0, options.idle_seconds))
    results = _results(rates, at_rest)
    _print(rates, at_rest, after, options)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\nwritten: {RESULT.relative_to(ROOT)}")
    return 0


async def _sink(directory: Path, stack: contextlib.AsyncExitStack) -> tuple[Child, Material]:
    domains = [f"--domain={domain}" for domain in (contenders.SENDER_DOMAIN, contenders.RECIPIENT_DOMAIN)]
    sink = await Child.start([sys.executable, "-m", "tests.bench.sink", *domains], directory / "sink.log", talk=True)
    stack.push_async_callback(sink.stop)
    ports = await sink.hear()
    return sink, Material(directory, ports["smtp"], ports["dns"])


async def _compare(
    entries: Sequence[Entry], sessions: int, options: argparse.Namespace, sink: Child, material: Material
) -> dict[str, list[float]]:
    """Rates of each contender, round by round."""
    rates: dict[str, list[float]] = {entry.name: [] for entry in entries}
    for round_ in range(options.rounds + 1):
        turn = round_ % len(entries)
        for entry in (*entries[turn:], *entries[:turn]):
            rate = await _round(entry, sessions, options, sink, material)
            if round_ > 0:
                rates[entry.name].append(rate)
            label = "warm-up" if round_ == 0 else f"round {round_} of {options.rounds}"
            print(f"  {sessions} sessions, {label}: {entry.name} {rate:,.0f} messages/s", file=sys.stderr, flush=True)
    return rates


async def _round(entry: Entry, sessions: int, options: argparse.Namespace, sink: Child, material: Material) -> float:
    count: int = options.messages
    await sink.ask({"take": count})
    secure: dict[str, Any] = {"tls": material.authority_file, "name": contenders.HOST} if entry.tls else {}
    if entry.user:
        secure["user"] = entry.user
    sent = await load(
        material.directory / "load.log",
        entry.environment,
        port=entry.port,
        sessions=sessions,
        messages=count,
        size=options.size,
        to=f"someone@{contenders.RECIPIENT_DOMAIN}",
        **{"from": f"bench@{contenders.SENDER_DOMAIN}"},
        **secure,
    )
    arrived = await sink.ask({"wait": 60 + count / 50})
    if arrived["distinct"] != count or arrived["total"] != count or arrived["unnumbered"]:
        raise BenchError(
            f"{entry.name}: {sent['accepted']} accepted, but the sink has {arrived['distinct']} of {count}"
            f" ({arrived['total']} deliveries in all)"
        )
    for sample in arrived["samples"]:
        _verify(base64.b64decode(sample), entry, material)
    elapsed = float(arrived["last"]) - float(sent["start"])
    return count / elapsed


def _verify(content: bytes, entry: Entry, material: Material) -> None:
    """The sample is signed, and the signature holds for a verifier that is neither contender's."""
    name = f"{contenders.SELECTOR}._domainkey.{contenders.SENDER_DOMAIN}.".encode()
    verifier = dkim.DKIM(content)
    try:
        valid = verifier.verify(dnsfunc=lambda asked, timeout=5: material.dkim_record if asked == name else None)
    except dkim.DKIMException as error:
        raise BenchError(f"{entry.name}: a message's signature cannot be verified: {error}") from error
    if not valid:
        raise BenchError(f"{entry.name}: a message's signature is not valid")


def _results(rates: Mapping[int, Mapping[str, Sequence[float]]], at_rest: Idle) -> list[dict[str, Any]]:
    results = []
    for sessions, by_name in rates.items():
        (_, own), *peers = ((name, statistics.median(values)) for name, values in by_name.items())
        for name, value in peers:
            best = value == max(peer for _, peer in peers)
            results.append(
                _result(
                    f"throughput, {sessions} sessions, against {name}",
                    own,
                    "messages/s",
                    value,
                    MARK_RATIO if best else None,
                )
            )
        if not peers:
            results.append(_result(f"throughput, {sessions} sessions, no peer", own, "messages/s", None, None))
    results.append(_limit("idle memory (PSS)", at_rest.pss_megabytes, "MB", MARK_PSS))
    results.append(_limit("idle CPU", at_rest.cpu_millicores, "millicores", MARK_CPU))
    return results


def _result(name: str, value: float, unit: str, peer: float | None, mark: float | None) -> dict[str, Any]:
    ratio = None if peer is None else round(value / peer, 2)
    met = None if ratio is None or mark is None else ratio >= mark
    return {
        "name": name, "value": round(value, 1), "unit": unit, "peer": None if peer is None else round(peer, 1),
        "ratio": ratio, "mark": mark, "met": met,
    }  # fmt: skip


def _limit(name: str, value: float, unit: str, mark: float) -> dict[str, Any]:
    return {
        "name": name, "value": round(value, 2), "unit": unit, "peer": None,
        "ratio": None, "mark": mark, "met": value <= mark,
    }  # fmt: skip


def _print(
    rates: Mapping[int, Mapping[str, Sequence[float]]], at_rest: Idle, after: Idle, options: argparse.Namespace
) -> None:
    print(
        f"\nEnd to end, {options.size} bytes a message, RSA-2048 signature, synced to disk before the answer;"
        f"\nmedian of {options.rounds} alternating rounds of {options.messages} messages;"
        f" source and sink on the same machine ({platform.machine()}, {len(_cores())} cores).\n"
    )
    print(f"{'':28}{'sessions':>9}{'messages/s':>12}{'lowest':>9}{'highest':>9}{'this relay is':>15}")
    for sessions, by_name in rates.items():
        own = statistics.median(next(iter(by_name.values())))
        for number, (name, values) in enumerate(by_name.items()):
            median = statistics.median(values)
            ratio = f"{own / median:.2f} ×" if number else ""
            print(f"{name:28}{sessions:>9}{median:>12,.0f}{min(values):>9,.0f}{max(values):>9,.0f}{ratio:>15}")
    print(
        f"\nThis relay with nothing to do: {at_rest.pss_megabytes:.1f} MB (PSS) and"
        f" {at_rest.cpu_millicores:.2f} millicores over {options.idle_seconds:.0f} s;"
        f" {after.pss_megabytes:.1f} MB after the rounds."
    )


def _cores() -> set[int]:
    return os.sched_getaffinity(0)


async def _until_told(work: Coroutine[Any, Any, int]) -> int:
    """Let SIGTERM end what was started, as Ctrl-C does."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.relay", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=5, help="that count, after one that warms up (default %(default)s)"
    )
    parser.add_argument("--messages", type=int, default=5000, help="a round (default %(default)s)")
    parser.add_argument("--sessions", type=int, nargs="+", default=[20, 50], help="default 20 50")
    parser.add_argument("--size", type=int, default=5120, help="bytes a message (default %(default)s)")
    parser.add_argument("--idle-seconds", type=float, default=20.0, help="how long to watch the idle relay")
    parser.add_argument(
        "--directory", type=Path, help="where queues are kept: a disk, not a tmpfs (default /var/tmp)"
    )
    started = time.monotonic()
    try:
        code = asyncio.run(_until_told(run(parser.parse_args())))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        return 143
    print(f"took {time.monotonic() - started:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())
