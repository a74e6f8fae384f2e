"""A destination of mail as the pool sees it: its connections, its line, and why it may have to be left alone.

A destination is a set of MX hosts (and whom we appear to them as): domains with the same hosts share its limits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from malote_relay.delivery.destinations.shapes import Shaped
from malote_relay.delivery.destinations.shaping import Shaper
from malote_relay.delivery.dialogue.connection import Session
from malote_relay.delivery.reply import Failure
from malote_relay.delivery.route import Route
from malote_relay.delivery.tls.security import Security

PATIENCE_SECONDS = 5.0
"""Who would wait longer than that for a pause or a rate waits in the queue, not in line."""

LONGEST_LINE = 500
"""How many may stand in line for one provider; who comes later waits in the queue, so that others have room."""


@dataclass(frozen=True, slots=True)
class Key:
    """What limits and reputation belong to: who we appear as, and who receives."""

    source_address: str
    destination: str
    entry: str = ""
    """The configured destination that the recipients' domain is: it has limits of its own among the same hosts."""


class Held(Exception):
    """Not now, for a reason of the destination's: come again in `seconds`. It is no attempt; `words` say why."""

    def __init__(self, words: str, seconds: float):
        super().__init__(words)
        self.words = words
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class DestinationState:
    """A destination as it is now: `standing` is good, slowed, paused or down; if not good, for `seconds` more.

    `rate` is in messages a minute, None for unlimited.
    """

    name: str
    standing: str
    provider: str
    connections: int
    idle: int
    limit: int
    rate: float | None
    in_line: int
    why: str = ""
    seconds: float = 0.0


@dataclass(eq=False, slots=True)
class Place:
    """A place in line: gets a session, or None for the right to open one. The message's rate is paid then."""

    granted: asyncio.Future[Session | None]
    recipients: int


@dataclass(eq=False, slots=True)
class Destination:
    """`shapers` are its own and, where its provider counts all together, the provider's."""

    key: Key
    shaped: Shaped
    shapers: tuple[Shaper, ...]
    idle: deque[Session] = field(default_factory=deque)
    line: deque[Place] = field(default_factory=deque)
    timer: asyncio.TimerHandle | None = None
    """Looks at the line again when its rate allows the next."""
    down: Failure | None = None
    down_until: float = 0.0
    insecure: dict[tuple[Security, ...], tuple[Failure, float]] = field(default_factory=dict)
    """Why, and until when, it is left alone by those who require a TLS that it has not; others may go there."""
    downs: int = 0
    """How often it could not be reached since it last could."""

    @property
    def open(self) -> int:
        """Its connections, open or being opened."""
        return self.shapers[0].open

    def limit(self, now: float) -> int:
        """How many connections it may have now."""
        return int(min(shaper.connections(now) for shaper in self.shapers))

    def wait(self, now: float, recipients: int) -> float:
        """Seconds until its next message may begin."""
        longest = 0.0
        for shaper in self.shapers:
            if not shaper.plain and (wait := shaper.wait(now, recipients)) > longest:
                longest = wait
        return longest

    def take(self, now: float, recipients: int) -> None:
        """Its next message begins."""
        for shaper in self.shapers:
            shaper.take(now, recipients)

    def give_back(self, now: float, recipients: int) -> None:
        """It did not begin."""
        for shaper in self.shapers:
            shaper.give_back(now, recipients)

    def in_line(self, count: int) -> None:
        """So many more, or less, stand in line."""
        for shaper in self.shapers:
            shaper.in_line += count

    def held(self, now: float, recipients: int) -> Held | None:
        """Why somebody who comes now should not stand in line, if so."""
        if self.down is not None and now < self.down_until:
            return Held(f"its destination cannot be reached: {self.down.words}", self.down_until - now)
        for shaper in self.shapers:
            if not shaper.plain and (paused := shaper.paused_for(now)) > PATIENCE_SECONDS:
                return Held(f"its destination asked to slow down: {shaper.why}", paused)
        if (wait := self.wait(now, recipients)) > PATIENCE_SECONDS:
            return Held("its destination gets no more than its rate allows", wait)
        if self.line:
            if max(shaper.line_wait(now) for shaper in self.shapers) > PATIENCE_SECONDS:
                return Held("its destination gets no more than its rate allows", PATIENCE_SECONDS)
            if len(self.shapers) > 1 and self.shapers[-1].in_line >= LONGEST_LINE:
                return Held("many wait for the same provider's hosts", PATIENCE_SECONDS / 2)
        return None

    def too_insecure(self, route: Route, now: float) -> Failure | None:
        """Why it is known not to have the TLS that `route` requires."""
        known = self.insecure.get(route.securities) if self.insecure else None
        return known[0] if known is not None and now < known[1] else None

    def remember_insecure(self, route: Route, failure: Failure, until: float, now: float) -> None:
        """Leave it alone until then when as much is required as `route` does."""
        self.insecure = {key: known for key, known in self.insecure.items() if now < known[1]}
        self.insecure[route.securities] = failure, until

    def state(self, now: float) -> DestinationState:
        """As people want to see it."""
        standing, why, seconds = "good", "", 0.0
        slowed = next((shaper for shaper in self.shapers if shaper.slowed(now)), None)
        if self.down is not None and now < self.down_until:
            standing, seconds = "down", self.down_until - now
            why = f"it cannot be reached: {self.down.words}"
        elif slowed is not None and slowed.paused_for(now):
            standing, seconds = "paused", slowed.paused_for(now)
            why = f"paused: {slowed.why}"
        elif slowed is not None:
            standing, seconds = "slowed", slowed.recovered_in(now)
            why = f"slowed: {slowed.why}"
        rates = [rate for shaper in self.shapers if (rate := shaper.rate(now)) is not None]
        return DestinationState(
            f"{self.key.destination} (for {self.key.entry})" if self.key.entry else self.key.destination,
            standing,
            self.shaped.provider,
            self.open,
            len(self.idle),
            self.limit(now),
            min(rates, default=None),
            sum(not place.granted.done() for place in self.line),
            why,
            seconds,
        )

    def forgettable(self, now: float) -> bool:
        """Whether nothing is lost with it."""
        if any(now < until for _, until in self.insecure.values()):
            return False
        return not self.open and not self.line and now >= self.down_until and not self.shapers[0].slowed(now)
