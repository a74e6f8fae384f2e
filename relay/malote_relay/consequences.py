"""Who must hear of bounces and complaints, wherever they come from: the suppression list and the accounts' pauses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from malote_relay.pausing.pauses import Pauses
from malote_relay.store.model import Alongside, Outcome
from malote_relay.suppression.suppressions import Suppressions


class Told(Protocol):
    """What was told of a recipient after its delivery: by a DSN, or by a complaint (RFC 5965).

    `bounce_class` is one of `delivery/answers/classify.py` ("" for a complaint); `permanent` is false for a bounce
    that may be over soon. `words` are the remote's. What was `told_before` has been counted, but perhaps not written
    down.
    """

    @property
    def address(self) -> str: ...  # noqa: D102
    @property
    def at(self) -> float: ...  # noqa: D102
    @property
    def message(self) -> str: ...  # noqa: D102
    @property
    def account(self) -> str: ...  # noqa: D102
    @property
    def bounce_class(self) -> str: ...  # noqa: D102
    @property
    def permanent(self) -> bool: ...  # noqa: D102
    @property
    def words(self) -> str: ...  # noqa: D102
    @property
    def told_before(self) -> bool: ...  # noqa: D102


class Consequences:
    """Passes it on to both."""

    def __init__(self, suppressions: Suppressions, pauses: Pauses) -> None:
        self._suppressions = suppressions
        self._pauses = pauses

    def observe(self, outcome: Outcome) -> None:
        """How a delivery ended, once that is written down."""
        self._pauses.observe(outcome)  # counted from the events after a start: there is nothing to write

    def alongside(self, outcomes: Sequence[Outcome]) -> Alongside | None:
        """What is to be written in one transaction with these ends of deliveries."""
        return self._suppressions.alongside(outcomes)

    async def bounced(self, bounce: Told) -> None:
        """Mail that had been taken came back after all. Raises StoreError when it could not be written down."""
        if not bounce.permanent:
            return
        self._suppressions.bounced(bounce.address, bounce.bounce_class, bounce.words, bounce.at, bounce.message)
        if not bounce.told_before:
            self._pauses.bounced_later(bounce.account, bounce.bounce_class, bounce.at)
        await self._suppressions.flush()

    async def complained(self, complaint: Told) -> None:
        """A recipient called a message spam. Raises StoreError when it could not be written down."""
        self._suppressions.complained(complaint.address, complaint.at, complaint.message)
        if not complaint.told_before:
            self._pauses.complained(complaint.account, complaint.at)
        await self._suppressions.flush()
