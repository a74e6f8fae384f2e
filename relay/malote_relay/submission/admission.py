"""Who may have a session: so many in all, so many for a client, and so many connections that lead nowhere.

A connection costs a handshake, which is most of what a stranger can make the relay do. Connections are counted to
their client until it signs in, so that only those that never do are held back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from malote_relay.config import Limits
from malote_relay.submission import replies
from malote_relay.submission.crowd import Crowd
from malote_relay.submission.replies import Reply

MAX_CLIENTS: Final = 10_000
"""Clients whose connections of a minute are counted: the oldest are forgotten first."""


class Admission:
    """Counts sessions and connections by client: what `client.network` makes of its address."""

    def __init__(self, crowd: Crowd, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._crowd = crowd
        self._monotonic = monotonic
        self._strangers: dict[str, int] = {}
        self._minute = 0

    def enter(self, client: str, limits: Limits) -> Reply | None:
        """Count a session; `leave` must follow in any case. Gives the refusal when there is no room for it."""
        self._crowd.enter(client)
        minute = int(self._monotonic() // 60)
        if minute != self._minute:
            self._minute = minute
            self._strangers.clear()
        if self._crowd.total > limits.max_sessions:
            return replies.TOO_MANY_SESSIONS
        if self._crowd.of(client) > limits.max_sessions_per_client:
            return replies.TOO_MANY_SESSIONS_HERE
        strangers = self._strangers.pop(client, 0)
        full = strangers >= limits.max_connections_without_sign_in_per_minute
        self._strangers[client] = strangers if full else strangers + 1
        if len(self._strangers) > MAX_CLIENTS:
            del self._strangers[next(iter(self._strangers))]
        return replies.TOO_MANY_CONNECTIONS if full else None

    def signed_in(self, client: str) -> None:
        """A session's client is no stranger: its connection counts no more."""
        if self._strangers.get(client, 0) > 0:
            self._strangers[client] -= 1

    def leave(self, client: str) -> None:
        """A session has ended."""
        self._crowd.leave(client)
