"""Complaints taken apart: ARF (RFC 5965, RFC 6650), and what Microsoft sends in its place. Pure; never raises."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message

from malote_relay.bounces import mime
from malote_relay.bounces.mime import first

_MAX_TRACE = 10_000
_MICROSOFT = "x-hmxmroriginalrecipient"
"""The field in which Microsoft's junk mail reports name the recipient, inside the message complained of."""


class FeedbackType(enum.StrEnum):
    """What is reported (RFC 5965 section 7.3, and the registry it made)."""

    ABUSE = "abuse"
    FRAUD = "fraud"
    VIRUS = "virus"
    OTHER = "other"
    NOT_SPAM = "not-spam"
    AUTH_FAILURE = "auth-failure"
    OPT_OUT = "opt-out"
    OPT_OUT_LIST = "opt-out-list"

    @property
    def complaint(self) -> bool:
        """Whether the recipient does not want such mail."""
        return self not in {FeedbackType.NOT_SPAM, FeedbackType.AUTH_FAILURE}


@dataclass(frozen=True, slots=True)
class Feedback:
    """A report on a message: what is said of it, by which provider's program, and whom it went to if that is told."""

    kind: FeedbackType
    user_agent: str = ""
    recipients: Sequence[str] = ()
    reverse_path: str = ""
    """Original-Mail-From, or the Return-Path of the message: with luck, one of the relay's own."""
    trace: str = ""
    """The Received fields of the message."""


def feedback(message: Message) -> Feedback | None:
    """The feedback in a message; None when it is something else."""
    reports = [part for part in mime.parts(message) if mime.kind(part) == "message/feedback-report"]
    originals = [
        below
        for part in mime.parts(message)
        if mime.kind(part) in ("message/rfc822", "message/global", "text/rfc822-headers", "message/rfc822-headers")
        for below in [mime.groups(part)[:1]]
    ]
    inside = [field for groups in originals for group in groups for field in group]
    trace = "\n".join(value for name, value in inside if name == "received")[:_MAX_TRACE]
    return_path = first(inside, "return-path", "x-hmxmroriginalmailfrom").strip("<> ")[:1000]
    if reports:
        said = [field for group in mime.groups(reports[0]) for field in group]
        recipients = [value.strip("<> ")[:1000] for name, value in said if name == "original-rcpt-to"][:100]
        return Feedback(
            _kind(first(said, "feedback-type")),
            first(said, "user-agent")[:255],
            [one for one in recipients if one],
            first(said, "original-mail-from").strip("<> ")[:1000] or return_path,
            trace,
        )
    if recipient := first(inside, _MICROSOFT).strip("<> ")[:1000]:
        return Feedback(FeedbackType.ABUSE, "Microsoft", [recipient], return_path, trace)
    return None


def _kind(written: str) -> FeedbackType:
    try:
        return FeedbackType(written.split(" ", maxsplit=1)[0].strip(";").lower())
    except ValueError:
        return FeedbackType.OTHER
