"""A front's side of the hour's units: those in stock, and the recipients that wait for one.

What an abandoned transaction gives back serves who waits here, or goes to the stock; and to the core, when room is
short there (`tight`) or the stock is more than enough. See `leases` for the other side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from malote_relay.fronts.leases import STOCK
from malote_relay.fronts.protocol import Ask, Frame, Over, Return
from malote_relay.quota import OverLimit, Reservation

UNIT: Final = Reservation(0)
"""Units are all alike here: the core knows which is which."""


class Purse:
    """The units of one front. `say` speaks to the core."""

    def __init__(self, say: Callable[[Frame], None], stock: int = STOCK) -> None:
        self.spare = 0
        self.tight = True
        self._say = say
        self._stock = stock
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Reservation | OverLimit]] = {}
        self._asked_for_stock = False

    async def reserve(self) -> Reservation | OverLimit:
        """A unit, at once when there is one in stock."""
        if self.spare:
            self.spare -= 1
            if self.spare <= self._stock // 4 and not self.tight and not self._asked_for_stock:
                self._asked_for_stock = True
                self._say(Ask(0))
            return UNIT
        self._number += 1
        future: asyncio.Future[Reservation | OverLimit] = asyncio.get_running_loop().create_future()
        self._waiting[self._number] = future
        self._say(Ask(self._number))
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.result() is UNIT:
                self.release(1)
            raise

    def release(self, count: int) -> None:
        """Units that recipients no longer need."""
        self.spare += count
        self._spread()

    def granted(self, number: int, count: int) -> None:
        """The core's answer."""
        if not number:
            self._asked_for_stock = False
        self.tight = self.tight and count <= 1
        self.spare += count
        if count and (future := self._waiting.pop(number, None)) is not None and not future.done():
            self.spare -= 1
            future.set_result(UNIT)
        self._spread()

    def over(self, frame: Over) -> None:
        """The core's answer, when there is none."""
        future = self._waiting.pop(frame.number, None)
        if future is not None and not future.done():
            future.set_result(OverLimit(frame.returns_at, frame.limit, frame.tolerance))

    def recall(self) -> None:
        """The core needs what no recipient has."""
        self.tight = True
        count, self.spare = self.spare, 0
        self._say(Return(count, recalled=True))

    def _spread(self) -> None:
        while self.spare and self._waiting:
            future = self._waiting.pop(next(iter(self._waiting)))
            if not future.done():
                self.spare -= 1
                future.set_result(UNIT)
        most = 0 if self.tight else 2 * self._stock
        if self.spare > most:
            excess, self.spare = self.spare - most, most
            self._say(Return(excess))
