"""Sessions with remote servers, within limits: in all, for each (source address, destination), for each provider.

Who needs a session waits in its destination's own line, first come first served, so that a slow destination keeps
nobody else waiting: part of the room is reserved for destinations that have no connection yet, and when all is taken
a destination with several gives one up for one with none. A session that has done its work goes to the next in line
of the same destination, or waits some seconds for more work.

How many and how fast is the destination's `shaping.Shaper`'s to say, and its provider's. Who would wait for long is
sent back to the queue with the time to come again (`Held`): that costs no attempt, and no room in hand.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import structlog

from malote_relay.config import Shaping
from malote_relay.delivery.classify import classify
from malote_relay.delivery.complaint import Heard, heard, too_fast
from malote_relay.delivery.connection import Session, open_session
from malote_relay.delivery.destination import Destination, DestinationState, Held, Key, Place
from malote_relay.delivery.dialling import Dialler, Opener, Report
from malote_relay.delivery.peer import Identity, Peer, Timeouts
from malote_relay.delivery.reply import Answer, Failure
from malote_relay.delivery.route import Route
from malote_relay.delivery.shapes import Shape, Shaped, Shapes
from malote_relay.delivery.shaping import Shaper
from malote_relay.delivery.tls.handshake import Handshakes
from malote_relay.delivery.wire import SessionFailed

DOWN_SECONDS = 30.0
"""How long a destination that could not be reached is not tried again: at first, then twice as long each time."""

LONGEST_DOWN_SECONDS = 600.0

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


def others(peers: Sequence[Peer], peer: Peer, passed: Collection[Peer]) -> list[Peer]:
    """Where to go from `peer`: what is left of `peers` without `passed`, another host before another address.

    Those after it come first: those before it were passed over already, or could not be reached.
    """
    place = peers.index(peer) + 1 if peer in peers else 0
    names = {one.name for one in passed}
    left = [one for one in (*peers[place:], *peers[:place]) if one not in passed]
    return sorted(left, key=lambda one: one.name in names)


_log = structlog.get_logger("malote.delivery")


class Pool:
    """All outgoing sessions of one relay. `clock` gives monotonic seconds.

    `slowed` hears the provider's name ("" for none) whenever a destination asks to slow down.
    """

    def __init__(
        self,
        identity: Identity,
        limits: Limits,
        *,
        timeouts: Timeouts | None = None,
        tls: Handshakes | None = None,
        opener: Opener = open_session,
        clock: Callable[[], float] = time.monotonic,
        shapes: Shapes | None = None,
        rng: random.Random | None = None,
        slowed: Callable[[str], None] = lambda provider: None,
        report: Report | None = None,
    ):
        self._identity = identity
        self._limits = limits
        self._shapes = shapes or Shapes(Shaping(), limits.per_destination)
        self._rng = rng or random.SystemRandom()
        self._slowed = slowed
        self._providers: dict[tuple[str, str], Shaper] = {}
        self._carried: dict[Session, int] = {}
        """Recipients so far, of sessions whose destination has a limit on them."""
        self._dialler = Dialler(identity, timeouts or Timeouts(), tls, opener, clock, report)
        self._clock = clock
        self._open = 0
        self._destinations: dict[Key, Destination] = {}
        self._waiting: dict[Key, Destination] = {}
        self._of: dict[Session, Destination] = {}
        self._idle: OrderedDict[Session, asyncio.TimerHandle] = OrderedDict()
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

    def configure(
        self, identity: Identity, limits: Limits, shapes: Shapes | None = None, tls: Handshakes | None = None
    ) -> None:
        """Other limits, and another identity for new sessions; kept ones of the old identity are closed."""
        if identity != self._identity:
            self.close_idle()
        self._identity, self._limits = identity, limits
        self._dialler.identity = identity
        if tls is not None:
            self._dialler.tls = tls
        if shapes is not None:
            self._shapes = shapes
            now = self._clock()
            for destination in self._destinations.values():
                self._reshape(destination, now)
        self._grant()

    def _reshape(self, destination: Destination, now: float) -> None:
        """Give a destination its new limits; whether others count with it is decided once."""
        adaptive = self._shapes.adaptive
        shaped = self._shapes.of(destination.key.entry, destination.key.destination)
        destination.shaped = shaped
        destination.shapers[0].reshape(shaped.shape, now, adaptive=adaptive)
        for shaper in destination.shapers[1:]:
            shaper.reshape(shaped.together or Shape(), now, adaptive=adaptive)

    def held(self, route: Route) -> Held | None:
        """Why mail for this destination does not even stand in line now; None when it does."""
        destination = self._known(route)
        return None if destination is None else destination.held(self._clock(), 1)

    def line(self, route: Route) -> DestinationState | None:
        """The destination as it is now, if it is known."""
        destination = self._known(route)
        return None if destination is None else destination.state(self._clock())

    def forgive(self, route: Route) -> None:
        """Try this destination again right away, whatever it said."""
        destination = self._known(route)
        if destination is not None:
            destination.down, destination.downs = None, 0
            destination.insecure.clear()
            for shaper in destination.shapers:
                shaper.forgive()
            self._grant()

    def states(self) -> list[DestinationState]:
        """The destinations that have a connection, a line, or a reason to be left alone."""
        now = self._clock()
        return [
            destination.state(now) for destination in self._destinations.values() if not destination.forgettable(now)
        ]

    def recipients_per_message(self, route: Route) -> int | None:
        """How many recipients one transaction may have; None: as many as there are."""
        shape = self._shapes.of(route.domain, route.destination).shape
        limits = [one for one in (shape.recipients_per_message, shape.recipients_per_connection) if one is not None]
        return min(limits, default=None)

    async def acquire(self, route: Route, *, recipients: int = 1, fresh: bool = False) -> Session:
        """A session with one of the route's hosts, in turn, for a message to so many recipients.

        Give it back with `release`. `fresh` passes kept sessions over: the last one turned out to be gone. Raises
        SessionFailed when the hosts cannot be reached, Held when it is not this message's time.
        """
        shaped = self._shapes.of(route.domain, route.destination)
        while True:
            destination = self._destination(self._key(route, shaped), shaped)
            now = self._clock()
            if (held := destination.held(now, recipients)) is not None:
                raise held
            ready = not destination.line and not destination.wait(now, recipients)
            if (failure := destination.too_insecure(route, now)) is not None:
                raise SessionFailed(failure)
            while ready and destination.idle:
                fitting = (one for one in reversed(destination.idle) if route.admits(one.peer))
                session = self._unidle(next(fitting, destination.idle[-1]))
                fits = route.admits(session.peer) and self._takes(session, destination, recipients)
                if session.usable and not fresh and fits:
                    return self._paid(destination, session, now, recipients)
                self._discard(session)
            if ready and self._room(destination):
                destination.take(now, recipients)
                self._take(destination)
            elif (granted := await self._stand_in_line(destination, recipients)) is not None:
                if route.admits(granted.peer):
                    return granted
                # Opened for a domain that asks for less: one that fits takes its place.
                self._discard(granted, grant=False)
                self._take(destination)
            if (failure := destination.too_insecure(route, self._clock())) is not None:
                # It was found out while we stood in line.
                destination.give_back(self._clock(), recipients)
                self._give_back(destination)
                raise SessionFailed(failure)
            if (opened := await self._open_for(destination, route, recipients)) is not None:
                return opened

    def goes_on(self, session: Session, recipients: int) -> bool:
        """Whether the next message of whoever has this session may begin on it at once; then it is paid for."""
        destination = self._of[session]
        now = self._clock()
        if self._worn(session, destination) or not self._takes(session, destination, recipients):
            return False
        if destination.line or destination.wait(now, recipients):
            return False
        self._paid(destination, session, now, recipients)
        return True

    def heard(self, route: Route, answers: Sequence[Answer]) -> None:
        """These were the last answers to a message, from whichever of the route's hosts."""
        destination = self._known(route)
        if destination is None:
            return
        now = self._clock()
        said, words = heard(answers, route.best_host)
        if said is Heard.SERVED:
            for shaper in destination.shapers:
                shaper.succeeded(now)
        elif said is Heard.TOO_FAST:
            self._slow(destination, words)
        elif said is Heard.PUT_OFF and destination.shapers[0].put_off(now, words, self._rng):
            self._dismiss(destination)

    def _slow(self, destination: Destination, words: str) -> None:
        now = self._clock()
        if [shaper for shaper in destination.shapers if shaper.slow(now, words, self._rng)]:
            _log.warning(
                "a destination asked to slow down",
                destination=destination.key.destination,
                provider=destination.shaped.provider,
                reply=words,
                seconds=round(max(shaper.paused_for(now) for shaper in destination.shapers), 1),
            )
            self._slowed(destination.shaped.provider)
            self._dismiss(destination)

    def _dismiss(self, destination: Destination) -> None:
        """Send those in line back to the queue when it would take long: also those who share a provider's limits."""
        now = self._clock()
        for other in list(self._waiting.values()):
            if other is destination or other.shapers[-1] is destination.shapers[-1]:
                held = other.held(now, 1)
                while held is not None and (place := self._next(other)) is not None:
                    place.granted.set_exception(Held(held.words, held.seconds))

    def _paid(self, destination: Destination, session: Session, now: float, recipients: int) -> Session:
        destination.take(now, recipients)
        if session in self._carried:
            self._carried[session] += recipients
        return session

    def _worn(self, session: Session, destination: Destination) -> bool:
        """Whether the session has had its share, or cannot be used."""
        most = destination.shaped.shape.messages_per_connection or self._limits.messages_per_session
        spent = session.transactions >= most
        foreign = destination.key.source_address != self._identity.appears_as
        return self._closed or not session.usable or spent or foreign or not self._takes(session, destination, 1)

    def _takes(self, session: Session, destination: Destination, recipients: int) -> bool:
        """Whether the connection may have so many recipients more."""
        limit = destination.shaped.shape.recipients_per_connection
        return limit is None or self._carried.get(session, 0) + recipients <= limit

    def release(self, session: Session) -> None:
        """The session's transaction is over, one way or another."""
        destination = self._of[session]
        now = self._clock()
        if self._worn(session, destination) or self._must_yield(session, destination, now):
            self._discard(session)
            return
        if destination.line and not destination.wait(now, destination.line[0].recipients):
            if not self._takes(session, destination, destination.line[0].recipients):
                self._discard(session)
                return
            if (place := self._next(destination)) is not None:
                place.granted.set_result(self._paid(destination, session, now, place.recipients))
                if destination.line and self._room(destination):
                    self._grant()
                return
        destination.idle.append(session)
        self._idle[session] = asyncio.get_running_loop().call_later(self._limits.idle_seconds, self._expire, session)
        self._grant()

    async def elsewhere(self, session: Session, route: Route, passed: Collection[Peer]) -> Session | None:
        """Exchange a session for one with another host of the route, none of `passed`: this host has trouble.

        The session is given back in any case. None: there is no other. Raises SessionFailed: none can be reached;
        which says nothing about the destination, whose host this is can be.
        """
        destination = self._of[session]
        peers = others(self._dialler.peers(route), session.peer, passed)
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
            opened = await self._dialler.connect(peers, route)
        except BaseException:
            self._give_back(destination)
            raise
        self._of[opened] = destination
        if limit := destination.shaped.shape.recipients_per_connection:
            self._carried[opened] = limit  # this message, and no other
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

    def _known(self, route: Route) -> Destination | None:
        return self._destinations.get(self._key(route, self._shapes.of(route.domain, route.destination)))

    def _key(self, route: Route, shaped: Shaped) -> Key:
        return Key(self._identity.appears_as, route.destination, shaped.entry)

    def _destination(self, key: Key, shaped: Shaped) -> Destination:
        destination = self._destinations.get(key)
        if destination is None:
            now = self._clock()
            if len(self._destinations) >= self._sweep_at:
                self._destinations = {k: d for k, d in self._destinations.items() if not d.forgettable(now)}
                self._sweep_at = max(_SWEEP_AT, 2 * len(self._destinations))
            shapers = [Shaper(shaped.shape, now, adaptive=self._shapes.adaptive)]
            if shaped.together is not None:
                common = (key.source_address, shaped.provider)
                if common not in self._providers:
                    self._providers[common] = Shaper(shaped.together, now, adaptive=self._shapes.adaptive)
                shapers.append(self._providers[common])
            destination = self._destinations[key] = Destination(key, shaped, tuple(shapers))
        return destination

    def _room(self, destination: Destination) -> bool:
        """Whether the destination may open one more connection; idle ones of others give way."""
        limits = self._limits
        now = self._clock()
        own, *common = destination.shapers
        if own.open >= own.connections(now):
            return False
        if any(one.open >= one.connections(now) and self._idle_of(one) is None for one in common):
            return False
        busy = self._open - len(self._idle)
        share = 1.0 - limits.reserve if destination.open else 1.0
        return busy < max(1, int(limits.connections * share))

    def _idle_of(self, shaper: Shaper) -> Session | None:
        """The idle session that counts with `shaper` and has been so for longest."""
        return next((session for session in self._idle if shaper in self._of[session].shapers), None)

    def _take(self, destination: Destination) -> None:
        if self._open >= self._limits.connections and self._idle:
            self._discard(self._unidle(next(iter(self._idle))), grant=False)
        now = self._clock()
        for shaper in destination.shapers[1:]:
            if shaper.open >= shaper.connections(now) and (idle := self._idle_of(shaper)) is not None:
                self._discard(self._unidle(idle), grant=False)
        for shaper in destination.shapers:
            shaper.open += 1
        self._open += 1

    def _give_back(self, destination: Destination, *, grant: bool = True) -> None:
        for shaper in destination.shapers:
            shaper.open -= 1
        self._open -= 1
        if grant:
            self._grant()

    def _must_yield(self, session: Session, destination: Destination, now: float) -> bool:
        """All room is taken, another destination has nothing, and this one has several or has had its turn.

        All room there is, or all of the provider's. Or there is less room than there was.
        """
        for shaper in destination.shapers:
            if shaper.open > shaper.connections(now):
                return True
        if not self._waiting or (destination.open == 1 and session.transactions % _TURN):
            return False
        if self._open - len(self._idle) >= self._limits.connections:
            return any(not other.open for other in self._waiting.values())
        common = destination.shapers[-1]
        return (
            len(destination.shapers) > 1
            and common.open >= common.connections(now)
            and any(not other.open and other.shapers[-1] is common for other in self._waiting.values())
        )

    async def _stand_in_line(self, destination: Destination, recipients: int) -> Session | None:
        place = Place(asyncio.get_running_loop().create_future(), recipients)
        destination.line.append(place)
        destination.in_line(1)
        self._waiting[destination.key] = destination
        self._watch(destination)
        granted = place.granted
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                # Granted in the very moment of giving up: the next in line gets it.
                destination.give_back(self._clock(), recipients)
                session = granted.result()
                if session is None:
                    self._give_back(destination)
                else:
                    self.release(session)
            elif place in destination.line:
                destination.line.remove(place)
                destination.in_line(-1)
                if not destination.line:
                    self._waiting.pop(destination.key, None)
            raise

    def _watch(self, destination: Destination) -> None:
        """Look at the line again when its rate allows."""
        if destination.timer is None and (wait := destination.wait(self._clock(), destination.line[0].recipients)):
            destination.timer = asyncio.get_running_loop().call_later(wait, self._ripe, destination)

    def _ripe(self, destination: Destination) -> None:
        destination.timer = None
        self._grant()

    def _next(self, destination: Destination) -> Place | None:
        """The first in line who still waits, taken out of it."""
        while destination.line:
            place = destination.line.popleft()
            destination.in_line(-1)
            if not destination.line:
                self._waiting.pop(destination.key, None)
            if not place.granted.done():
                return place
        return None

    def _grant(self) -> None:
        """Let those in line go on while there is room, those with the fewest connections first."""
        while self._waiting:
            now = self._clock()
            ready = []
            for destination in self._waiting.values():
                if destination.wait(now, destination.line[0].recipients):
                    self._watch(destination)
                elif destination.idle or self._room(destination):
                    ready.append(destination)
            if not ready:
                return
            destination = min(ready, key=lambda one: one.open)
            if (place := self._next(destination)) is None:
                continue
            while destination.idle:
                session = self._unidle(destination.idle[-1])
                if session.usable and self._takes(session, destination, place.recipients):
                    place.granted.set_result(self._paid(destination, session, now, place.recipients))
                    break
                self._discard(session, grant=False)
            else:
                destination.take(now, place.recipients)
                self._take(destination)
                place.granted.set_result(None)

    async def _open_for(self, destination: Destination, route: Route, recipients: int) -> Session | None:
        """Open a connection in the room already taken. None: stand in line (again). Raises SessionFailed, Held."""
        try:
            session = await self._dialler.connect(self._dialler.peers(route), route)
        except SessionFailed as failed:
            destination.give_back(self._clock(), recipients)
            if failed.tls is not None:
                # That is between this domain and its hosts: who requires less may go on.
                now = self._clock()
                destination.remember_insecure(route, failed.failure, now + DOWN_SECONDS, now)
                self._give_back(destination)
            elif self._refused(destination, failed.failure, route.best_host):
                return None
            raise
        except BaseException:
            destination.give_back(self._clock(), recipients)
            self._give_back(destination)
            raise
        destination.down, destination.downs = None, 0
        destination.insecure.pop(route.securities, None)
        self._of[session] = destination
        if destination.shaped.shape.recipients_per_connection:
            self._carried[session] = recipients
        return session

    def _refused(self, destination: Destination, failure: Failure, host: str) -> bool:
        """A connection could not be had, and its room is free again. True: stand in line for the others."""
        now = self._clock()
        self._give_back(destination, grant=False)
        if failure.permanent:
            self._grant()
            return False
        if destination.open:
            destination.shapers[0].refused_one_more(now)
            self._grant()
            return True
        destination.down = failure
        destination.downs += 1
        seconds = min(LONGEST_DOWN_SECONDS, DOWN_SECONDS * 2.0 ** (destination.downs - 1))
        destination.down_until = now + seconds
        if too_fast(failure, classify(failure, host)):
            # It is there, and has too much of us: not more of the same when it is up again.
            self._slow(destination, failure.words)
        self._dismiss(destination)
        self._grant()
        return False

    def _unidle(self, session: Session) -> Session:
        self._idle.pop(session).cancel()
        self._of[session].idle.remove(session)
        return session

    def _expire(self, session: Session) -> None:
        self._discard(self._unidle(session))

    def _discard(self, session: Session, *, grant: bool = True) -> None:
        destination = self._of.pop(session)
        self._carried.pop(session, None)
        if session.usable:
            farewell = asyncio.get_running_loop().create_task(session.quit())
            self._quitting.add(farewell)
            farewell.add_done_callback(self._quitting.discard)
        else:
            session.abort()
        self._give_back(destination, grant=grant)
