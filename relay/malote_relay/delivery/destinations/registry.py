"""The destinations that are known, each with its limits; one is forgotten when nothing is lost with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from malote_relay.delivery.destinations.destination import Destination, DestinationState, Key
from malote_relay.delivery.destinations.shapes import Shape, Shaped, Shapes
from malote_relay.delivery.destinations.shaping import Shaper
from malote_relay.delivery.route import Route

_SWEEP_AT = 1000


class Destinations:
    """Destinations by their keys. `appears_as` is who we are to them; `clock` gives monotonic seconds."""

    def __init__(self, shapes: Shapes, appears_as: str, clock: Callable[[], float]) -> None:
        self._shapes = shapes
        self.appears_as = appears_as
        self._clock = clock
        self._known: dict[Key, Destination] = {}
        self._providers: dict[tuple[str, str], Shaper] = {}
        """What destinations of a provider have together, where it counts so."""
        self._sweep_at = _SWEEP_AT

    def __iter__(self) -> Iterator[Destination]:
        return iter(self._known.values())

    def reshape(self, shapes: Shapes) -> None:
        """Give them their new limits; whether others count with one of them is decided once."""
        self._shapes = shapes
        now = self._clock()
        for destination in self._known.values():
            shaped = shapes.of(destination.key.entry, destination.key.destination)
            destination.shaped = shaped
            destination.shapers[0].reshape(shaped.shape, now, adaptive=shapes.adaptive)
            for shaper in destination.shapers[1:]:
                shaper.reshape(shaped.together or Shape(), now, adaptive=shapes.adaptive)

    def shaped(self, route: Route) -> Shaped:
        """The limits for mail that goes this way."""
        return self._shapes.of(route.domain, route.destination)

    def known(self, route: Route) -> Destination | None:
        """The destination of this way, if there is anything to know about it."""
        return self._known.get(self._key(route, self.shaped(route)))

    def of(self, route: Route, shaped: Shaped) -> Destination:
        """The destination of this way, which has those limits."""
        key = self._key(route, shaped)
        destination = self._known.get(key)
        if destination is None:
            now = self._clock()
            if len(self._known) >= self._sweep_at:
                self._known = {k: d for k, d in self._known.items() if not d.forgettable(now)}
                self._sweep_at = max(_SWEEP_AT, 2 * len(self._known))
            shapers = [Shaper(shaped.shape, now, adaptive=self._shapes.adaptive)]
            if shaped.together is not None:
                common = (key.source_address, shaped.provider)
                if common not in self._providers:
                    self._providers[common] = Shaper(shaped.together, now, adaptive=self._shapes.adaptive)
                shapers.append(self._providers[common])
            destination = self._known[key] = Destination(key, shaped, tuple(shapers))
        return destination

    def states(self) -> list[DestinationState]:
        """Those that have a connection, a line, or a reason to be left alone."""
        now = self._clock()
        return [one.state(now) for one in self._known.values() if not one.forgettable(now)]

    def forget(self) -> None:
        """Know none any more."""
        self._known.clear()

    def _key(self, route: Route, shaped: Shaped) -> Key:
        return Key(self.appears_as, route.destination, shaped.entry)
