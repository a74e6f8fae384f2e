"""How many notices a sender gets: token buckets, one a sender and one for all, and what they left out. Pure.

A list full of dead addresses would otherwise come back to its sender as thousands of messages. Kept in memory: a
restart fills the buckets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HOUR = 3600.0

MAX_SENDERS = 10_000
"""Senders that are remembered; beyond that those with the least to remember are forgotten."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float
    withheld: int = 0
    since: float = 0.0

    def fill(self, size: int, now: float) -> None:
        """What has trickled in since the last time."""
        self.tokens = min(float(size), self.tokens + max(0.0, now - self.at) * size / HOUR)
        self.at = now


@dataclass(frozen=True, slots=True)
class Withheld:
    """Notices that a sender did not get, and since when."""

    sender: str
    count: int
    since: float


class Allowance:
    """Buckets that hold an hour's notices and fill up within an hour."""

    def __init__(self, per_sender: int, in_all: int):
        self._per_sender = per_sender
        self._in_all = in_all
        self._all: _Bucket | None = None
        self._senders: dict[str, _Bucket] = {}

    def configure(self, per_sender: int, in_all: int) -> None:
        """Allow so many an hour from now on."""
        self._per_sender, self._in_all = per_sender, in_all

    def take(self, sender: str, now: float) -> bool:
        """Whether the sender may be sent one more; if not, it is counted as withheld."""
        everyone = self._everyone(now)
        own = self._bucket(sender, now)
        if own.tokens >= 1 and everyone.tokens >= 1:
            own.tokens -= 1
            everyone.tokens -= 1
            return True
        if not own.withheld:
            own.since = now
        own.withheld += 1
        return False

    def summaries(self, now: float) -> Sequence[Withheld]:
        """Those whom it is time to tell how much was left out: an hour after the first. They start anew."""
        everyone = self._everyone(now)
        found = []
        for sender, own in self._senders.items():
            if own.withheld and (now - own.since >= HOUR or now < own.since) and everyone.tokens >= 1:
                everyone.tokens -= 1
                found.append(Withheld(sender, own.withheld, own.since))
                own.withheld = 0
        return found

    def _everyone(self, now: float) -> _Bucket:
        if self._all is None:
            self._all = _Bucket(float(self._in_all), now)
        self._all.fill(self._in_all, now)
        return self._all

    def _bucket(self, sender: str, now: float) -> _Bucket:
        own = self._senders.get(sender)
        if own is None:
            if len(self._senders) >= MAX_SENDERS:
                self._forget(now)
            own = self._senders[sender] = _Bucket(float(self._per_sender), now)
        own.fill(self._per_sender, now)
        return own

    def _forget(self, now: float) -> None:
        for own in self._senders.values():
            own.fill(self._per_sender, now)
        ranked = sorted(self._senders, key=lambda one: (self._senders[one].withheld, -self._senders[one].tokens))
        for sender in ranked[: MAX_SENDERS // 10]:
            del self._senders[sender]
