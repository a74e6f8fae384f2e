"""Who may have a session: so many in all, so many for a client, and so many connections that lead nowhere.

A connection costs a handshake, which is most of what a stranger can make the relay do. Connections are counted to
their client until it signs in, so that only those that never do are held back. And a place costs a stranger nothing:
the last ones are kept for clients that have signed in before.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from typing import Final

from malote_relay.config import Limits
from malote_relay.submission import replies
from malote_relay.submission.crowd import Crowd
from malote_relay.submission.replies import Reply

MAX_CLIENTS: Final = 10_000
"""Clients whose connections of a minute are counted, and who are known: the oldest are forgotten first."""

_KEPT: Final = 5
"""One in so many places is kept for those that are known."""


class Seen(enum.StrEnum):
    """What a client did that counts with every process that listens on the same ports."""

    CONNECTED = "connected"
    FAILED = "failed"
    SIGNED_IN = "signed-in"


Told = Callable[[Seen, str, str], None]
"""Told what was seen here, of which client, and with which account (user name; "" for none)."""


class Admission:
    """Counts sessions and connections by client: what `client.network` makes of its address.

    `told` hears of each connection counted here; those counted elsewhere come by `note`.
    """

    def __init__(
        self, crowd: Crowd, monotonic: Callable[[], float] = time.monotonic, told: Told | None = None
    ) -> None:
        self._crowd = crowd
        self._told = told
        self._monotonic = monotonic
        self._strangers: dict[str, int] = {}
        self._known: dict[str, None] = {}
        self._minute = 0

    def enter(self, client: str, limits: Limits) -> Reply | None:
        """Count a session; `leave` must follow in any case. Gives the refusal when there is no room for it."""
        self._crowd.enter(client)
        places = limits.max_sessions
        if client not in self._known:
            places -= places // _KEPT
        if self._crowd.total > places:
            return replies.TOO_MANY_SESSIONS
        if self._crowd.of(client) > limits.max_sessions_per_client:
            return replies.TOO_MANY_SESSIONS_HERE
        self._forget()
        if self._strangers.get(client, 0) >= limits.max_connections_without_sign_in_per_minute:
            self._strangers[client] = self._strangers.pop(client)
            return replies.TOO_MANY_CONNECTIONS
        self.note(client)
        if self._told is not None:
            self._told(Seen.CONNECTED, client, "")
        return None

    def note(self, client: str) -> None:
        """Count a connection, be it here or in another process that listens on the same ports."""
        self._forget()
        self._strangers[client] = self._strangers.pop(client, 0) + 1
        if len(self._strangers) > MAX_CLIENTS:
            del self._strangers[next(iter(self._strangers))]

    def _forget(self) -> None:
        minute = int(self._monotonic() // 60)
        if minute != self._minute:
            self._minute = minute
            self._strangers.clear()

    def signed_in(self, client: str) -> None:
        """A session's client is no stranger: its connection counts no more."""
        if self._strangers.get(client, 0) > 0:
            self._strangers[client] -= 1
        self._known.pop(client, None)
        self._known[client] = None
        if len(self._known) > MAX_CLIENTS:
            del self._known[next(iter(self._known))]

    def leave(self, client: str) -> None:
        """A session has ended."""
        self._crowd.leave(client)
