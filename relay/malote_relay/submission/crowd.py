"""How many sessions there are, in all and of each client's address: what the limits on sessions are held against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable


class Crowd:
    """Counts sessions. `told` hears of each change made here; changes made elsewhere come by `note`."""

    def __init__(self, told: Callable[[str, int], None] | None = None) -> None:
        self.total = 0
        self._by_client: Counter[str] = Counter()
        self._told = told

    def of(self, client: str) -> int:
        """How many sessions a client's address has."""
        return self._by_client[client]

    def enter(self, client: str) -> None:
        """One more."""
        self._change(client, 1)

    def leave(self, client: str) -> None:
        """One less."""
        self._change(client, -1)

    def note(self, client: str, change: int) -> None:
        """So many more, or less, in other processes that listen on the same ports."""
        self.total += change
        self._by_client[client] += change
        if not self._by_client[client]:
            del self._by_client[client]

    def _change(self, client: str, change: int) -> None:
        self.note(client, change)
        if self._told is not None:
            self._told(client, change)
