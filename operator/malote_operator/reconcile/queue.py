"""When each object is looked at: a queue of keys without duplicates, with back-off, and times to look again.

A key is handed to one worker at a time. What is added while it is being worked on makes it come again
afterwards, once, however often it was added. A failure delays the key alone, longer each time. `look_again`
keeps the earliest time asked for; it is replaced with each visit's answer. What somebody has changed goes before
what is only looked at again: a suspension must not wait until ten thousand tenants have been compared.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

FIRST_DELAY = 0.5
LONGEST_DELAY = 120.0
URGENT_IN_A_ROW = 8
"""After so many urgent keys one of the others has its turn, however many are urgent."""
_STALE_TIMES = 1000
"""Up to so many times that no longer count are left in the heap until their turn comes."""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What is reconciled: the kind's name, and the object's namespace ("" when cluster-scoped) and name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class Queue:
    """The keys to reconcile. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._urgent: deque[Key] = deque()
        self._ready: deque[Key] = deque()
        self._urgent_taken = 0
        # The keys that wait, and those to look at once more; True: urgently.
        self._waiting: dict[Key, bool] = {}
        self._working: set[Key] = set()
        self._again: dict[Key, bool] = {}
        self._failures: dict[Key, int] = {}
        self._times: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._order = itertools.count()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """How many keys wait to be looked at now."""
        return len(self._waiting)

    def now(self) -> float:
        """The queue's own time, in which `done` and `add_at` count."""
        return self._clock()

    def add(self, key: Key, *, urgent: bool = False) -> None:
        """Look at `key` as soon as a worker is free (again, if one is looking at it now).

        A key that has failed keeps its pause, unless the call is `urgent`: somebody changed what is wanted.
        """
        if key in self._failures and key in self._times and not urgent:
            return
        if key in self._working:
            self._again[key] = urgent or self._again.get(key, False)
        elif key not in self._waiting or (urgent and not self._waiting[key]):
            self._waiting[key] = urgent
            (self._urgent if urgent else self._ready).append(key)
            self._changed.set()

    def add_at(self, key: Key, when: float) -> None:
        """Look at `key` at time `when`, or earlier if an earlier time is already set."""
        if when >= self._times.get(key, float("inf")):
            return
        self._times[key] = when
        heapq.heappush(self._heap, (when, next(self._order), key))
        if len(self._heap) > 2 * len(self._times) + _STALE_TIMES:
            # Each visit leaves the time of the one before: a certificate's renewal may be a year away.
            self._heap = [entry for entry in self._heap if self._times.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
        self._changed.set()

    async def take(self) -> Key:
        """Wait for the next key. The caller calls `done` or `failed` afterwards, whatever happens."""
        while True:
            self._move_due()
            if (key := self._first()) is not None:
                del self._waiting[key]
                self._working.add(key)
                # This visit answers for every time that was set before: it will say itself when to look again.
                self._times.pop(key, None)
                return key
            self._changed.clear()
            next_time = self.next_time()
            wait = None if next_time is None else max(0.0, next_time - self._clock())
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def done(self, key: Key, look_again: float | None = None) -> None:
        """The visit went well; `look_again` is the time of the next one, if time alone calls for it."""
        self._failures.pop(key, None)
        self._finish(key)
        if look_again is not None:
            self.add_at(key, look_again)

    def failed(self, key: Key, at_least: float = 0.0) -> float:
        """The visit failed: the key comes again after a pause that doubles each time; returned in seconds.

        It comes at once if it was added urgently meanwhile.
        """
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause = min(LONGEST_DELAY, max(at_least, FIRST_DELAY * 2.0 ** min(failures - 1, 16)))
        # What was added meanwhile waits for the same pause: an event must not turn a failure into a storm.
        changed = self._again.pop(key, False)
        self._finish(key)
        self.add_at(key, self._clock() + pause)
        if changed:  # this visit may not have seen what somebody wants now
            self.add(key, urgent=True)
            return 0.0
        return pause

    def forget(self, key: Key) -> None:
        """The object is gone: no failures to count, no time to look again."""
        self._failures.pop(key, None)
        self._times.pop(key, None)

    def clear(self) -> None:
        """Forget everything that waits (leadership was lost)."""
        self._urgent.clear()
        self._ready.clear()
        self._waiting.clear()
        self._working.clear()
        self._again.clear()
        self._failures.clear()
        self._times.clear()
        self._heap.clear()

    def next_time(self) -> float | None:
        """The earliest time set, or None."""
        while self._heap and self._times.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)  # replaced by an earlier time, or visited since
        return self._heap[0][0] if self._heap else None

    def _move_due(self) -> None:
        now = self._clock()
        while (when := self.next_time()) is not None and when <= now:
            key = heapq.heappop(self._heap)[2]
            del self._times[key]
            self.add(key)

    def _finish(self, key: Key) -> None:
        self._working.discard(key)
        if (urgent := self._again.pop(key, None)) is not None:
            self.add(key, urgent=urgent)

    def _first(self) -> Key | None:
        """The key whose turn it is; None if none waits. (One that became urgent is in both rows.)"""
        rows = [self._urgent, self._ready]
        if self._urgent_taken >= URGENT_IN_A_ROW:
            rows.reverse()
        for row in rows:
            while row:
                key = row.popleft()
                if self._waiting.get(key) is (row is self._urgent):
                    self._urgent_taken = self._urgent_taken + 1 if row is self._urgent else 0
                    return key
        return None
