"""A token bucket: so much a second, and a second's worth at once. Pure: time (monotonic seconds) is passed in."""

from __future__ import annotations


class Bucket:
    """Tokens that come in at `rate` a second: what was spent is never more than what came in and a second's worth.

    One expense may be larger than the bucket: it empties it and leaves a debt.
    """

    __slots__ = ("_at", "_tokens", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._at = now
        self._tokens = self.burst

    @property
    def burst(self) -> float:
        """How much may be spent at once."""
        return max(1.0, self.rate)

    def change(self, now: float, rate: float) -> None:
        """Fill at another rate from now on."""
        self._fill(now)
        self.rate = rate
        self._tokens = min(self._tokens, self.burst)

    def wait(self, now: float, amount: float = 1.0) -> float:
        """Seconds until `amount` may be spent."""
        self._fill(now)
        missing = min(amount, self.burst) - self._tokens
        return missing / self.rate if missing > 1e-9 else 0.0

    def spend(self, now: float, amount: float = 1.0) -> None:
        """Spend it; or, when negative, give it back."""
        self._fill(now)
        self._tokens = min(self.burst, self._tokens - amount)

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
            self._at = now
