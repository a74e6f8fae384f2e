"""Sessions with remote servers, within limits: in all, for each (source address, destination), for each provider.

Who needs a session waits in its destination's own line (`lines`), so that a slow destination keeps nobody else
waiting, until there is room for it (`room`). A session that has done its work goes to the next in line of the same
destination, or waits some seconds for more work (`sessions`).

How many and how fast is the destination's `shaping.Shaper`'s to say, and its provider's. Who would wait for long is
sent back to the queue with the time to come again (`Held`): that costs no attempt, and no room in hand.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection, Sequence

import structlog

from malote_relay.config import Shaping
from malote_relay.delivery.answers.classify import classify
from malote_relay.delivery.answers.complaint import Heard, heard, too_fast
from malote_relay.delivery.destinations.destination import Destination, DestinationState, Held
from malote_relay.delivery.destinations.dialling import Dialler, Opener, Report, others
from malote_relay.delivery.destinations.lines import Lines
from malote_relay.delivery.destinations.registry import Destinations
from malote_relay.delivery.destinations.room import Limits, Room
from malote_relay.delivery.destinations.sessions import Sessions
from malote_relay.delivery.destinations.shapes import Shapes
from malote_relay.delivery.dialogue.connection import Session, open_session
from malote_relay.delivery.dialogue.wire import SessionFailed
from malote_relay.delivery.peer import Identity, Peer, Timeouts
from malote_relay.delivery.reply import Answer, Failure
from malote_relay.delivery.route import Route
from malote_relay.delivery.tls.handshake import Handshakes

DOWN_SECONDS = 30.0
"""How long a destination that could not be reached is not tried again: at first, then twice as long each time."""

LONGEST_DOWN_SECONDS = 600.0

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
        self._rng = rng or random.SystemRandom()
        self._slowed = slowed
        self._dialler = Dialler(identity, timeouts or Timeouts(), tls, opener, clock, report)
        self._clock = clock
        self._destinations = Destinations(
            shapes or Shapes(Shaping(), limits.per_destination), identity.appears_as, clock
        )
        self._lines = Lines(clock, self._grant)
        self._sessions = Sessions(self._expire)
        self._room = Room(limits, self._sessions, self._lines, clock)
        self._closed = False

    @property
    def connections(self) -> int:
        """Connections open or being opened."""
        return self._room.open

    @property
    def idle(self) -> int:
        """Connections kept for more work."""
        return self._sessions.idle

    def configure(
        self, identity: Identity, limits: Limits, shapes: Shapes | None = None, tls: Handshakes | None = None
    ) -> None:
        """Other limits, and another identity for new sessions; kept ones of the old identity are closed."""
        if identity != self._identity:
            self.close_idle()
            for destination in self._destinations:
                destination.down, destination.downs = None, 0  # it may have been ours: a password, a proxy
        self._identity, self._room.limits = identity, limits
        self._dialler.identity = identity
        self._destinations.appears_as = identity.appears_as
        if tls is not None:
            self._dialler.tls = tls
        if shapes is not None:
            self._destinations.reshape(shapes)
        self._grant()

    def held(self, route: Route) -> Held | None:
        """Why mail for this destination does not even stand in line now; None when it does."""
        destination = self._destinations.known(route)
        return None if destination is None else destination.held(self._clock(), 1)

    def line(self, route: Route) -> DestinationState | None:
        """The destination as it is now, if it is known."""
        destination = self._destinations.known(route)
        return None if destination is None else destination.state(self._clock())

    def forgive(self, route: Route) -> None:
        """Try this destination again right away, whatever it said."""
        destination = self._destinations.known(route)
        if destination is not None:
            destination.down, destination.downs = None, 0
            destination.insecure.clear()
            for shaper in destination.shapers:
                shaper.forgive()
            self._grant()

    def states(self) -> list[DestinationState]:
        """The destinations that have a connection, a line, or a reason to be left alone."""
        return self._destinations.states()

    def recipients_per_message(self, route: Route) -> int | None:
        """How many recipients one transaction may have; None: as many as there are."""
        shape = self._destinations.shaped(route).shape
        limits = [one for one in (shape.recipients_per_message, shape.recipients_per_connection) if one is not None]
        return min(limits, default=None)

    async def acquire(self, route: Route, *, recipients: int = 1, fresh: bool = False) -> Session:
        """A session with one of the route's hosts, in turn, for a message to so many recipients.

        Give it back with `release`. `fresh` passes kept sessions over: the last one turned out to be gone. Raises
        SessionFailed when the hosts cannot be reached, Held when it is not this message's time.
        """
        shaped = self._destinations.shaped(route)
        while True:
            destination = self._destinations.of(route, shaped)
            now = self._clock()
            if (held := destination.held(now, recipients)) is not None:
                raise held
            ready = not destination.line and not destination.wait(now, recipients)
            if (failure := destination.too_insecure(route, now)) is not None:
                raise SessionFailed(failure)
            while ready and destination.idle:
                fitting = (one for one in reversed(destination.idle) if route.admits(one.peer))
                session = self._sessions.use(next(fitting, destination.idle[-1]))
                fits = route.admits(session.peer) and self._sessions.takes(session, recipients)
                if session.usable and not fresh and fits:
                    return self._paid(destination, session, now, recipients)
                self._discard(session)
            if ready and self._room.has(destination):
                destination.take(now, recipients)
                self._room.take(destination)
            elif (granted := await self._stand_in_line(destination, recipients)) is not None:
                if route.admits(granted.peer):
                    return granted
                # Opened for a domain that asks for less: one that fits takes its place.
                self._room.end(granted)
                self._room.take(destination)
            if (failure := destination.too_insecure(route, self._clock())) is not None:
                # It was found out while we stood in line.
                destination.give_back(self._clock(), recipients)
                self._give_back(destination)
                raise SessionFailed(failure)
            if (opened := await self._open_for(destination, route, recipients)) is not None:
                return opened

    def goes_on(self, session: Session, recipients: int) -> bool:
        """Whether the next message of whoever has this session may begin on it at once; then it is paid for."""
        destination = self._sessions.destination(session)
        now = self._clock()
        if self._worn(session, destination) or not self._sessions.takes(session, recipients):
            return False
        if destination.line or destination.wait(now, recipients):
            return False
        self._paid(destination, session, now, recipients)
        return True

    def heard(self, route: Route, answers: Sequence[Answer]) -> None:
        """These were the last answers to a message, from whichever of the route's hosts."""
        destination = self._destinations.known(route)
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
        for other in list(self._lines.destinations()):
            if other is destination or other.shapers[-1] is destination.shapers[-1]:
                held = other.held(now, 1)
                while held is not None and (place := self._lines.next(other)) is not None:
                    place.granted.set_exception(Held(held.words, held.seconds))

    def _paid(self, destination: Destination, session: Session, now: float, recipients: int) -> Session:
        destination.take(now, recipients)
        self._sessions.carry(session, recipients)
        return session

    def _worn(self, session: Session, destination: Destination) -> bool:
        """Whether the session has had its share, or cannot be used."""
        most = destination.shaped.shape.messages_per_connection or self._room.limits.messages_per_session
        spent = session.transactions >= most
        foreign = destination.key.source_address != self._identity.appears_as
        return self._closed or not session.usable or spent or foreign or not self._sessions.takes(session, 1)

    def release(self, session: Session) -> None:
        """The session's transaction is over, one way or another."""
        destination = self._sessions.destination(session)
        now = self._clock()
        if self._worn(session, destination) or self._room.must_yield(session, destination, now):
            self._discard(session)
            return
        if destination.line and not destination.wait(now, destination.line[0].recipients):
            if not self._sessions.takes(session, destination.line[0].recipients):
                self._discard(session)
                return
            if (place := self._lines.next(destination)) is not None:
                place.granted.set_result(self._paid(destination, session, now, place.recipients))
                if destination.line and self._room.has(destination):
                    self._grant()
                return
        self._sessions.keep(session, self._room.limits.idle_seconds)
        self._grant()

    def peers(self, route: Route) -> Sequence[Peer]:
        """The addresses of the route's hosts, in the order in which they would be tried."""
        return self._dialler.peers(route)

    async def elsewhere(self, session: Session, route: Route, passed: Collection[Peer]) -> Session | None:
        """Exchange a session for one with another host of the route, none of `passed`: this host has trouble.

        The session is given back in any case. None: there is no other. Raises SessionFailed: none can be reached;
        which says nothing about the destination, whose host this is can be.
        """
        destination = self._sessions.destination(session)
        peers = others(self._dialler.peers(route), session.peer, passed)
        if not peers:
            self.release(session)
            return None
        if self._room.has(destination):
            self._room.take(destination)
            self.release(session)
        else:
            # There is no room for one more: it takes the place of this one, and nobody stands in line twice.
            self._room.end(session)
            self._room.take(destination)
        try:
            opened = await self._dialler.connect(peers, route)
        except BaseException:
            self._give_back(destination)
            raise
        # Where the recipients of a connection are limited: this message, and no other.
        self._sessions.add(opened, destination, destination.shaped.shape.recipients_per_connection or 0)
        return opened

    def close_idle(self) -> None:
        """Close every connection that is not in use."""
        for session in self._sessions.all_idle():
            self._expire(session)

    async def close(self) -> None:
        """Close what is idle now and what is released later; wait until the farewells are said."""
        self._closed = True
        self.close_idle()
        await self._sessions.parted()

    def _give_back(self, destination: Destination) -> None:
        self._room.give_back(destination)
        self._grant()

    async def _stand_in_line(self, destination: Destination, recipients: int) -> Session | None:
        place = self._lines.join(destination, recipients)
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
            else:
                self._lines.leave(destination, place)
            raise

    def _grant(self) -> None:
        """Let those in line go on while there is room, those with the fewest connections first."""
        while self._lines:
            now = self._clock()
            ready = []
            for destination in self._lines.destinations():
                if destination.wait(now, destination.line[0].recipients):
                    self._lines.watch(destination)
                elif destination.idle or self._room.has(destination):
                    ready.append(destination)
            if not ready:
                return
            destination = min(ready, key=lambda one: one.open)
            if (place := self._lines.next(destination)) is None:
                continue
            while destination.idle:
                session = self._sessions.use(destination.idle[-1])
                if session.usable and self._sessions.takes(session, place.recipients):
                    place.granted.set_result(self._paid(destination, session, now, place.recipients))
                    break
                self._room.end(session)
            else:
                destination.take(now, place.recipients)
                self._room.take(destination)
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
            elif self._refused(destination, failed.failure, failed.host or route.best_host):
                return None
            raise
        except BaseException:
            destination.give_back(self._clock(), recipients)
            self._give_back(destination)
            raise
        destination.down, destination.downs = None, 0
        destination.insecure.pop(route.securities, None)
        self._sessions.add(session, destination, recipients)
        return session

    def _refused(self, destination: Destination, failure: Failure, host: str) -> bool:
        """A connection could not be had, and its room is free again. True: stand in line for the others."""
        now = self._clock()
        self._room.give_back(destination)
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

    def _expire(self, session: Session) -> None:
        self._discard(self._sessions.use(session))

    def _discard(self, session: Session) -> None:
        self._room.end(session)
        self._grant()
