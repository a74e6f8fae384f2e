"""What people can ask and tell of accounts: the commands `accounts` and `resume` of `malote-relayctl`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Final

from malote_relay.control.fields import Answer, Nothing, Request, Time, positional
from malote_relay.control.registry import Controls, Refused
from malote_relay.pausing.pauses import Pauses

_SUSPENDED: Final = "suspended, which only its platform can change"


class AccountRow(Answer, frozen=True, kw_only=True):
    """An account, and what became of its mail within the window. `state`: open, paused, or suspended.

    `since`, `until` and `reason` are those of a pause, which a suspended account may be in, too.
    """

    account: str
    state: str
    delivered: int
    bounced: int
    complained: int
    since: Time = None
    until: Time = None
    reason: str = ""


class Resume(Request, frozen=True, kw_only=True):
    """Arguments of `resume`."""

    account: Annotated[str, positional("the account's name")]


class Resumed(Answer, frozen=True, kw_only=True):
    """What was done."""

    said: str


class AccountCommands:
    """The commands' work."""

    def __init__(self, pauses: Pauses) -> None:
        self._pauses = pauses

    def register(self, controls: Controls) -> None:
        """Make them known."""
        controls.rows(
            "accounts",
            "List the accounts: what became of their mail lately, who is paused and why, who is suspended.",
            Nothing,
            AccountRow,
            self.accounts,
        )
        controls.one(
            "resume",
            "Let a paused account send again. What its mail did before no longer counts.",
            Resume,
            Resumed,
            self.resume,
        )

    async def accounts(self, asked: Nothing) -> AsyncIterator[AccountRow]:
        """The rows of `accounts`."""
        for state in self._pauses.states():
            pause, tally = state.pause, state.tally
            yield AccountRow(
                account=state.account,
                state="suspended" if state.suspended else "paused" if pause is not None else "open",
                delivered=tally.delivered,
                bounced=tally.bounced,
                complained=tally.complained,
                since=pause.since if pause is not None else None,
                until=pause.until if pause is not None else None,
                reason=pause.reason if pause is not None else "",
            )

    async def resume(self, asked: Resume) -> Resumed:
        """Do `resume`."""
        known = {state.account: state for state in self._pauses.states()}
        if asked.account not in known:
            raise Refused(f"there is no account {asked.account!r}; there are {', '.join(known)}")
        suspended = known[asked.account].suspended
        pause = self._pauses.resume(asked.account)
        if pause is None:
            raise Refused(f"{asked.account} is not paused" + (f", but {_SUSPENDED}" if suspended else ""))
        again = f"is no longer paused, but {_SUSPENDED}" if suspended else "may send again"
        return Resumed(said=f"{asked.account} {again}; it was paused because {pause.reason}")
