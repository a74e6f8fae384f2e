"""Whether delivery stands still though something could move. Pure.

What waits for a good reason is no stall: a tenant that is frozen, destinations that are down, paused or get no more
than their rate, transactions under way, however slow. What is left, mail that is due and for which nobody does
anything, is a fault of the relay itself: somebody must hear of it, and a push in the back may help meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

STALLED_SECONDS = 600.0
"""Without a beginning or an end of any attempt for so long, though one was due, delivery counts as stalled."""

HEAL_SECONDS = 120.0
"""How long after an alarm, or the last push, it is pushed (again)."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known at `now` (monotonic seconds). `moved_at`: when an attempt last began or ended.

    `due`: mail waits whose time has come, to destinations that are not left alone. `busy`: transactions are under
    way. `turning`: the loops that deliver and record are alive.
    """

    now: float
    moved_at: float
    due: bool
    busy: bool = False
    frozen: bool = False
    turning: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """For how long it stands still, 0 for not; whether to raise the alarm now, and to push now."""

    stalled: float = 0.0
    alarm: bool = False
    push: bool = False


class Watchdog:
    """Looks at facts, one after another."""

    def __init__(self) -> None:
        self._since: float | None = None
        """Since when mail has been due and nothing has moved."""
        self._alarmed = False
        self._pushed_at = 0.0

    def look(self, facts: Facts) -> Verdict:
        """What to make of it."""
        now = facts.now
        if not facts.turning:
            alarm, self._alarmed = not self._alarmed, True
            stalled = max(1.0, now - (self._since if self._since is not None else now))
            self._since = now - stalled if self._since is None else self._since
            return Verdict(stalled, alarm, push=True)
        if not facts.due or facts.busy or facts.frozen:
            self._since, self._alarmed = None, False
            return Verdict()
        if self._since is None or facts.moved_at > self._since:
            self._since = max(facts.moved_at, now if self._since is None else self._since)
            self._alarmed = False
        stalled = now - self._since
        if stalled < STALLED_SECONDS:
            return Verdict()
        alarm = not self._alarmed
        push = alarm or now - self._pushed_at >= HEAL_SECONDS
        if push:
            self._pushed_at = now
        self._alarmed = True
        return Verdict(stalled, alarm, push)
