"""How many messages a second go end to end, and what they cost.

The rate is from the first MAIL of the load until the last message has reached the sink; connections are made, and
logins done, before (unless each message has a connection of its own). Rounds alternate between the contenders after
one that only warms up. Each round must be complete at the sink, and its samples must carry a valid signature.
"""

from __future__ import annotations

import base64
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import dkim
from tests.bench import contenders
from tests.bench.contenders import Entry, Material
from tests.bench.costs import Memory, Peak, cpu_seconds, watched
from tests.bench.loading import load
from tests.harness.processes import Child, RunError


@dataclass(frozen=True)
class World:
    """What every measurement needs: where the mail ends, and what all contenders share."""

    sink: Child
    material: Material


@dataclass(frozen=True)
class Case:
    """One row of the comparison: octets of a message, sessions, and whether each message has its own connection."""

    size: int
    sessions: int
    messages: int
    fresh: bool = False
    rounds: int = 3

    def __str__(self) -> str:
        unit = f"{self.size // 1_000_000} MB" if self.size >= 1_000_000 else f"{self.size // 1000} KB"
        plural = "s" if self.sessions > 1 else ""
        return f"{unit}, {self.sessions} session{plural}, {'fresh' if self.fresh else 'kept'} connections"


@dataclass
class Measured:
    """One contender's rounds: messages a second, CPU seconds for 1,000 messages, the most memory it took."""

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)

    @property
    def rate(self) -> float:
        """The median."""
        return statistics.median(self.rates)

    def times(self, other: Measured) -> float:
        """How many times the other's rate: the median over rounds that ran one after the other."""
        return statistics.median(own / its for own, its in zip(self.rates, other.rates, strict=True))


async def compare(entries: Sequence[Entry], case: Case, world: World) -> dict[str, Measured]:
    """Each contender's figures, by name."""
    found = {entry.name: Measured() for entry in entries}
    for number in range(case.rounds + 1):
        turn = number % len(entries)
        for entry in (*entries[turn:], *entries[:turn]):
            warm_up = Measured()
            await _round(entry, case, world, found[entry.name] if number else warm_up)
            rate = (found[entry.name] if number else warm_up).rates[-1]
            label = f"round {number} of {case.rounds}" if number else "warm-up"
            print(f"  {case}, {label}: {entry.name} {rate:,.1f} messages/s", file=sys.stderr, flush=True)
    return found


async def _round(entry: Entry, case: Case, world: World, into: Measured) -> None:
    peak = Peak(entry.contender.roots)
    used = cpu_seconds(entry.contender.roots)
    await world.sink.ask({"take": case.messages})
    async with watched(peak):
        sent = await send(entry, world, case.size, case.sessions, case.messages, fresh=case.fresh)
        arrived = await world.sink.ask({"wait": 60 + case.messages / 20})
    if arrived["distinct"] != case.messages or arrived["total"] != case.messages or arrived["unnumbered"]:
        raise RunError(
            f"{entry.name}: {sent['accepted']} accepted, but the sink has {arrived['distinct']} of {case.messages}"
            f" ({arrived['total']} deliveries in all)"
        )
    for sample in arrived["samples"]:
        verify(base64.b64decode(sample), case.size, entry, world.material)
    into.rates.append(case.messages / (float(arrived["last"]) - float(sent["start"])))
    into.cpu.append((cpu_seconds(entry.contender.roots) - used) / case.messages * 1000)
    into.memory = into.memory.most(peak.memory)


async def send(
    entry: Entry, world: World, size: int, sessions: int, messages: int, *, fresh: bool = False, rate: float = 0.0
) -> dict[str, Any]:
    """Have the load generator send; what it says."""
    secure = {"tls": world.material.authority_file, "name": contenders.HOST} if entry.tls else {}
    return await load(
        world.material.directory / "load.log",
        {"BENCH_PASSWORD": entry.password},
        port=entry.port,
        sessions=sessions,
        messages=messages,
        size=size,
        to=f"someone@{contenders.RECIPIENT_DOMAIN}",
        user=entry.user,
        fresh=str(fresh).lower(),
        rate=rate,
        **{"from": f"bench@{contenders.SENDER_DOMAIN}"},
        **secure,
    )


def verify(content: bytes, size: int, entry: Entry, material: Material) -> None:
    """The sample is whole and signed, and the signature holds for a verifier that is no contender's."""
    if len(content) < size:
        raise RunError(f"{entry.name}: a message arrived with {len(content)} octets of {size}")
    name = f"{contenders.SELECTOR}._domainkey.{contenders.SENDER_DOMAIN}.".encode()
    try:
        valid = dkim.DKIM(content).verify(
            dnsfunc=lambda asked, timeout=5: material.dkim_record if asked == name else None
        )
    except dkim.DKIMException as error:
        raise RunError(f"{entry.name}: a message's signature cannot be verified: {error}") from error
    if not valid:
        raise RunError(f"{entry.name}: a message's signature is not valid")
