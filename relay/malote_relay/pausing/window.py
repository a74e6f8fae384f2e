"""What became of an account's mail within the last hours: counts in spans of a quarter of an hour. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SPAN_SECONDS: Final = 900.0


@dataclass(frozen=True, slots=True)
class Tally:
    """Recipients by what became of them."""

    delivered: int = 0
    bounced: int = 0
    complained: int = 0

    @property
    def ended(self) -> int:
        """Those that were delivered or bounced."""
        return self.delivered + self.bounced


class Window:
    """The counts of one account. A clock that is set back loses nothing: later spans stay until they are old."""

    def __init__(self) -> None:
        self._spans: dict[int, list[int]] = {}

    def count(self, at: float, *, delivered: int = 0, bounced: int = 0, complained: int = 0) -> None:
        """Add to the span of that time."""
        self.count_span(int(at // SPAN_SECONDS), delivered, bounced, complained)

    def count_span(self, span: int, delivered: int, bounced: int, complained: int) -> None:
        """Add to a span by its number."""
        counts = self._spans.setdefault(span, [0, 0, 0])
        counts[0] += delivered
        counts[1] += bounced
        counts[2] += complained

    def tally(self, now: float, hours: int) -> Tally:
        """What was counted within the last hours, to the span; what is older is dropped."""
        oldest = int((now - hours * 3600) // SPAN_SECONDS)
        for span in [span for span in self._spans if span < oldest]:
            del self._spans[span]
        counts = [max(0, sum(column)) for column in zip(*self._spans.values(), strict=True)]
        return Tally(*counts)
