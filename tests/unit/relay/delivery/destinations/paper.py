"""A pool on a network that exists only on paper: sessions without sockets, hosts that fail as they are told."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import random
from collections.abc import Callable
from typing import Any, cast

from malote_relay.config import Shaping, ShapingLimits
from malote_relay.delivery.destinations.pool import Pool
from malote_relay.delivery.destinations.room import Limits
from malote_relay.delivery.destinations.shapes import Shapes
from malote_relay.delivery.dialogue.connection import Session
from malote_relay.delivery.dialogue.wire import SessionFailed
from malote_relay.delivery.peer import Identity, Peer, Timeouts
from malote_relay.delivery.reply import Failure
from malote_relay.delivery.route import MailHost, Route
from malote_relay.delivery.tls.handshake import Handshake, Handshakes
from malote_relay.delivery.tls.security import Level, Security


class Paper:
    """A session without a socket."""

    def __init__(self, peer: Peer, tls: object) -> None:
        self.peer = peer
        self.tls = "TLSv1.3" if tls else ""
        self.tls_trouble = None
        self.local_address = "192.0.2.99"
        self.transactions = 0
        self.usable = True
        self.closed = False

    async def quit(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


class Network:
    """Opens paper sessions; `trouble` may raise for a peer."""

    def __init__(self) -> None:
        self.opened: list[Paper] = []
        self.tried: list[str] = []
        self.trouble: Callable[[Peer, bool], None] = lambda peer, tls: None
        self.now = 0.0

    async def open(self, peer: Peer, identity: Identity, timeouts: Timeouts, tls: Handshake | None) -> Session:
        self.tried.append(str(peer.address))
        await asyncio.sleep(0)
        self.trouble(peer, tls is not None)
        session = Paper(peer, tls)
        self.opened.append(session)
        return cast(Session, session)

    def pool(self, *, source: str = "", shaping: Shaping | None = None, **limits: Any) -> Pool:
        most = Limits(**limits)
        return Pool(
            Identity("relay.example", source),
            most,
            shapes=Shapes(shaping or Shaping(), most.per_destination),
            rng=random.Random(1),
            tls=Handshakes(),
            opener=self.open,
            clock=lambda: self.now,
        )


def to(name: str, *addresses: str) -> Route:
    return Route(
        name, (MailHost(f"mx.{name}", tuple(ipaddress.ip_address(one) for one in addresses or ["192.0.2.1"])),)
    )


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def refuse(peer: Peer, tls: bool) -> None:
    raise SessionFailed(Failure("451 4.4.1 no connection", "connection"))


def requiring(route: Route) -> Route:
    """The same hosts, for a domain that requires verified TLS."""
    security = Security(Level.VERIFIED, "mta-sts")
    return dataclasses.replace(
        route,
        domain="strict.example",
        hosts=tuple(dataclasses.replace(host, security=security) for host in route.hosts),
    )


def two_hosts() -> Route:
    """mx1 with two addresses, mx2 with one."""
    first, second, third = (ipaddress.ip_address(f"192.0.2.{number}") for number in (1, 2, 3))
    return Route("a.example", (MailHost("mx1.a.example", (first, second)), MailHost("mx2.a.example", (third,))))


def google(domain: str) -> Route:
    return Route(domain, (MailHost(f"{domain}.google.com", (ipaddress.ip_address("192.0.2.1"),)),))


def shaped(**limits: int) -> Shaping:
    return Shaping(default=ShapingLimits(**limits))
