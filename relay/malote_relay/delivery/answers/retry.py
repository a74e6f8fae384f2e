"""When to try again (RFC 5321 section 4.5.4.1): exponential, with jitter, until the message is too old."""

from __future__ import annotations

import random
from dataclasses import dataclass

JITTER = 0.15
"""Share by which a delay is shortened or lengthened, so that messages that failed together return apart."""

_MAX_DOUBLINGS = 40


@dataclass(frozen=True, slots=True)
class Schedule:
    """Seconds: the first delay, the longest, and the age at which a recipient is given up."""

    first: float
    longest: float
    max_age: float


def spread(message_id: str, attempts: int) -> float:
    """Where in the jitter's range, from -1 to 1, a message lies after its `attempts`-th attempt.

    It is the message's and not the recipient's: its recipients come back together and share transactions again.
    """
    return random.Random(f"{message_id} {attempts}").uniform(-1.0, 1.0)  # noqa: S311  # not for secrets


def delay(schedule: Schedule, message_id: str, attempts: int) -> float:
    """Seconds to wait after the `attempts`-th attempt (1 is the first) at a message."""
    doublings = min(max(attempts - 1, 0), _MAX_DOUBLINGS)
    plain = min(schedule.first * 2.0**doublings, schedule.longest)
    return plain * (1 + JITTER * spread(message_id, attempts))


def next_attempt(schedule: Schedule, now: float, released_at: float, message_id: str, attempts: int) -> float | None:
    """When to try again after a temporary failure at `now`; None: it is too old, give up.

    Age counts from the release, so that held mail gets its full time; the last attempt is made at its end.
    """
    deadline = released_at + schedule.max_age
    if now >= deadline:
        return None
    return min(now + delay(schedule, message_id, attempts), deadline)
