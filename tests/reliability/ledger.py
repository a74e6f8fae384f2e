"""The account of a run: what was acknowledged against what arrived, and whether each second copy has its reason.

The one reason there is: the remote host had sent its final 250 for the first copy, and the relay was killed before
it had committed that. The relay writes "delivered" to its log right after the commit; so a second copy is explained
when the life of the relay that sent the first ended by a kill, and its log does not say "delivered" for it.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.reliability.internet import Arrivals, Copy, Manner
from tests.reliability.load import Sent
from tests.reliability.site import Life


@dataclass(slots=True)
class Account:
    """What came out. Every list is of words for people; those of a sound relay are all empty."""

    acknowledged: int = 0
    acknowledged_recipients: int = 0
    begun: int = 0
    refused: int = 0
    copies: int = 0
    unacknowledged_arrived: int = 0
    duplicates: int = 0
    longest_gap: float = 0.0
    """Seconds between a final 250 and the kill, of explained duplicates."""
    notifications: int = 0
    notified_again: int = 0
    lost: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    not_told: list[str] = field(default_factory=list)
    wrongly_delivered: list[str] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)
    inconsistent: list[str] = field(default_factory=list)

    @property
    def complaints(self) -> list[str]:
        return [
            f"{what}: {words}"
            for what, found in (
                ("lost", self.lost),
                ("damaged", self.damaged),
                ("arrived twice without a reason", self.unexplained),
                ("failed without the sender being told", self.not_told),
                ("refused, and delivered all the same", self.wrongly_delivered),
                ("set aside", self.set_aside),
                ("inconsistent", self.inconsistent),
            )
            for words in found
        ]


def missing(sent: Iterable[Sent], arrivals: Arrivals) -> list[str]:
    """The recipients of acknowledged messages that have not got theirs, and the failed ones not told of."""
    return [
        address
        for message in sent
        if message.acknowledged
        for address in message.recipients
        if address not in (arrivals.told if fails(address) else arrivals.copies)
    ]


def fails(address: str) -> bool:
    """Whether the mail host refuses this recipient for good."""
    return address.startswith(f"{Manner.REFUSE}-")


def settle(sent: Sequence[Sent], arrivals: Arrivals, lives: Sequence[Life]) -> Account:
    """The account of a run that has ended."""
    account = Account(begun=len(sent))
    recorded = _recorded(lives, account)
    by_number = {message.number: message for message in sent}
    for message in sent:
        if message.acknowledged:
            account.acknowledged += 1
            account.acknowledged_recipients += len(message.recipients)
            _arrived(message, arrivals, account)
        elif message.reply[:1] in {"4", "5"}:
            account.refused += 1
    for address, copies in arrivals.copies.items():
        account.copies += len(copies)
        message = by_number[copies[0].number]
        account.damaged += [f"{address}: {copy.queue_id}" for copy in copies if not copy.intact]
        if not message.acknowledged:
            account.unacknowledged_arrived += 1
            if message.reply[:1] in {"4", "5"}:
                account.wrongly_delivered.append(f"{address}: {message.reply}")
        elif any(copy.queue_id != message.queue_id for copy in copies):
            account.inconsistent.append(f"{address}: acknowledged as {message.queue_id}, came as another")
        for first, second in itertools.pairwise(copies):
            _twice(address, first, second, lives, recorded, account)
    account.notifications = sum(arrivals.told.values())
    account.notified_again = account.notifications - len(arrivals.told)
    if arrivals.unreadable:
        account.inconsistent.append(f"{arrivals.unreadable} messages without a number arrived")
    return account


def _arrived(message: Sent, arrivals: Arrivals, account: Account) -> None:
    for address in message.recipients:
        if fails(address):
            if address not in arrivals.told:
                account.not_told.append(f"{address}: {message.queue_id}")
        elif address not in arrivals.copies:
            account.lost.append(f"{address}: acknowledged as {message.queue_id}")


def _recorded(lives: Sequence[Life], account: Account) -> Mapping[tuple[str, str], int]:
    """In which life each delivery was said to be recorded; what was set aside goes into the account."""
    recorded: dict[tuple[str, str], int] = {}
    for life in lives:
        for event in life.events():
            if event["event"] == "delivered":
                recorded[event["message"], event["recipient"]] = life.number
            elif event["event"] in {"found damaged and set aside", "a content is damaged"}:
                account.set_aside.append(event["what"])
    return recorded


def _twice(
    address: str,
    first: Copy,
    second: Copy,
    lives: Sequence[Life],
    recorded: Mapping[tuple[str, str], int],
    account: Account,
) -> None:
    account.duplicates += 1
    life = next((life for life in reversed(lives) if life.started <= first.at), None)
    at = recorded.get((first.queue_id, address))
    if life is None or life.killed is None:
        account.unexplained.append(f"{address} ({first.queue_id}): the relay that sent it was not killed")
    elif second.at < life.killed:
        account.unexplained.append(f"{address} ({first.queue_id}): twice in one life of the relay")
    elif at is not None and at <= life.number:
        account.unexplained.append(f"{address} ({first.queue_id}): sent again although recorded in life {at}")
    else:
        account.longest_gap = max(account.longest_gap, life.killed - first.at)


def inspect(spool: Path, sent: Sequence[Sent], account: Account, *, drained: bool = True) -> None:
    """Look into the database of a relay that has ended: sound, and every charge with its recipient."""
    connection = sqlite3.connect(spool / "relay.db")
    try:
        (sound,) = connection.execute("PRAGMA integrity_check").fetchone()
        waiting, charged_waiting = connection.execute("SELECT count(*), count(hour) FROM recipients").fetchone()
        (ended,) = connection.execute(
            "SELECT count(*) FROM events WHERE status IN ('delivered', 'failed') AND account != ''"
        ).fetchone()
        (charged,) = connection.execute("SELECT coalesce(sum(charged), 0) FROM hours").fetchone()
    finally:
        connection.close()
    if sound != "ok":
        account.inconsistent.append(f"the database: {sound}")
    if drained and waiting:
        account.inconsistent.append(f"{waiting} recipients wait in the drained queue")
    if charged != ended + charged_waiting:
        account.inconsistent.append(f"{charged} charged, but {ended} have ended and {charged_waiting} wait")
    acknowledged = sum(len(message.recipients) for message in sent if message.acknowledged)
    if charged < acknowledged:
        account.inconsistent.append(f"{charged} charged, but {acknowledged} acknowledged")
    if drained and (left := [path.name for folder in ("spool", "incoming") for path in (spool / folder).iterdir()]):
        account.inconsistent.append(f"contents left behind: {', '.join(left[:5])}")
