"""The hour window: how many recipients a tenant may send to in each clock hour (UTC). Pure arithmetic.

A plan allows N recipients an hour and a tolerance T, a share of N. Each accepted recipient is charged to exactly one
hour, when its message commits: to the current hour while its charge is below N (*released*: delivery may begin at
once), else, up to T, to the next hour (*held*: kept on disk, not begun before that hour starts, and part of that
hour's N). Beyond both it is refused. So with N = 3000 and T = 600, of 3700 sent at once 3000 leave now, 600 leave in
the next hour, which then takes 2400 more and 600 of its own, and 100 are refused.

A unit is *reserved* at RCPT, so that two sessions never share the last one, and either *released* (given back) or
*charged* when the message commits. A reservation belongs to no hour: which one it is charged to is decided in the
order of commits, not of RCPTs. A session that sits on a reservation therefore never delays another's message, and a
reservation taken just before the hour ends is charged to the hour in which its message commits.

What holds at every moment, whatever the order of calls and whatever the clock does:

- nothing is charged to an hour that has N already, and acceptance holds at most T for the next hour;
- no message overtakes one that is held: while anything is held for a later hour nothing is released in this one;
- an hour never reopens: a clock that steps back stays in the latest hour seen. A step forward is taken as it comes;
- a reservation can always be charged. Only a plan made smaller can leave more reservations than there is room for;
  their messages, and what was held before, then go to the first following hours with room (up to N in each, even
  where that is more than T), so that nothing is dropped and all of it leaves as early as the new plan allows.

The window lives in memory; the store has the charges (`Recovered.hours`), from which it is rebuilt after a crash.
Reservations need no rebuilding: the sessions that had them are gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from malote_relay.store.model import Hour, HourCharge, Respread

SECONDS_PER_HOUR: Final = 3600


def hour_of(epoch: float) -> Hour:
    """The clock hour in UTC that an instant (seconds since the epoch) lies in."""
    return int(epoch // SECONDS_PER_HOUR)


def start_of(hour: Hour) -> float:
    """The first instant of an hour, in seconds since the epoch."""
    return float(hour * SECONDS_PER_HOUR)


@dataclass(frozen=True, slots=True)
class Reservation:
    """One recipient's unit, taken at RCPT; to be released or charged once."""

    serial: int


@dataclass(frozen=True, slots=True)
class OverLimit:
    """Why no unit could be reserved, and when (seconds since the epoch) an hour with room begins."""

    returns_at: float
    limit: int
    tolerance: int


@dataclass(frozen=True, slots=True)
class Charge:
    """The hour a recipient is charged to. `not_before` is that hour's start when `held`, else 0: at once.

    `spreads` is how often held mail had been given other hours before.
    """

    hour: Hour
    held: bool
    not_before: float
    spreads: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Usage:
    """The current hour's use: `charged` of `limit`, and what is held for later hours, of `tolerance`."""

    hour: Hour
    charged: int
    held: int
    reserved: int
    limit: int
    tolerance: int


