"""Sessions with remote servers, within limits: in all, and for each (source address, destination).

Who needs a session waits in its destination's own line, first come first served, so that a slow destination keeps
nobody else waiting: part of the room is reserved for destinations that have no connection yet, and when all is taken
a destination with several gives one up for one with none. A session that has done its work goes to the next in line
of the same destination, or waits some seconds for more work.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

from malote_relay.delivery.connection import Identity, Peer, Session, SessionFailed, Timeouts, open_session
from malote_relay.delivery.reply import Failure
from malote_relay.delivery.route import Route

DOWN_SECONDS = 30.0
"""How long a destination that could not be reached is not tried again; who waits for it is deferred at once."""

CEILING_SECONDS = 60.0
"""How long we are content with the connections we have, when a destination refused one more."""

PLAIN_SECONDS = 3600.0
"""How long TLS is not tried again with an address whose handshake failed."""

MAX_TRIES = 6
"""Addresses tried for one session (RFC 5321 section 5.1 asks for two at least)."""


_TURN = 20
_SWEEP_AT = 1000


@dataclass(frozen=True, slots=True)
class Limits:
    """`reserve` is the share of `connections` kept for destinations that have none yet."""

    connections: int = 100
    per_destination: int = 10
    messages_per_session: int = 200
    idle_seconds: float = 5.0
    reserve: float = 0.2


@dataclass(frozen=True, slots=True)
class Key:
    """What limits and reputation belong to: who we appear as, and who receives."""

    source_address: str
    destination: str


@dataclass(frozen=True, slots=True)
class DestinationState:
    """A destination as it is now. With `why`: it is left alone, or slowed, for `seconds` more."""

    name: str
    connections: int
    idle: int
    limit: int
    in_line: int
    why: str = ""
    seconds: float = 0.0


@dataclass(eq=False, slots=True)
class _Destination:
    key: Key
    open: int = 0
    idle: deque[Session] = field(default_factory=deque)
    line: deque[asyncio.Future[Session | None]] = field(default_factory=deque)
    """Who waits: gets a session, or None for the right to open one."""
    ceiling: int = 0
    ceiling_until: float = 0.0
    down: Failure | None = None
    down_until: float = 0.0

    def limit(self, limits: Limits, now: float) -> int:
        """How many connections it may have now."""
        return min(limits.per_destination, self.ceiling) if now < self.ceiling_until else limits.per_destination

    def state(self, limits: Limits, now: float) -> DestinationState:
        """As people want to see it."""
        why, until = "", now
        if self.down is not None and now < self.down_until:
            why, until = f"it cannot be reached: {self.down.words}", self.down_until
        elif now < self.ceiling_until:
            why, until = f"it refused more than {self.ceiling} connections", self.ceiling_until
        return DestinationState(
            self.key.destination,
            self.open,
            len(self.idle),
            self.limit(limits, now),
            sum(not place.done() for place in self.line),
            why,
            until - now,
        )

    def forgettable(self, now: float) -> bool:
        """Whether nothing is lost with it."""
        return not self.open and not self.line and now >= self.down_until


def others(peers: Sequence[Peer], peer: Peer, passed: Collection[Peer]) -> list[Peer]:
    """Where to go from `peer`: what is left of `peers` without `passed`, another host before another address.

    Those after it come first: those before it were passed over already, or could not be reached.
    """
    place = peers.index(peer) + 1 if peer in peers else 0
    names = {one.name for one in passed}
    left = [one for one in (*peers[place:], *peers[:place]) if one not in passed]
    return sorted(left, key=lambda one: one.name in names)


Opener = Callable[[Peer, Identity, Timeouts, ssl.SSLContext | None], Awaitable[Session]]


class Pool:
    """All outgoing sessions of one relay. `clock` gives monotonic seconds."""

    def __init__(
        self,
        identity: Identity,
        limits: Limits,
        *,
        timeouts: Timeouts | None = None,
        tls: ssl.SSLContext | None = None,
        opener: Opener = open_session,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._identity = identity
        self._limits = limits
        self._timeouts = timeouts or Timeouts()
        self._tls = tls
        self._opener = opener
        self._clock = clock
        self._open = 0
        self._destinations: dict[Key, _Destination] = {}
        self._waiting: dict[Key, _Destination] = {}
        self._of: dict[Session, _Destination] = {}
        self._idle: OrderedDict[Session, asyncio.TimerHandle] = OrderedDict()
        self._plain_until: dict[Peer, float] = {}
        self._quitting: set[asyncio.Task[None]] = set()
        self._sweep_at = _SWEEP_AT
        self._closed = False

    @property
    def connections(self) -> int:
        """Connections open or being opened."""
        return self._open

    @property
    def idle(self) -> int:
        """Connections kept for more work."""
        return len(self._idle)

    def configure(self, identity: Identity, limits: Limits) -> None:
        """Other limits, and another identity for new sessions; kept ones of the old identity are closed."""
        if identity != self._identity:
            self.close_idle()
        self._identity, self._limits = identity, limits
        self._grant()

    def down(self, route: Route) -> tuple[Failure, float] | None:
        """Why this destination is left alone for now, and for how many seconds; None when it is not."""
        destination = self._destinations.get(Key(self._identity.source_address, route.destination))
        if destination is None or destination.down is None or destination.down_until <= self._clock():
            return None
        return destination.down, destination.down_until - self._clock()

    def states(self) -> list[DestinationState]:
        """The destinations that have a connection, a line, or a reason to be left alone."""
        now = self._clock()
        return [
            destination.state(self._limits, now)
            for destination in self._destinations.values()
            if not destination.forgettable(now)
        ]

    async def acquire(self, route: Route, *, fresh: bool = False) -> Session:
        """A session with one of the route's hosts, in turn. Give it back with `release`. Raises SessionFailed.

        `fresh` passes kept sessions over: the last one turned out to be gone.
        """
        while True:
            destination = self._destination(Key(self._identity.source_address, route.destination))
            if destination.down is not None and self._clock() < destination.down_until:
                raise SessionFailed(destination.down)
            while destination.idle and not destination.line:
                session = destination.idle.pop()
                self._idle.pop(session).cancel()
                if session.usable and not fresh:
                    return session
                self._discard(session)
            if not destination.line and self._room(destination):
                self._take(destination)
            elif (granted := await self._stand_in_line(destination)) is not None:
                return granted
            if (opened := await self._open_for(destination, route)) is not None:
                return opened

    def release(self, session: Session) -> None:
        """The session's transaction is over, one way or another."""
        destination = self._of[session]
        limits = self._limits
        spent = session.transactions >= limits.messages_per_session
        foreign = destination.key.source_address != self._identity.source_address
        if self._closed or not session.usable or spent or foreign or self._must_yield(session, destination):
            self._discard(session)
            return
        if (waiter := self._next(destination)) is not None:
            waiter.set_result(session)
            if destination.line and self._room(destination):
                self._grant()
            return
        destination.idle.append(session)
        self._idle[session] = asyncio.get_running_loop().call_later(limits.idle_seconds, self._expire, session)
        self._grant()

    async def elsewhere(self, session: Session, route: Route, passed: Collection[Peer]) -> Session | None:
        """Exchange a session for one with another host of the route, none of `passed`: this host has trouble.

        The session is given back in any case. None: there is no other. Raises SessionFailed: none can be reached;
        which says nothing about the destination, whose host this is can be.
        """
        destination = self._of[session]
        peers = others(self._peers(route), session.peer, passed)
        if not peers:
            self.release(session)
            return None
        if self._room(destination):
            self._take(destination)
            self.release(session)
        else:
            # There is no room for one more: it takes the place of this one, and nobody stands in line twice.
            self._discard(session, grant=False)
            self._take(destination)
        try:
            opened = await self._connect(peers, route)
        except BaseException:
            self._give_back(destination)
            raise
        self._of[opened] = destination
        return opened

    def close_idle(self) -> None:
        """Close every connection that is not in use."""
        for session in list(self._idle):
            self._expire(session)

    async def close(self) -> None:
        """Close what is idle now and what is released later; wait until the farewells are said."""
        self._closed = True
        self.close_idle()
        while self._quitting:
            await asyncio.wait(self._quitting)

    def _destination(self, key: Key) -> _Destination:
        destination = self._destinations.get(key)
        if destination is None:
            if len(self._destinations) >= self._sweep_at:
                now = self._clock()
                self._destinations = {k: d for k, d in self._destinations.items() if not d.forgettable(now)}
                self._sweep_at = max(_SWEEP_AT, 2 * len(self._destinations))
            destination = self._destinations[key] = _Destination(key)
        return destination

    def _room(self, destination: _Destination) -> bool:
        """Whether the destination may open one more connection; idle ones of others give way."""
        limits = self._limits
        if destination.open >= destination.limit(limits, self._clock()):
            return False
        busy = self._open - len(self._idle)
        share = 1.0 - limits.reserve if destination.open else 1.0
        return busy < max(1, int(limits.connections * share))

    def _take(self, destination: _Destination) -> None:
        if self._open >= self._limits.connections and self._idle:
            self._discard(self._unidle(next(iter(self._idle))), grant=False)
        destination.open += 1
        self._open += 1

    def _give_back(self, destination: _Destination, *, grant: bool = True) -> None:
        destination.open -= 1
        self._open -= 1
        if grant:
            self._grant()

    def _must_yield(self, session: Session, destination: _Destination) -> bool:
        """All room is taken, another destination has nothing, and this one has several or has had its turn."""
        if not self._waiting or self._open - len(self._idle) < self._limits.connections:
            return False
        if destination.open == 1 and session.transactions % _TURN:
            return False
        return any(not other.open for other in self._waiting.values())

    async def _stand_in_line(self, destination: _Destination) -> Session | None:
        place: asyncio.Future[Session | None] = asyncio.get_running_loop().create_future()
        destination.line.append(place)
        self._waiting[destination.key] = destination
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                # Granted in the very moment of giving up: the next in line gets it.
                granted = place.result()
                if granted is None:
                    self._give_back(destination)
                else:
                    self.release(granted)
            elif place in destination.line:
                destination.line.remove(place)
                if not destination.line:
                    self._waiting.pop(destination.key, None)
            raise

    def _next(self, destination: _Destination) -> asyncio.Future[Session | None] | None:
        """The first in line who still waits, taken out of it."""
        while destination.line:
            place = destination.line.popleft()
            if not destination.line:
                self._waiting.pop(destination.key, None)
            if not place.done():
                return place
        return None

    def _grant(self) -> None:
        """Let those in line open connections while there is room, those with the fewest first."""
        while self._waiting and self._open - len(self._idle) < self._limits.connections:
            candidates = [destination for destination in self._waiting.values() if self._room(destination)]
            if not candidates:
                return
            destination = min(candidates, key=lambda one: one.open)
            if (place := self._next(destination)) is not None:
                self._take(destination)
                place.set_result(None)

    async def _open_for(self, destination: _Destination, route: Route) -> Session | None:
        """Open a connection in the room already taken. None: stand in line (again). Raises SessionFailed."""
        try:
            session = await self._connect(self._peers(route), route)
        except SessionFailed as failed:
            self._give_back(destination, grant=False)
            if not failed.failure.permanent:
                if destination.open:
                    # It serves us on other connections, and wants no more of them.
                    destination.ceiling = destination.open
                    destination.ceiling_until = self._clock() + CEILING_SECONDS
                    self._grant()
                    return None
                destination.down = failed.failure
                destination.down_until = self._clock() + DOWN_SECONDS
                while (place := self._next(destination)) is not None:
                    place.set_exception(SessionFailed(failed.failure))
            self._grant()
            raise
        except BaseException:
            self._give_back(destination)
            raise
        destination.down = None
        self._of[session] = destination
        return session

    def _peers(self, route: Route) -> Sequence[Peer]:
        """The route's addresses that the source address can reach, best first."""
        source = self._identity.source_address
        family = ipaddress.ip_address(source).version if source else 0
        peers = [Peer(host.name, address, route.port) for host in route.hosts for address in host.addresses]
        return [peer for peer in peers if family in {0, peer.address.version}]

    async def _connect(self, peers: Sequence[Peer], route: Route) -> Session:
        failure: SessionFailed | None = None
        for peer in peers[:MAX_TRIES]:
            try:
                return await self._open_peer(peer)
            except SessionFailed as failed:
                if failure is None or failure.failure.permanent:
                    failure = failed  # A host that may take it later counts more than one that will not.
        source = self._identity.source_address
        raise failure or SessionFailed(
            Failure(f"451 4.4.1 {route.domain} has no address that {source} could reach", "connection")
        )

    async def _open_peer(self, peer: Peer) -> Session:
        tls = self._tls
        if self._plain_until.get(peer, 0.0) > self._clock():
            tls = None
        try:
            return await self._opener(peer, self._identity, self._timeouts, tls)
        except SessionFailed as failed:
            if not failed.tls:
                raise
            if len(self._plain_until) > _SWEEP_AT:
                self._plain_until.clear()
            self._plain_until[peer] = self._clock() + PLAIN_SECONDS
            # RFC 7435: what cannot be encrypted is sent in clear, as it would be to a server without TLS.
            return await self._opener(peer, self._identity, self._timeouts, None)

    def _unidle(self, session: Session) -> Session:
        self._idle.pop(session).cancel()
        self._of[session].idle.remove(session)
        return session

    def _expire(self, session: Session) -> None:
        self._discard(self._unidle(session))

    def _discard(self, session: Session, *, grant: bool = True) -> None:
        destination = self._of.pop(session)
        if session.usable:
            farewell = asyncio.get_running_loop().create_task(session.quit())
            self._quitting.add(farewell)
            farewell.add_done_callback(self._quitting.discard)
        else:
            session.abort()
        self._give_back(destination, grant=grant)
