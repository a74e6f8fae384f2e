"""The lines before destinations: who comes first goes first, once there is room and the rate allows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from malote_relay.delivery.destinations.destination import Destination, Key, Place


class Lines:
    """The destinations that somebody waits for. `ripe` is called when a rate may let somebody on."""

    def __init__(self, clock: Callable[[], float], ripe: Callable[[], None]) -> None:
        self._clock = clock
        self._ripe = ripe
        self._waiting: dict[Key, Destination] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def destinations(self) -> Iterable[Destination]:
        """Those that have a line."""
        return self._waiting.values()

    def join(self, destination: Destination, recipients: int) -> Place:
        """A place at the end of the line, for a message to so many recipients."""
        place = Place(asyncio.get_running_loop().create_future(), recipients)
        destination.line.append(place)
        destination.in_line(1)
        self._waiting[destination.key] = destination
        self.watch(destination)
        return place

    def leave(self, destination: Destination, place: Place) -> None:
        """Somebody waits no more, if they still did."""
        if place in destination.line:
            destination.line.remove(place)
            self._gone(destination)

    def next(self, destination: Destination) -> Place | None:
        """The first in line who still waits, taken out of it."""
        while destination.line:
            place = destination.line.popleft()
            self._gone(destination)
            if not place.granted.done():
                return place
        return None

    def watch(self, destination: Destination) -> None:
        """Look at the line again when its rate allows."""
        if destination.timer is None and (wait := destination.wait(self._clock(), destination.line[0].recipients)):
            destination.timer = asyncio.get_running_loop().call_later(wait, self._look, destination)

    def _look(self, destination: Destination) -> None:
        destination.timer = None
        self._ripe()

    def _gone(self, destination: Destination) -> None:
        destination.in_line(-1)
        if not destination.line:
            self._waiting.pop(destination.key, None)
