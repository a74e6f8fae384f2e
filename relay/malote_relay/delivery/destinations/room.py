"""The room for connections: how many there may be in all, at a destination, and of a provider; and who gives way.

Part of it is reserved for destinations that have no connection yet. Connections without work give way to others; and
when all is taken a destination with several gives one up for one with none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from malote_relay.delivery.destinations.destination import Destination
from malote_relay.delivery.destinations.lines import Lines
from malote_relay.delivery.destinations.sessions import Sessions
from malote_relay.delivery.dialogue.connection import Session

_TURN = 20
"""Messages after which a destination's only connection has had its turn."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`reserve` is the share of `connections` kept for destinations that have none yet."""

    connections: int = 100
    per_destination: int = 10
    messages_per_session: int = 200
    idle_seconds: float = 5.0
    reserve: float = 0.2


class Room:
    """Counts connections, those being opened among them. `clock` gives monotonic seconds."""

    def __init__(self, limits: Limits, sessions: Sessions, lines: Lines, clock: Callable[[], float]) -> None:
        self.limits = limits
        self.open = 0
        self._sessions = sessions
        self._lines = lines
        self._clock = clock

    def has(self, destination: Destination) -> bool:
        """Whether the destination may open one more connection; idle ones of others give way."""
        now = self._clock()
        own, *common = destination.shapers
        if own.open >= own.connections(now):
            return False
        if any(one.open >= one.connections(now) and self._sessions.idlest(one) is None for one in common):
            return False
        busy = self.open - self._sessions.idle
        share = 1.0 - self.limits.reserve if destination.open else 1.0
        return busy < max(1, int(self.limits.connections * share))

    def take(self, destination: Destination) -> None:
        """The destination opens one more."""
        if self.open >= self.limits.connections and (idle := self._sessions.idlest()) is not None:
            self.end(self._sessions.use(idle))
        now = self._clock()
        for shaper in destination.shapers[1:]:
            if shaper.open >= shaper.connections(now) and (idle := self._sessions.idlest(shaper)) is not None:
                self.end(self._sessions.use(idle))
        for shaper in destination.shapers:
            shaper.open += 1
        self.open += 1

    def give_back(self, destination: Destination) -> None:
        """The destination has one less."""
        for shaper in destination.shapers:
            shaper.open -= 1
        self.open -= 1

    def end(self, session: Session) -> None:
        """Close a session that is in use by nobody."""
        destination = self._sessions.destination(session)
        self._sessions.part(session)
        self.give_back(destination)

    def must_yield(self, session: Session, destination: Destination, now: float) -> bool:
        """All room is taken, another destination has nothing, and this one has several or has had its turn.

        All room there is, or all of the provider's. Or there is less room than there was.
        """
        for shaper in destination.shapers:
            if shaper.open > shaper.connections(now):
                return True
        if not self._lines or (destination.open == 1 and session.transactions % _TURN):
            return False
        if self.open - self._sessions.idle >= self.limits.connections:
            return any(not other.open for other in self._lines.destinations())
        common = destination.shapers[-1]
        return (
            len(destination.shapers) > 1
            and common.open >= common.connections(now)
            and any(not other.open and other.shapers[-1] is common for other in self._lines.destinations())
        )
