"""How fast a destination may be sent to: limits that are configured, and less than these while it asks for less.

What is configured (`shapes`) is an upper bound: connections at a time, messages and recipients a minute (`bucket`).
Below it the relay feels its way (`Throttle`): a host that answers with a rate limit (`answers.complaint`) is left
alone for a moment, which doubles when it happens again, and gets half as much afterwards; then a little more with
every message it takes and every second that passes without a complaint, up to the bound. It is the way of TCP, and of
Postfix's concurrency feedback: additive increase, multiplicative decrease. Nothing ever falls to zero, and all is
forgotten after some minutes. A destination that puts everything off, whatever its reason, is left alone like one that
is too busy.

Pure: time (monotonic seconds) and chance are passed in.
"""

from __future__ import annotations

import math
import random

from malote_relay.delivery.destinations.bucket import Bucket
from malote_relay.delivery.destinations.shapes import Shape

RECOVERY_SECONDS = 300.0
"""After so long without a complaint everything is as configured again."""

SUCCESSES = 300
"""So many messages taken bring it back just as well."""

PAUSE_SECONDS = 8.0
LONGEST_PAUSE_SECONDS = 300.0
PAUSE_JITTER = 0.25

TROUBLES = 10
"""So many transactions put off in a row, for reasons that are not the recipient's, are trouble of the destination."""

_MINUTE = 60.0
_OBSERVED_SECONDS = 60.0
_LEAST_RATE = 10 / _MINUTE
"""What is left, unless less is configured: a complaint about the only message of an hour says little about rates."""


class Throttle:
    """A limit that can be cut and comes back by itself: at most `ceiling`, at least `floor`."""

    __slots__ = ("_at", "_value", "ceiling", "floor")

    def __init__(self, ceiling: float, floor: float) -> None:
        self.ceiling = ceiling
        self.floor = min(floor, ceiling)
        self._value = ceiling
        self._at = 0.0

    def value(self, now: float) -> float:
        """The limit at `now`."""
        if self._value >= self.ceiling:
            return self.ceiling
        grown = self._value + self.ceiling * max(0.0, now - self._at) / RECOVERY_SECONDS
        return min(self.ceiling, max(self.floor, grown))

    def set(self, now: float, value: float) -> None:
        """Begin again from `value`. What has no ceiling cannot be cut."""
        if self.ceiling == math.inf:
            return
        self._value = min(self.ceiling, max(self.floor, value))
        self._at = now

    def raised(self, now: float) -> None:
        """Something went well."""
        if self._value < self.ceiling:
            self.set(now, self.value(now) + self.ceiling / SUCCESSES)


