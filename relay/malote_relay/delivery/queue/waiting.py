"""Why a recipient waits, and until when: the question that people ask of a queue first. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from malote_relay.store.model import Queued


class Stage(enum.Enum):
    """How far the scheduler has got with a recipient."""

    STORED = "stored"
    WAITING = "waiting"
    RUNNING = "running"
    RECORDING = "recording"


@dataclass(frozen=True, slots=True)
class Situation:
    """What the scheduler knows. `held_for` are the seconds for which mail to the destination is `held` back.

    `in_line` stand in line for the destination; `slowed` is what it gets less for now, and for how long at most.
    `last_class` is the bounce class of its last attempt's end, if that is known.
    """

    now: float
    frozen: bool = False
    stage: Stage = Stage.STORED
    behind: bool = False
    held: str = ""
    held_for: float = 0.0
    in_line: int = 0
    slowed: str = ""
    slowed_for: float = 0.0
    max_age: float = 0.0
    last_class: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The answer: words, and a time (epoch seconds) when it will change by itself, or None."""

    words: str
    until: float | None = None


def explain(recipient: Queued, situation: Situation) -> Waiting:
    """Why `recipient` has not been delivered yet."""
    now = situation.now
    if situation.stage is Stage.RUNNING:
        return Waiting("it is being sent right now")
    if situation.stage is Stage.RECORDING:
        return Waiting("it has been tried; the result is being written down")
    if situation.frozen:
        return Waiting("all delivery of this tenant is stopped (delivery.frozen)")
    if recipient.next_attempt_at > now:
        if recipient.attempts == 0:
            return Waiting("it is held: it was accepted beyond its hour's limit and belongs to a later hour",
                           recipient.next_attempt_at)  # fmt: skip
        given_up = recipient.released_at + situation.max_age
        last = " (the last attempt)" if situation.max_age and recipient.next_attempt_at >= given_up else ""
        met = f" ({situation.last_class})" if situation.last_class else ""
        return Waiting(
            f"attempt {recipient.attempts} met a temporary failure{met}; the next follows{last}",
            recipient.next_attempt_at,
        )
    if situation.stage is Stage.WAITING:
        words = "it waits for a connection: its destination, or the relay, has as many as allowed"
        if situation.in_line > 1:
            words += f"; {situation.in_line} stand in line"
        if situation.slowed:
            return Waiting(f"{words}; {situation.slowed}", now + situation.slowed_for)
        return Waiting(words)
    if situation.held:
        return Waiting(situation.held, now + situation.held_for)
    if situation.behind:
        return Waiting("it is due, and waits in the queue behind others that came earlier")
    return Waiting("it is due and will be tried at once")
