"""From a remote's answer to what the store keeps: delivered, deferred until, or failed. Pure."""

from __future__ import annotations

from malote_relay.delivery.answers.classify import classify
from malote_relay.delivery.answers.retry import Schedule, next_attempt
from malote_relay.delivery.reply import Answer, Failure, Reply
from malote_relay.store.model import Outcome, Queued, Result

EXPIRED = "; the last answer was: "
"""Stands between our own words and the remote's when a recipient is given up."""


def outcome(
    recipient: Queued, answer: Answer, *, host: str, tls: str, now: float, schedule: Schedule, notifies: bool = False
) -> Outcome:
    """How the attempt ended for `recipient`: `host` and `tls` say with whom and over what, as far as it got.

    `notifies` is whether that host takes over the notifying of the sender.
    """
    own = isinstance(answer, Failure) and not answer.said
    words = answer.said or answer.words if isinstance(answer, Failure) else str(answer)
    if isinstance(answer, Reply) and answer.accepted:
        return Outcome(recipient, Result.DELIVERED, now, words, host=host, tls=tls, notify_passed_on=notifies)
    verdict = classify(answer, host)
    if verdict.permanent:
        return Outcome(recipient, Result.FAILED, now, words, verdict.bounce_class, host, tls, own=own)
    again = next_attempt(schedule, now, recipient.released_at, recipient.message_id, recipient.attempts + 1)
    if again is None:
        expired = f"554 5.4.7 not delivered within {span(schedule.max_age)}{EXPIRED}{words}"
        return Outcome(recipient, Result.FAILED, now, expired, verdict.bounce_class, host, tls, own=own)
    return Outcome(recipient, Result.DEFERRED, now, words, verdict.bounce_class, host, tls, again, own=own)


def span(seconds: float) -> str:
    """A time span in words: its largest fitting unit."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} seconds"
