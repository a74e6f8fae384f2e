"""What every case needs: a made-up Internet, a relay in it, and a load on the relay."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.harness.processes import RunError
from tests.reliability import hours, ledger
from tests.reliability.internet import Internet
from tests.reliability.ledger import Account
from tests.reliability.load import Load, Mix
from tests.reliability.shim import Faults
from tests.reliability.site import Relay, Site, Victim

_DRAIN_SECONDS = 180.0
_STARTS_KILLED = 0.15
"""The share of kills that come while the relay is still starting."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What all cases share. `extra` is for relay.json; `one_of_many` kills but one of the relay's processes at times;
    `mount` allows a file system of its own for the full disk.
    """

    seed: int
    directory: Path
    sessions: int = 8
    extra: Mapping[str, Any] = field(default_factory=dict)
    one_of_many: bool = False
    mount: bool = True
    verbose: bool = True


class Stage:
    """A made-up Internet, a relay and a load, put up for one case."""

    def __init__(self, name: str, settings: Settings, seed: int) -> None:
        self.directory = settings.directory / name.replace(" ", "-")
        self.directory.mkdir(parents=True)
        self.settings = settings
        self.random = random.Random(seed)
        self.internet = Internet(seed)
        self.seed = seed
        self.kills = 0
        self.site: Site
        self.relay: Relay
        self.load: Load

    def furnish(
        self,
        *,
        spool: Path | None = None,
        faults: bool = False,
        mix: Mix | None = None,
        messages_per_hour: int = 1_000_000_000,
    ) -> Faults | None:
        """Make the relay's directories and the load; the faults' knobs if there are any."""
        self.site = Site(
            self.directory,
            self.internet,
            spool=spool,
            messages_per_hour=messages_per_hour,
            extra=self.settings.extra,
        )
        shim = Faults(self.directory, self.site.spool) if faults else None
        self.relay = Relay(self.site, self.directory, shim.environment if shim else {})
        self.load = Load(self.site.port, self.site.client, self.seed, mix)
        return shim

    async def kill_at_random(self, works: float = 2.4) -> None:
        """Let a relay that was just started live for up to `works` seconds, kill it, and start the next."""
        dice = self.random
        if dice.random() < _STARTS_KILLED:
            await asyncio.sleep(dice.uniform(0.0, 0.8))
        else:
            await self.relay.listens()
            await asyncio.sleep(dice.uniform(0.02, works))
        await self.relay.kill(dice.choice(list(Victim)) if self.settings.one_of_many else Victim.ALL)
        self.kills += 1
        await self.relay.start()

    async def drain(self) -> None:
        """Let everything acknowledged arrive, or give up after a while; then end the relay in order."""
        await self.relay.listens()
        # What was not acknowledged may wait as well: until nothing waits.
        with contextlib.suppress(RunError):
            await until(
                lambda: (
                    not (
                        ledger.missing(self.load.sent, self.internet.arrivals)
                        or hours.count(self.site.spool, "SELECT count(*) FROM recipients")
                    )
                ),
                _DRAIN_SECONDS,
                "there is something left, and the account will tell",
            )
        await self.relay.stop()

    def account(self) -> Account:
        account = ledger.settle(self.load.sent, self.internet.arrivals, self.relay.lives)
        ledger.inspect(self.site.spool, self.load.sent, account)
        return account

    def say(self, words: str) -> None:
        if self.settings.verbose:
            print(f"  {words}", file=sys.stderr, flush=True)


@contextlib.asynccontextmanager
async def stage(name: str, settings: Settings) -> AsyncIterator[Stage]:
    """Put up a stage and take it down, whatever happens on it; its seed follows from the run's and the name."""
    on = Stage(name, settings, random.Random(f"{settings.seed} {name}").getrandbits(32))
    await on.internet.start()
    try:
        yield on
    finally:
        if hasattr(on, "relay"):
            await on.relay.stop()
        await on.internet.stop()


async def until(question: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Ask again and again until the answer is yes. Raises RunError with the words `otherwise` when it stays no."""
    deadline = time.monotonic() + seconds
    while not question():
        if time.monotonic() > deadline:
            raise RunError(otherwise)
        await asyncio.sleep(0.1)
