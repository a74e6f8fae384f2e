"""From a route to a session: which of its addresses are tried, in what order, and over what TLS.

Addresses are tried one after another within a bound on the whole (RFC 5321 section 5.1 asks for two at least): of
each host two, before more of any, so that one with many that are all dead does not hide the next.

What TLS a host must have stands with its address; a host whose opportunistic TLS fails is spoken to in clear
(RFC 7435). That is remembered for some minutes, so that it is not found out again for each message, but only where
TLS itself said so, or it failed several times in a row: who can reset one connection should not gain more by it than
this one. What is required is never remembered away.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence

from malote_relay.delivery.dialogue.connection import Session
from malote_relay.delivery.dialogue.wire import SessionFailed
from malote_relay.delivery.peer import Identity, Peer, Timeouts
from malote_relay.delivery.reach import Families
from malote_relay.delivery.reply import Failure
from malote_relay.delivery.route import Route
from malote_relay.delivery.tls.handshake import Handshake, Handshakes
from malote_relay.delivery.tls.results import Trouble

PLAIN_SECONDS = 600.0
"""How long TLS that failed with an address is not tried again with it."""

IN_A_ROW = 3
"""Failures in a row after which that is so though none of them was certain."""

MAX_TRIES = 6
"""Addresses tried for one session."""

_FIRST_OF_EACH = 2

_MAX_REMEMBERED = 1000


@dataclasses.dataclass(slots=True)
class _Fallen:
    """A rung of a ladder that failed: how, how often in a row, and until when it is left out."""

    trouble: Trouble
    times: int = 0
    until: float = 0.0


Opener = Callable[[Peer, Identity, Timeouts, Handshake | None], Awaitable[Session]]

Report = Callable[[Route, Peer, str, Trouble | None], None]
"""Hears how a session for a route came to its TLS: with whom, from which local address, and what was wrong, if so."""


def others(peers: Sequence[Peer], peer: Peer, passed: Collection[Peer]) -> list[Peer]:
    """Where to go from `peer`: what is left of `peers` without `passed`, another host before another address.

    Those after it come first: those before it were passed over already, or could not be reached.
    """
    place = peers.index(peer) + 1 if peer in peers else 0
    names = {one.name for one in passed}
    left = [one for one in (*peers[place:], *peers[:place]) if one not in passed]
    return sorted(left, key=lambda one: one.name in names)


def _by_turns(peers: Sequence[Peer]) -> Sequence[Peer]:
    """Two addresses of each host, and then the others."""
    counted: Counter[str] = Counter()
    first: list[Peer] = []
    rest: list[Peer] = []
    for peer in peers:
        counted[peer.name] += 1
        (first if counted[peer.name] <= _FIRST_OF_EACH else rest).append(peer)
    return first + rest


class Dialler:
    """Opens sessions. `clock` gives monotonic seconds; without `tls` everything goes in clear."""

    def __init__(
        self,
        identity: Identity,
        timeouts: Timeouts,
        tls: Handshakes | None,
        opener: Opener,
        clock: Callable[[], float],
        report: Report | None = None,
    ):
        self.identity = identity
        self.tls = tls
        self._timeouts = timeouts
        self._opener = opener
        self._clock = clock
        self._report = report or (lambda route, peer, local, trouble: None)
        self._families = Families(clock)
        self._fallen: dict[tuple[Peer, int], _Fallen] = {}
        """By peer and the rung's number."""

    def peers(self, route: Route) -> Sequence[Peer]:
        """The route's addresses that the source address can reach, best first."""
        source = self.identity.source_address
        family = ipaddress.ip_address(source).version if source else 0
        peers = [
            Peer(host.name, address, route.port, host.security) for host in route.hosts for address in host.addresses
        ]
        return self._families.ordered([peer for peer in peers if family in {0, peer.address.version}])

    async def connect(self, peers: Sequence[Peer], route: Route) -> Session:
        """A session with the first of these that gives one. Raises SessionFailed."""
        failure: SessionFailed | None = None
        trouble: Trouble | None = None
        identity = self.identity  # a login that is configured meanwhile is for another host
        until = self._clock() + self._timeouts.reach
        tries = _by_turns(peers)[:MAX_TRIES]
        for place, peer in enumerate(tries):
            if failure is not None and self._clock() >= until:
                break
            try:
                return await self._climb(peer, route, identity, self._patience(peer, tries[place + 1 :]))
            except SessionFailed as failed:
                trouble = trouble or failed.tls
                if failure is None or failure.failure.permanent:
                    failure = failed  # A host that may take it later counts more than one that will not.
        if failure is not None and trouble is not None:
            # Who asks for less might have got through.
            raise SessionFailed(failure.failure, tls=trouble, host=failure.host)
        raise failure or SessionFailed(
            Failure(
                f"451 4.4.1 {route.domain} has no address that {self.identity.source_address} could reach",
                "connection",
            )
        )

    def _patience(self, peer: Peer, left: Sequence[Peer]) -> Timeouts:
        """Little while the host has an address of the other family (RFC 8305): one of the two often leads nowhere."""
        if any(one.name == peer.name and one.address.version != peer.address.version for one in left):
            shorter = min(self._timeouts.connect, self._timeouts.fallback)
            return dataclasses.replace(self._timeouts, connect=shorter)
        return self._timeouts

    async def _climb(self, peer: Peer, route: Route, identity: Identity, timeouts: Timeouts) -> Session:
        """Down the peer's ladder of what may be tried."""
        ladder: Sequence[Handshake | None] = self.tls.ladder(peer) if self.tls is not None else (None,)
        trouble: Trouble | None = None
        for rung, handshake in enumerate(ladder):
            last = rung == len(ladder) - 1
            known = self._fallen.get((peer, rung))
            if known is not None and known.until > self._clock():
                trouble = trouble or known.trouble
                continue
            try:
                session = await self._open(peer, identity, timeouts, handshake)
            except SessionFailed as failed:
                if failed.tls is None:
                    raise
                trouble = trouble or failed.tls
                if last:
                    self._report(route, peer, identity.source_address, trouble)
                    raise
                self._remember(peer, rung, failed.tls)
                continue
            self._fallen.pop((peer, rung), None)
            local = session.local_address if identity.proxy is None else ""  # that one only the proxy has met
            self._report(route, peer, local, trouble or session.tls_trouble)
            return session
        raise AssertionError("a ladder has a last rung")  # and that one returns or raises

    async def _open(self, peer: Peer, identity: Identity, timeouts: Timeouts, handshake: Handshake | None) -> Session:
        try:
            session = await self._opener(peer, identity, timeouts, handshake)
        except SessionFailed as failed:
            cause = failed.__cause__
            if isinstance(cause, TimeoutError):
                self._families.failed(peer.address, None)
            elif isinstance(cause, OSError):
                self._families.failed(peer.address, cause)
            raise
        self._families.worked(peer.address)
        return session

    def _remember(self, peer: Peer, rung: int, trouble: Trouble) -> None:
        if len(self._fallen) > _MAX_REMEMBERED:
            self._fallen.clear()
        fallen = self._fallen.setdefault((peer, rung), _Fallen(trouble))
        fallen.trouble = trouble
        fallen.times += 1
        if trouble.lasting or fallen.times >= IN_A_ROW:
            fallen.until = self._clock() + PLAIN_SECONDS
