"""What the core remembers of sign-ins, for fronts that are started anew: a guesser must not gain from a front's end.

The fronts count for themselves and tell each other by way of the core, which judges nothing: it keeps what it has
passed on, and tells it all, with its age, to a front that was not there. Both lists are bounded, the oldest go first.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from malote_relay.fronts.protocol import Noted
from malote_relay.submission.admission import Seen

MAX_KEPT: Final = 10_000
"""Failures, and clients with the account that they signed in to, each: as many as a front's guard keeps."""


class SignIns:
    """Takes in what fronts note of sign-ins, and gives it again. `monotonic` gives seconds."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._failed: deque[tuple[float, Noted]] = deque(maxlen=MAX_KEPT)
        self._signed_in: dict[tuple[str, str], tuple[float, Noted]] = {}

    def note(self, noted: Noted) -> None:
        """Keep it, unless it is a connection: those count for a minute only."""
        seen = (self._monotonic(), noted)
        if noted.seen is Seen.FAILED:
            self._failed.append(seen)
        elif noted.seen is Seen.SIGNED_IN:
            key = (noted.client, noted.account)
            self._signed_in.pop(key, None)
            self._signed_in[key] = seen
            if len(self._signed_in) > MAX_KEPT:
                del self._signed_in[next(iter(self._signed_in))]

    def told(self) -> Iterator[Noted]:
        """All of it as it is to be told now, each kind in the order of time."""
        now = self._monotonic()
        for at, noted in (*self._signed_in.values(), *self._failed):
            yield msgspec.structs.replace(noted, age=now - at)
