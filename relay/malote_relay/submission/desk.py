"""The desk: what only one process of a relay may do for acceptance, whoever speaks to the clients.

It has the hour's units, charges them and hands the message to the store in one step, and gives the one positive
answer there is. `StoreDesk` is the desk itself; where processes of their own speak to the clients
(`malote_relay.fronts`) each has a stand-in that asks it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import structlog

from malote_relay.clock import Clock
from malote_relay.metrics import Metrics
from malote_relay.quota import HourWindow, OverLimit, Reservation
from malote_relay.store.model import DiskFull, NewMessage, NewRecipient, Queued, Store, StoreError
from malote_relay.submission import replies
from malote_relay.submission.replies import Reply

_log = structlog.get_logger("malote.submission")

Offer = Callable[[Sequence[Queued], bytes | Path], None]
"""Told of all that was just accepted, held recipients included, with the content at hand, so that delivery needs not
read it again. A file is no longer where it was written: the store has taken it over."""


class Desk(Protocol):
    """What the door asks for. A unit that was reserved is either released or used by `take`, once."""

    async def reserve(self) -> Reservation | OverLimit:
        """A unit of the hour for one recipient, or when there will be one."""
        ...

    def release(self, units: Sequence[Reservation]) -> None:
        """Give units back."""
        ...

    async def take(self, message: NewMessage, units: Sequence[Reservation]) -> Reply:
        """Charge a unit for each recipient and keep the message. A positive reply means on disk, synced.

        Which hour a recipient is charged to is written into the message here.
        """
        ...


class StoreDesk:
    """The desk of the process that has the store."""

    def __init__(self, window: HourWindow, store: Store, clock: Clock, metrics: Metrics, offer: Offer) -> None:
        self._window = window
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._offer = offer

    async def reserve(self) -> Reservation | OverLimit:
        """See `Desk`."""
        return self._window.reserve(self._clock.now())

    def release(self, units: Sequence[Reservation]) -> None:
        """See `Desk`."""
        for unit in units:
            self._window.release(unit)

    async def take(self, message: NewMessage, units: Sequence[Reservation]) -> Reply:
        """See `Desk`."""
        # Between charging and handing to the store nothing may be awaited: both see messages in one order.
        now = self._clock.now()
        charges = self._window.charge(units, now)
        charged = replace(
            message,
            accepted_in=self._window.usage(now).hour,
            recipients=[
                NewRecipient(one.address, charge.hour, charge.not_before, one.dsn)
                for one, charge in zip(message.recipients, charges, strict=True)
            ],
        )
        try:
            queued = await self._store.accept(charged)
        except StoreError as error:
            self._window.refund(charges)
            _log.warning("not stored", account=message.account, error=str(error))
            return replies.NO_ROOM if isinstance(error, DiskFull) else replies.INTERNAL_ERROR
        # Held recipients too, and nothing awaited since `accept`: their hour may begin at any moment.
        self._offer(queued, message.content)
        count = len(charges)
        self._metrics.accepted(message.account, count)
        _log.info(
            "accepted",
            id=message.id,
            account=message.account,
            size=message.size,
            recipients=count,
            held=sum(charge.held for charge in charges),
            unknown=message.sender_unknown,
        )
        return replies.accepted(message.id)
