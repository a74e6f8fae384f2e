"""The names mail has in the store: a message's id, and the domain its recipients are grouped by."""

from __future__ import annotations

import random

_random = random.Random()  # noqa: S311  # names, not secrets: without a system call for each message


def new_message_id(now: float) -> str:
    """An id that sorts by time (to the microsecond) and is not met twice; the queue id of log and reply.

    It guards nothing. It is not the Message-ID of the header.
    """
    return f"{int(now * 1_000_000):014x}{_random.getrandbits(32):08x}"


def domain_of(address: str) -> str:
    """The part after the last "@", lower case: what is grouped, routed and counted by."""
    return address.rpartition("@")[2].lower()