class Shaper:
    """What one destination, or a provider's together, may have now. `open` and `in_line` are the pool's counts."""

    __slots__ = (
        "_adaptive", "_connections", "_counted", "_counted_since", "_messages", "_observed", "_paused_until",
        "_pauses", "_rate", "_recipients", "_slowed_at", "_troubles", "in_line", "open", "plain", "shape", "why",
    )  # fmt: skip

    def __init__(self, shape: Shape, now: float, *, adaptive: bool = True) -> None:
        self.open = 0
        self.in_line = 0
        self.why = ""
        """What the destination said when it was last slowed."""
        self.plain = False
        """Whether neither a rate nor a pause is to be asked about: so with nearly all, nearly always."""
        self._paused_until = self._slowed_at = -math.inf
        self._pauses = 0
        self._troubles = 0
        self._counted = 0
        self._counted_since = now
        self._observed = 0.0
        self._rate: Throttle | None = None
        self._reshape(shape, now, adaptive)

    def _reshape(self, shape: Shape, now: float, adaptive: bool) -> None:
        self.shape = shape
        self._adaptive = adaptive
        self._connections = Throttle(math.inf if shape.connections is None else shape.connections, 1.0)
        self._messages = _bucket(shape.messages_per_minute, now)
        self._recipients = _bucket(shape.recipients_per_minute, now)
        self.plain = False

    def reshape(self, shape: Shape, now: float, *, adaptive: bool = True) -> None:
        """Other limits from now on; what was slowed stays slowed."""
        if shape == self.shape and adaptive == self._adaptive:
            return
        had = self._connections.value(now)
        self._reshape(shape, now, adaptive)
        if not self.slowed(now):
            return
        self._connections.set(now, had)
        if self._rate is not None:
            if shape.messages_per_minute is not None:
                self._rate.ceiling = shape.messages_per_minute / _MINUTE
            self._messages = Bucket(self._rate.value(now), now)

    def connections(self, now: float) -> float:
        """How many it may have; at least one."""
        value = self._connections.value(now)
        return value if value == self._connections.ceiling else math.floor(value + 1e-9)

    def wait(self, now: float, recipients: int = 1) -> float:
        """Seconds until the next message to so many recipients may begin."""
        if self.plain:
            return 0.0
        wait = self._paused_until - now
        if self._rate is not None:
            self._recover(now)
        if self._messages is not None:
            wait = max(wait, self._messages.wait(now))
        if self._recipients is not None:
            wait = max(wait, self._recipients.wait(now, recipients))
        if wait > 0:
            return wait
        self.plain = self._messages is None and self._recipients is None and self._rate is None
        return 0.0

    def line_wait(self, now: float) -> float:
        """About how long who now joins the line waits for the rate alone."""
        rate = self._messages.rate if self._messages is not None else math.inf
        return self.in_line / rate

    def take(self, now: float, recipients: int = 1) -> None:
        """A message to so many recipients begins."""
        self._count(now, 1)
        if self._messages is not None:
            self._messages.spend(now)
        if self._recipients is not None:
            self._recipients.spend(now, recipients)

    def give_back(self, now: float, recipients: int = 1) -> None:
        """It did not begin after all."""
        self._counted -= 1
        if self._messages is not None:
            self._messages.spend(now, -1)
        if self._recipients is not None:
            self._recipients.spend(now, -recipients)

    def succeeded(self, now: float) -> None:
        """It took a message, or refused it for good: it serves us."""
        self._troubles = 0
        if self._slowed_at > now - RECOVERY_SECONDS:
            self._connections.raised(now)
            if self._rate is not None:
                self._rate.raised(now)

    def put_off(self, now: float, words: str, rng: random.Random) -> bool:
        """It put a whole transaction off; whether that was once too often."""
        self._troubles += 1
        return self._troubles >= TROUBLES and self.slow(now, f"everything is put off: {words}", rng)

    def refused_one_more(self, now: float) -> None:
        """It serves us on the connections we have, and did not want another."""
        self._connections.set(now, max(1.0, self.open))
        self._slowed_at = now
        self.why = f"it refused more than {self.open} connections"

    def slow(self, now: float, words: str, rng: random.Random) -> bool:
        """It asked for less. True when something changed: what was under way may ask again for the same."""
        if not self._adaptive or now < self._paused_until:
            return False
        self._pauses = self._pauses + 1 if self.slowed(now) else 1
        pause = min(LONGEST_PAUSE_SECONDS, PAUSE_SECONDS * 2.0 ** min(self._pauses - 1, 20))
        self.plain = False
        self._paused_until = now + pause * (1 + rng.uniform(-PAUSE_JITTER, PAUSE_JITTER))
        used = max(1.0, float(self.open))
        self._connections.set(now, min(self._connections.value(now), used) / 2)
        self._slow_rate(now)
        self._slowed_at = now
        self.why = words
        return True

    def _slow_rate(self, now: float) -> None:
        """Half of what it was, whether that was configured or only happened."""
        observed = max(_LEAST_RATE, self._observed, self._counted / max(1.0, now - self._counted_since))
        configured = self.shape.messages_per_minute
        before = self._messages.rate if self._messages is not None else observed
        if self._rate is None:
            ceiling = 2 * max(observed, _LEAST_RATE) if configured is None else configured / _MINUTE
            self._rate = Throttle(ceiling, _LEAST_RATE)
        self._rate.set(now, min(before, observed) / 2)
        if self._messages is None:
            self._messages = Bucket(self._rate.value(now), now)
            self._messages.spend(now, self._messages.burst)
        else:
            self._messages.change(now, self._rate.value(now))

    def _recover(self, now: float) -> None:
        if self._rate is None:
            return
        value = self._rate.value(now)
        if value < self._rate.ceiling:
            if self._messages is not None:
                self._messages.change(now, value)
            return
        self._rate = None
        if self.shape.messages_per_minute is None:
            self._messages = None
        elif self._messages is not None:
            self._messages.change(now, self.shape.messages_per_minute / _MINUTE)

    def _count(self, now: float, messages: int) -> None:
        if now - self._counted_since >= _OBSERVED_SECONDS:
            self._observed = self._counted / (now - self._counted_since)
            self._counted = 0
            self._counted_since = now
        self._counted += messages

    def rate(self, now: float) -> float | None:
        """Messages a minute it may have now; None: unlimited."""
        self._recover(now)
        return None if self._messages is None else self._messages.rate * _MINUTE

    def slowed(self, now: float) -> bool:
        """Whether it has less than configured, because it asked for it."""
        return now < self._slowed_at + RECOVERY_SECONDS or now < self._paused_until

    def paused_for(self, now: float) -> float:
        """Seconds for which it is left alone; 0 for not."""
        return max(0.0, self._paused_until - now)

    def recovered_in(self, now: float) -> float:
        """Seconds until all is as configured again, without a complaint."""
        return max(0.0, self._slowed_at + RECOVERY_SECONDS - now)

    def forgive(self) -> None:
        """Somebody knows better: as configured from now on."""
        self._paused_until = self._slowed_at = -math.inf
        self._pauses = self._troubles = 0
        self.why = ""
        self._rate = None
        self._reshape(self.shape, self._counted_since, self._adaptive)


def _bucket(per_minute: int | None, now: float) -> Bucket | None:
    return None if per_minute is None else Bucket(per_minute / _MINUTE, now)
