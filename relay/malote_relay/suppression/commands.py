"""What people can ask and tell of the suppression list: the commands `suppressions`, `suppress` and `unsuppress` of
`malote-relayctl`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Final, Literal

from malote_relay.control.fields import Answer, Request, Time, option, positional
from malote_relay.control.registry import Controls, Refused
from malote_relay.submission.address import AddressError, mailbox
from malote_relay.suppression.suppressions import Suppressions

_DAY: Final = 86_400.0


class ListSuppressions(Request, frozen=True, kw_only=True):
    """Arguments of `suppressions`."""

    text: Annotated[str, option("only addresses with this in them: a domain, a name")] = ""
    reason: Annotated[Literal["bounce", "complaint", "manual"] | None, option("only these")] = None
    limit: Annotated[int, option("at most so many; 0 for all", ge=0)] = 100


class SuppressionRow(Answer, frozen=True, kw_only=True):
    """An address that is refused."""

    address: str
    reason: str
    since: Time
    until: Time
    bounce_class: str
    detail: str
    message: str


class Suppress(Request, frozen=True, kw_only=True):
    """Arguments of `suppress`."""

    address: Annotated[str, positional("the recipient's address")]
    days: Annotated[int, option("for how long; 0 for good", ge=0)] = 0
    note: Annotated[str, option("why: senders read it in the refusal")] = ""


class Unsuppress(Request, frozen=True, kw_only=True):
    """Arguments of `unsuppress`."""

    address: Annotated[str, positional("the recipient's address")]


class Said(Answer, frozen=True, kw_only=True):
    """What was done."""

    said: str


class SuppressionCommands:
    """The commands' work. `clock` gives epoch seconds."""

    def __init__(self, suppressions: Suppressions, clock: Callable[[], float]) -> None:
        self._suppressions = suppressions
        self._clock = clock

    def register(self, controls: Controls) -> None:
        """Make them known."""
        controls.rows(
            "suppressions",
            "List the recipients that are refused, and why and until when.",
            ListSuppressions,
            SuppressionRow,
            self.suppressions,
        )
        controls.one("suppress", "Refuse mail to a recipient from now on.", Suppress, Said, self.suppress)
        controls.one("unsuppress", "Take mail to a recipient again.", Unsuppress, Said, self.unsuppress)

    async def suppressions(self, asked: ListSuppressions) -> AsyncIterator[SuppressionRow]:
        """The rows of `suppressions`."""
        found = self._suppressions.entries(text=asked.text, reason=asked.reason or "", limit=asked.limit)
        async for entry in found:
            yield SuppressionRow(
                address=entry.address,
                reason=entry.reason.value,
                since=entry.since,
                until=entry.until,
                bounce_class=entry.bounce_class,
                detail=entry.detail,
                message=entry.message,
            )

    async def suppress(self, asked: Suppress) -> Said:
        """Do `suppress`."""
        address = _checked(asked.address)
        until = self._clock() + asked.days * _DAY if asked.days else None
        await self._suppressions.add(address, until=until, note=asked.note)
        span = f"for {asked.days} days" if asked.days else "for good"
        if not self._suppressions.enabled:
            return Said(said=f"{address} is on the list {span}, but nobody is refused: suppression.enabled is false")
        return Said(said=f"mail to {address} is refused {span}")

    async def unsuppress(self, asked: Unsuppress) -> Said:
        """Do `unsuppress`."""
        address = _checked(asked.address)
        entry = await self._suppressions.remove(address)
        if entry is None:
            raise Refused(f"{address} is not on the suppression list")
        if not entry.suppressed(self._clock()):
            return Said(said=f"{address} was not refused any more; what was remembered of it is forgotten")
        return Said(said=f"mail to {address} is taken again")


def _checked(address: str) -> str:
    try:
        return str(mailbox(address))
    except AddressError as error:
        raise Refused(f"this is no mail address: {error}") from error
