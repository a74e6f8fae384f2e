"""Which senders are told what: from the ends of attempts to the notices due (RFC 3461 section 5). Pure.

Told is only who has a reverse-path (RFC 5321 section 4.5.5) and did not ask to be left alone with NOTIFY. A success
is told of when it was asked for and the next server does not speak DSN: from there on nobody else would (section
5.2.2). Who asked for nothing hears of failures and, once for each recipient, of delays.

A failure may also be reported after a server has taken the message. Where the reverse-path was one of the relay's own
the report came to the relay, and it is the relay that tells the sender.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from dataclasses import dataclass

from malote_relay.store.model import Notify, Outcome, Queued, Result


class Kind(enum.StrEnum):
    """What a notice tells."""

    FAILED = "failed"
    DELAYED = "delayed"
    RELAYED = "relayed"
    BOUNCED = "bounced"
    """A server that had taken the message could not deliver it after all."""
    SUMMARY = "summary"
    """How many others were left out."""


@dataclass(frozen=True, slots=True)
class Reported:
    """What a report said of a recipient, where there was one; each may be empty.

    `status` is the enhanced code, `diagnostic` the words behind their type (RFC 3464 section 2.3.6), `header` the
    message's header section as it came back.
    """

    status: str = ""
    diagnostic: str = ""
    header: bytes = b""


@dataclass(frozen=True, slots=True)
class Due:
    """One notice: about recipients of one message, to its reverse-path. `reported` with a report that came later."""

    kind: Kind
    outcomes: Sequence[Outcome]
    reported: Reported | None = None

    @property
    def sender(self) -> str:
        """Whom to tell."""
        return self.outcomes[0].recipient.reverse_path


def due(batch: Sequence[Outcome], delay_after: float) -> tuple[Sequence[Outcome], Sequence[Due]]:
    """The outcomes, those marked with which a delay is told of, and the notices, by message and kind.

    `delay_after` is the age in seconds from which a delay is told of; 0 for never.
    """
    marked: list[Outcome] = []
    groups: dict[tuple[str, Kind], list[Outcome]] = {}
    for one in batch:
        kind = _kind(one, delay_after) if one.recipient.reverse_path else None
        kept = dataclasses.replace(one, told_of_delay=True) if kind is Kind.DELAYED else one
        marked.append(kept)
        if kind is not None:
            groups.setdefault((one.recipient.message_id, kind), []).append(kept)
    return marked, [Due(kind, outcomes) for (_, kind), outcomes in groups.items()]


def due_later(outcome: Outcome, reported: Reported) -> Due | None:
    """The notice, if any, about a recipient whose server took the message and could not deliver it after all."""
    recipient = outcome.recipient
    if not recipient.reverse_path or Notify.FAILURE not in recipient.dsn.notify:
        return None
    return Due(Kind.BOUNCED, [outcome], reported)


def _kind(one: Outcome, delay_after: float) -> Kind | None:
    recipient = one.recipient
    notify = recipient.dsn.notify
    if one.result is Result.FAILED:
        return Kind.FAILED if Notify.FAILURE in notify else None
    if one.result is Result.DELIVERED:
        return Kind.RELAYED if Notify.SUCCESS in notify and not one.notify_passed_on else None
    late = delay_after > 0 and one.at - recipient.released_at >= delay_after
    return Kind.DELAYED if late and to_be_told_of_delay(recipient) else None


def to_be_told_of_delay(recipient: Queued) -> bool:
    """Whether its sender hears of a delay, and has not yet."""
    return bool(recipient.reverse_path) and Notify.DELAY in recipient.dsn.notify and not recipient.told_of_delay


def is_notice(recipient: Queued) -> bool:
    """Whether this is a notification of the relay's own: no account sent it, and its reverse-path is null."""
    return not recipient.account and not recipient.reverse_path
