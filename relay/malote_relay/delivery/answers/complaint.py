"""What answers say about the destination rather than about a recipient: it serves us, or has too much of us. Pure.

Greylisting is no complaint: it is about one message, and that waits. Nor is it one that a single mailbox gets too
much.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from malote_relay.delivery.answers.classify import Verdict, classify
from malote_relay.delivery.reply import Answer, Failure, Reply

_ABOUT_THE_RECIPIENT = frozenset({"greylist", "quota", "inactive", "bad-mailbox", "bad-domain", "too-big"})
_MAILBOX_GETS_TOO_MUCH = "4.2.1"


class Heard(enum.Enum):
    """What a transaction's answers say about the destination, beyond its recipients."""

    SERVED = "served"
    NOTHING = "nothing"
    PUT_OFF = "put off"
    TOO_FAST = "too fast"


def heard(answers: Iterable[Answer], host: str = "") -> tuple[Heard, str]:
    """What the answers to one transaction with `host` mean for the destination, with the words that say so."""
    found: dict[Heard, str] = {}
    for answer in answers:
        if isinstance(answer, Reply) and answer.accepted:
            return Heard.SERVED, ""
        verdict = classify(answer, host)
        if verdict.permanent:
            found.setdefault(Heard.SERVED, "")
        elif too_fast(answer, verdict):
            found.setdefault(Heard.TOO_FAST, _words(answer))
        elif verdict.bounce_class not in _ABOUT_THE_RECIPIENT and verdict.bounce_class != "rate-limit":
            found.setdefault(Heard.PUT_OFF, _words(answer))
    for one in (Heard.TOO_FAST, Heard.SERVED, Heard.PUT_OFF):
        if one in found:
            return one, found[one]
    return Heard.NOTHING, ""


def too_fast(answer: Answer, verdict: Verdict) -> bool:
    """Whether a temporary answer asks us to slow down: for its class, or because the host hangs up with 421."""
    if verdict.permanent:
        return False
    words = _words(answer)
    if verdict.bounce_class == "rate-limit":
        return _MAILBOX_GETS_TOO_MUCH not in words[:12]
    return words.startswith("421") and verdict.bounce_class != "greylist" and not _is_own(answer)


def _is_own(answer: Answer) -> bool:
    """Whether it is our own diagnosis rather than a reply."""
    return isinstance(answer, Failure) and bool(answer.bounce_class)


def _words(answer: Answer) -> str:
    return answer.words if isinstance(answer, Failure) else str(answer)
