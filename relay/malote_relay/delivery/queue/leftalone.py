"""The domains that are left alone for now, as their destinations' state demands: what waits for them stays stored."""

from __future__ import annotations

import time
from collections.abc import Callable

from malote_relay.delivery.destinations.destination import Held


class LeftAlone:
    """Why, and until when by the `monotonic` clock, domains are left alone."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._held: dict[str, tuple[str, float]] = {}

    def __contains__(self, domain: str) -> bool:
        return domain in self._held

    def add(self, domain: str, held: Held) -> None:
        """Leave it alone for so long, or for longer if that was said before."""
        until = self._monotonic() + held.seconds
        if self._held.get(domain, ("", 0.0))[1] < until:
            self._held[domain] = (held.words, until)

    def domains(self) -> list[str]:
        """Those that are left alone, once those whose time has come are not any more."""
        if self._held:
            instant = self._monotonic()
            self._held = {domain: held for domain, held in self._held.items() if held[1] > instant}
        return list(self._held)

    def soonest(self) -> float:
        """Seconds until the time of the first comes; there must be one."""
        return min(until for _, until in self._held.values()) - self._monotonic()

    def why(self, domain: str) -> Held | None:
        """Why, and for how many seconds more; None when it is not."""
        words, until = self._held.get(domain, ("", 0.0))
        left = until - self._monotonic()
        return Held(words, left) if words and left > 0 else None

    def forget(self, domain: str) -> None:
        """Its time has come, or somebody knows better."""
        self._held.pop(domain, None)

    def clear(self) -> None:
        """Forget all of it."""
        self._held.clear()
