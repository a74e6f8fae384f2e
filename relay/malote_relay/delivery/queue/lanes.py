"""What the scheduler has in hand: a bounded window of the queue, with a bounded lane for each domain.

A lane that is full says nothing about the others: the store is then asked for mail to other domains only, so that
a destination with a hundred thousand waiting does not hide the one message behind them. Nor do several such that are
slow: a lane is also full when it has a third of what the window has room for still, so that some is left for others
(the dynamic threshold of switches whose queues share a buffer).

A domain *overflows* while the store has due mail for it that is not in hand; what arrives for it then goes to the
store's end of the line, so that the order of arrival is kept. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from malote_relay.store.model import Queued


@dataclass(frozen=True, slots=True)
class Bounds:
    """Recipients in hand in all, of one domain, read at once; octets of content kept from acceptance."""

    window: int = 2000
    lane: int = 500
    page: int = 500
    content_bytes: int = 32 * 1024 * 1024


class Lanes:
    """The window's book-keeping."""

    def __init__(self, bounds: Bounds):
        self.bounds = bounds
        self.behind = True
        """Whether the store may have due mail for we do not know which domains; so at the start."""
        self.overflowing: set[str] = set()
        self._in_hand: dict[int, str] = {}
        self._lanes: dict[str, int] = {}
        self._refused: set[str] = set()
        self._missed = False
        self._wanted = False
        """Whether something in the store has room in its lane, and waits only for a page to be read."""

    def __len__(self) -> int:
        return len(self._in_hand)

    def __contains__(self, recipient: int) -> bool:
        return recipient in self._in_hand

    def recipients(self) -> list[int]:
        """The numbers of all in hand."""
        return list(self._in_hand)

    def admits(self, domain: str, count: int) -> bool:
        """Whether something new for `domain` may come in without overtaking what is older."""
        if self.behind or domain in self.overflowing or len(self._in_hand) + count > self.bounds.window:
            return False
        return self.fits(domain)

    def fits(self, domain: str) -> bool:
        """Whether the domain's lane takes one message more."""
        count = self._lanes.get(domain, 0)
        return count < self._limit() or (not count and len(self._in_hand) < self.bounds.window)

    def _limit(self) -> int:
        """With how many recipients a lane is full now."""
        return min(self.bounds.lane, (self.bounds.window - len(self._in_hand)) // 3)

    def refuse(self, domain: str) -> None:
        """Something due for `domain` stays in the store for now."""
        some, room = bool(self._lanes.get(domain)), len(self._in_hand) < self.bounds.window
        if domain in self.overflowing or (some and room and not self.fits(domain)):
            self.overflowing.add(domain)
            self._refused.add(domain)
            self._wanted = self._wanted or not (some or room)  # no end of its own will tell of room
        else:
            self.behind = self._missed = True

    def hold(self, domain: str) -> None:
        """What is due for `domain` stays in the store, and what comes for it goes there, until it is asked for."""
        self.overflowing.add(domain)
        self._refused.add(domain)

    def add(self, domain: str, recipients: Sequence[Queued]) -> None:
        """Take these in hand."""
        for one in recipients:
            self._in_hand[one.id] = domain
        self._lanes[domain] = self._lanes.get(domain, 0) + len(recipients)

    def remove(self, recipients: Sequence[Queued]) -> bool:
        """These are done with. True when there is room now for something that waits in the store."""
        for one in recipients:
            domain = self._in_hand.pop(one.id, None)
            if domain is None:
                continue
            left = self._lanes[domain] - 1
            if left:
                self._lanes[domain] = left
            else:
                del self._lanes[domain]
            if not self._wanted:
                self._wanted = domain in self.overflowing and left <= self._limit() // 2
        return (self._wanted or self.behind) and self.page() > 0

    def page(self) -> int:
        """How many recipients to read now: 0 until a fair part of the window is free."""
        room = self.bounds.window - len(self._in_hand)
        return min(room, self.bounds.page) if room >= self.bounds.window // 8 else 0

    def begin_query(self, held: Collection[str] = ()) -> Collection[str]:
        """A page is being asked for: the domains to leave out of it, those `held` for now among them."""
        self._refused.clear()
        self._missed = self._wanted = False
        most = self._limit() // 2
        full = (domain for domain in self.overflowing if self._lanes.get(domain, 0) > most)
        return frozenset((*full, *held))

    def end_query(self, excluded: Collection[str], *, more: bool) -> None:
        """The page is in hand. Without `more`, nothing due is left but for the excluded and the refused meanwhile."""
        self.behind = more or self._missed
        if not more:
            self.overflowing = set(excluded) | self._refused
