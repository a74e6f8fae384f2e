"""The core's side of the hour's units: which of them are with which front.

Each unit that a front has is one reserved in the hour window, so the window's invariants hold whatever the fronts do.
While there is plenty of room a front gets some in stock with the one it asks for, and asks seldom. A stock must never
be the reason why another front's recipient is refused: when the window has no room left, all that have a stock are
asked for it (`Recall`), and whoever asks meanwhile waits for what comes back. Short of room, units are given singly
and come back one by one. Pure, but for the clock that is passed in; what is to be said goes to `say`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from malote_relay.fronts.protocol import Frame, Grant, Over, Recall
from malote_relay.quota import HourWindow, OverLimit, Reservation

STOCK: Final = 32
"""Units given at once while there is plenty."""

PLENTY: Final = 4 * STOCK
"""Room for each front from which on a stock is given."""


class Leases:
    """Keeps the units of all fronts, which are named by numbers."""

    def __init__(
        self,
        window: HourWindow,
        clock: Callable[[], float],
        say: Callable[[int, Frame], None],
        stock: int = STOCK,
        plenty: int = PLENTY,
    ) -> None:
        self._window = window
        self._clock = clock
        self._say = say
        self._stock = stock
        self._plenty = plenty
        self._held: dict[int, list[Reservation]] = {}
        self._stocked: set[int] = set()
        self._recalled: set[int] = set()
        self._asking: deque[tuple[int, int]] = deque()

    def held(self, front: int) -> int:
        """How many units are with a front: in stock, for recipients, or on the way."""
        return len(self._held[front])

    def join(self, front: int) -> None:
        """A new front."""
        self._held[front] = []

    def leave(self, front: int) -> None:
        """A front is gone: what it had goes back."""
        for unit in self._held.pop(front, ()):
            self._window.release(unit)
        self._stocked.discard(front)
        self._asking = deque(ask for ask in self._asking if ask[0] != front)
        self._answered(front)

    def ask(self, front: int, number: int) -> None:
        """A front asks for a unit, or (number 0) for a stock only."""
        if self._recalled:
            if number:
                self._asking.append((front, number))
            else:
                self._say(front, Grant(0, 0))
            return
        room = self._window.room(self._clock())
        if room >= self._plenty * len(self._held):
            self._give(front, number, self._stock)
        elif not number:
            self._say(front, Grant(0, 0))
        elif not room and self._stocked:
            self._asking.append((front, number))
            self._recalled, self._stocked = self._stocked, set()
            for stocked in sorted(self._recalled):
                self._say(stocked, Recall())
        else:
            self._give(front, number, 1)

    def give_back(self, front: int, count: int, *, recalled: bool) -> None:
        """A front gives units back."""
        for unit in self.take(front, count):
            self._window.release(unit)
        if recalled:
            self._answered(front)

    def take(self, front: int, count: int) -> Sequence[Reservation]:
        """Units of a front's, to be charged. Raises ValueError when it has not so many."""
        held = self._held[front]
        if not 0 <= count <= len(held):
            raise ValueError(f"{count} units of {len(held)}")
        units = held[len(held) - count :]
        del held[len(held) - count :]
        return units

    def _give(self, front: int, number: int, count: int) -> None:
        given = 0
        while given < count:
            unit = self._window.reserve(self._clock())
            if isinstance(unit, OverLimit):
                if not given:
                    self._say(front, Over(number, unit.returns_at, unit.limit, unit.tolerance))
                    return
                break
            self._held[front].append(unit)
            given += 1
        if given > 1 or not number:
            self._stocked.add(front)
        self._say(front, Grant(number, given))

    def _answered(self, front: int) -> None:
        """A recall is answered; after the last one those who waited get what there is, in their order."""
        if front not in self._recalled:
            return
        self._recalled.discard(front)
        if not self._recalled:
            asking, self._asking = self._asking, deque()
            for one, number in asking:
                self._give(one, number, 1)
