"""The listener for bounces: how many sessions there may be, and how often a client may come and what it may send."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from malote_relay.bounces.intake import Intake
from malote_relay.bounces.session import BounceSession
from malote_relay.config import RelayConfig
from malote_relay.submission import replies
from malote_relay.submission.client import network
from malote_relay.submission.replies import Reply

_BACKLOG: Final = 128
_MINUTE: Final = 60.0
_TOO_MANY_CONNECTIONS: Final = Reply(
    421, "4.7.0", "too many connections came from your address: try again in a minute"
)


class BounceServer:
    """Takes bounces in on one port. `config` and `context` give what is in force."""

    def __init__(
        self, intake: Intake, config: Callable[[], RelayConfig], context: Callable[[], ssl.SSLContext]
    ) -> None:
        self._intake = intake
        self._config = config
        self._context = context
        self._sessions: set[BounceSession] = set()
        self._by_client: Counter[str] = Counter()
        self._came: Counter[str] = Counter()
        self._sent: Counter[str] = Counter()
        self._minute = 0
        self._server: asyncio.Server | None = None
        self._stopping = False
        self.port = 0

    async def start(self, address: str, port: int) -> None:
        """Listen; 0 lets the system choose the port. Raises OSError with words for people."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._session, address or None, port, backlog=_BACKLOG)
        except OSError as error:
            where = f"{address or '*'}:{port}"
            raise OSError(error.errno, f"cannot listen for bounces on {where}: {error.strerror or error}") from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self, grace: float) -> None:
        """Let what is under way finish, for at most `grace` seconds."""
        self._stopping = True
        if self._server is not None:
            self._server.close()
        for session in list(self._sessions):
            session.stop()
        if tasks := self._tasks():
            await asyncio.wait(tasks, timeout=grace)
        for session in list(self._sessions):
            session.leave(replies.STOPPING)
        for task in self._tasks():
            task.cancel()
        if tasks := self._tasks():
            await asyncio.wait(tasks, timeout=1.0)

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [one.task for one in self._sessions if one.task is not None and not one.task.done()]

    def _session(self) -> BounceSession:
        return BounceSession(self._config, self._intake, self._context, self._place, self._may_send)

    @contextmanager
    def _place(self, session: BounceSession) -> Iterator[Reply | None]:
        """A place for a session as long as it lasts; the refusal, when there is none."""
        client, limits = network(session.client), self._config().bounces
        self._sessions.add(session)
        self._by_client[client] += 1
        self._forget()
        self._came[client] += 1
        try:
            if self._stopping:
                yield replies.STOPPING
            elif len(self._sessions) > limits.max_sessions:
                yield replies.TOO_MANY_SESSIONS
            elif self._by_client[client] > limits.max_sessions_per_client:
                yield replies.TOO_MANY_SESSIONS_HERE
            elif self._came[client] > limits.max_connections_per_client_per_minute:
                yield _TOO_MANY_CONNECTIONS
            else:
                yield None
        finally:
            self._sessions.discard(session)
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]

    def _may_send(self, client: str) -> bool:
        """Whether the client may send one more message in this minute."""
        self._forget()
        who = network(client)
        self._sent[who] += 1
        return self._sent[who] <= self._config().bounces.max_messages_per_client_per_minute

    def _forget(self) -> None:
        """Count anew in a new minute."""
        minute = int(asyncio.get_running_loop().time() // _MINUTE)
        if minute != self._minute:
            self._minute = minute
            self._came.clear()
            self._sent.clear()
