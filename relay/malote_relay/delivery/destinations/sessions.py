"""The sessions that are open: whose they are, which of them wait for more work, and the farewells to the others."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from malote_relay.delivery.destinations.destination import Destination
from malote_relay.delivery.destinations.shaping import Shaper
from malote_relay.delivery.dialogue.connection import Session


class Sessions:
    """Open sessions. `expired` is called with one that has waited for work long enough."""

    def __init__(self, expired: Callable[[Session], None]) -> None:
        self._expired = expired
        self._of: dict[Session, Destination] = {}
        self._carried: dict[Session, int] = {}
        """Recipients so far, of sessions whose destination has a limit on them."""
        self._idle: OrderedDict[Session, asyncio.TimerHandle] = OrderedDict()
        self._quitting: set[asyncio.Task[None]] = set()

    def add(self, session: Session, destination: Destination, recipients: int) -> None:
        """One is open, for a message to so many recipients at first."""
        self._of[session] = destination
        if destination.shaped.shape.recipients_per_connection:
            self._carried[session] = recipients

    def destination(self, session: Session) -> Destination:
        """Whose it is."""
        return self._of[session]

    def takes(self, session: Session, recipients: int) -> bool:
        """Whether the connection may have so many recipients more."""
        limit = self._of[session].shaped.shape.recipients_per_connection
        return limit is None or self._carried.get(session, 0) + recipients <= limit

    def carry(self, session: Session, recipients: int) -> None:
        """So many recipients more go over it."""
        if session in self._carried:
            self._carried[session] += recipients

    def part(self, session: Session) -> None:
        """It is not wanted any more: say good-bye in the background, where that can be said."""
        del self._of[session]
        self._carried.pop(session, None)
        if session.usable:
            farewell = asyncio.get_running_loop().create_task(session.quit())
            self._quitting.add(farewell)
            farewell.add_done_callback(self._quitting.discard)
        else:
            session.abort()

    async def parted(self) -> None:
        """Wait until all farewells are said."""
        while self._quitting:
            await asyncio.wait(self._quitting)

    # Those without work.

    @property
    def idle(self) -> int:
        """How many wait for work."""
        return len(self._idle)

    def keep(self, session: Session, seconds: float) -> None:
        """Let it wait for work, so long at most."""
        self._of[session].idle.append(session)
        self._idle[session] = asyncio.get_running_loop().call_later(seconds, self._expired, session)

    def use(self, session: Session) -> Session:
        """It waits no more."""
        self._idle.pop(session).cancel()
        self._of[session].idle.remove(session)
        return session

    def all_idle(self) -> list[Session]:
        """Those that wait for work, longest first."""
        return list(self._idle)

    def idlest(self, shaper: Shaper | None = None) -> Session | None:
        """The one that has waited for longest, of those that count with `shaper`."""
        return next((one for one in self._idle if shaper is None or shaper in self._of[one].shapers), None)
