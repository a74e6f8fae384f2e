"""Who may bring bounces, and how many: an IPv6 customer's whole network is one client."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from malote_relay.bounces.server import BounceServer
from malote_relay.config import Bounces
from malote_relay.submission import replies


@dataclass(frozen=True)
class Session:
    client: str


def server(bounces: Bounces) -> Any:
    config: Any = SimpleNamespace(bounces=bounces)
    anything: Any = None
    return BounceServer(anything, lambda: config, anything)


async def test_sessions_are_limited_per_network() -> None:
    bounces = server(Bounces(max_sessions_per_client=1))
    one, two, other = map(Session, ("2001:db8::1", "2001:db8::2", "2001:db8:1::1"))
    with bounces._place(one) as first, bounces._place(two) as second, bounces._place(other) as third:
        assert (first, second, third) == (None, replies.TOO_MANY_SESSIONS_HERE, None)


async def test_messages_are_limited_per_network() -> None:
    bounces = server(Bounces(max_messages_per_client_per_minute=2))
    may = [bounces._may_send(f"2001:db8::{number}") for number in range(3)]
    assert may == [True, True, False]
    assert bounces._may_send("192.0.2.1")


async def test_connections_are_limited_per_network() -> None:
    """A handshake is most of what a stranger can make the relay do, and needs no message."""
    bounces = server(Bounces(max_connections_per_client_per_minute=2))
    codes = []
    for client in ("2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1"):
        with bounces._place(Session(client)) as refusal:
            codes.append(refusal and refusal.code)
    assert codes == [None, None, 421, None]