class HourWindow:
    """The window of one tenant. Every `now` is in seconds since the epoch; not for several threads."""

    def __init__(
        self, limit: int, tolerance_percent: int, hours: Mapping[Hour, HourCharge], latest_hour: Hour
    ) -> None:
        self._limit = limit
        self._tolerance = limit * tolerance_percent // 100
        self._latest = latest_hour
        self._charged: dict[Hour, int] = {hour: charge.charged for hour, charge in hours.items()}
        self._held: dict[Hour, int] = {hour: charge.held for hour, charge in hours.items() if charge.held}
        self._spreads = 0
        self._spread: dict[Hour, int] = {}  # the last time, without the gaps known since
        self._open: set[int] = set()
        self._serial = 0

    def reserve(self, now: float) -> Reservation | OverLimit:
        """Take one unit for a recipient, or say when there will be one."""
        hour = self._enter(now)
        if len(self._open) >= self._room(hour):
            return OverLimit(start_of(self._next_hour_with_room(hour)), self._limit, self._tolerance)
        self._serial += 1
        self._open.add(self._serial)
        return Reservation(self._serial)

    def room(self, now: float) -> int:
        """How many units could be reserved now."""
        return max(0, self._room(self._enter(now)) - len(self._open))

    def release(self, reservation: Reservation) -> None:
        """Give a unit back: RSET, disconnect, refused or failed DATA. Harmless when it is no longer open."""
        self._open.discard(reservation.serial)

    def charge(self, reservations: Sequence[Reservation], now: float) -> list[Charge]:
        """Turn the reservations of a message into charges, in their order.

        Call it when the message is about to commit and hand the message to the store without awaiting
        anything in between, so that both see messages in the same order. Raises ValueError for a
        reservation that was released or charged before: its recipient must not be accepted.
        """
        serials = {reservation.serial for reservation in reservations}
        if len(serials) != len(reservations) or not serials <= self._open:
            raise ValueError("a recipient's reservation was already released or charged")
        self._open -= serials
        hour = self._enter(now)
        return [self._charge_one(hour) for _ in reservations]

    def refund(self, charges: Iterable[Charge]) -> None:
        """Take back the charges of a message that could not be committed."""
        for charge in charges:
            moved = charge.held and charge.spreads != self._spreads
            hour = self._gap() if moved else charge.hour
            if self._charged.get(hour, 0) > 0:
                self._charged[hour] -= 1
            if charge.held and self._held.get(hour, 0) > 0:
                self._held[hour] -= 1

    def set_plan(self, limit: int, tolerance_percent: int, now: float) -> Respread | None:
        """Put another plan in force; the answer is for `Store.respread` (see `settle`)."""
        self._limit = limit
        self._tolerance = limit * tolerance_percent // 100
        return self.settle(now)

    def settle(self, now: float) -> Respread | None:
        """Fit what is held to the plan in force; None when every held recipient may stay where it is.

        To be called after building a window too, since the plan may have changed while the relay was down. What is
        held moves up into hours that have room under a larger plan, and down into the following ones under a smaller.
        """
        current = self._enter(now)
        held = {hour: count for hour, count in sorted(self._held.items()) if hour > current and count > 0}
        spread = spread_over_hours(sum(held.values()), current, self._charged.get(current, 0), self._limit)
        if dict(spread) == held:
            return None
        self._spreads += 1
        self._spread = dict(spread)
        for hour in held:
            del self._held[hour]
            del self._charged[hour]
        for hour, count in spread:
            self._charged[hour] = self._charged.get(hour, 0) + count
            if hour > current:
                self._held[hour] = count
        return Respread(current, tuple(spread))

    def usage(self, now: float) -> Usage:
        """The figures for metrics and people."""
        hour = self._enter(now)
        held = sum(count for later, count in self._held.items() if later > hour)
        return Usage(hour, self._charged.get(hour, 0), held, len(self._open), self._limit, self._tolerance)

    def _enter(self, now: float) -> Hour:
        """The hour in force at `now`, and forget those that ended."""
        hour = hour_of(now)
        if hour > self._latest:
            self._latest = hour
            for old in [old for old in self._charged if old < hour]:
                del self._charged[old]
                self._held.pop(old, None)
        return self._latest

    def _charge_one(self, current: Hour) -> Charge:
        if self._free_now(current):
            self._charged[current] = self._charged.get(current, 0) + 1
            return Charge(current, held=False, not_before=0.0)
        # Normally the next hour; a later one only when a plan made smaller has filled it. Starting from
        # the last hour that holds anything keeps the order of arrival.
        hour = self._last_held(current)
        while self._charged.get(hour, 0) >= max(1, self._limit):
            hour += 1
        self._charged[hour] = self._charged.get(hour, 0) + 1
        self._held[hour] = self._held.get(hour, 0) + 1
        return Charge(hour, held=True, not_before=start_of(hour), spreads=self._spreads)

    def _gap(self) -> Hour:
        """Where held mail that was spread has a gap, if one of it never came: the others have moved up (`Store`)."""
        hour = max((hour for hour, count in self._spread.items() if count > 0), default=0)
        self._spread[hour] = self._spread.get(hour, 0) - 1
        return hour

    def _room(self, hour: Hour) -> int:
        """How many units could be charged if `hour` were the current one."""
        return self._free_now(hour) + self._free_to_hold(hour)

    def _free_now(self, hour: Hour) -> int:
        if self._held and any(count > 0 for later, count in self._held.items() if later > hour):
            return 0
        return max(0, self._limit - self._charged.get(hour, 0))

    def _free_to_hold(self, hour: Hour) -> int:
        following = hour + 1
        if self._last_held(hour) > following:
            return 0
        return max(
            0, min(self._tolerance - self._held.get(following, 0), self._limit - self._charged.get(following, 0))
        )

    def _last_held(self, current: Hour) -> Hour:
        """The last hour that anything is held for, at least the following one."""
        if not self._held:  # as at most times
            return current + 1
        return max([current + 1, *(hour for hour, count in self._held.items() if count > 0)])

    def _next_hour_with_room(self, current: Hour) -> Hour:
        last = max([current, *self._charged])
        return next((hour for hour in range(current + 1, last + 1) if self._room(hour) > 0), last + 1)


def spread_over_hours(held: int, current: Hour, charged: int, limit: int) -> list[tuple[Hour, int]]:
    """Which hours take `held` recipients, in order of arrival, when `current` has `charged` of `limit` already.

    >>> spread_over_hours(250, current=7, charged=3000, limit=100)
    [(8, 100), (9, 100), (10, 50)]
    """
    spread = []
    hour, room = current, max(0, limit - charged)
    while held > 0:
        if take := min(held, room):
            spread.append((hour, take))
            held -= take
        hour, room = hour + 1, max(1, limit)
    return spread
