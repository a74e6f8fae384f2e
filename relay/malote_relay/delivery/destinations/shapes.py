"""Which limits are configured for whom: for every destination, for a provider's, for one that is named. Pure.

A destination is a domain, or a set of MX hosts. What is said of a narrower one holds in place of what is said of a
wider one, and a provider's own limits (`answers.providers`) lie between.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from malote_relay.config import ConfigError, RelayConfig, Shaping, ShapingLimits, TogetherLimits
from malote_relay.delivery.answers.providers import Providers, known

_MOST_FOUND = 5000


@dataclass(frozen=True, slots=True)
class Shape:
    """The configured limits of one destination, or of all of a provider's together; None: unlimited."""

    connections: int | None = None
    messages_per_minute: int | None = None
    recipients_per_minute: int | None = None
    messages_per_connection: int | None = None
    recipients_per_connection: int | None = None
    recipients_per_message: int | None = None

    def narrowed(self, limits: ShapingLimits | TogetherLimits) -> Shape:
        """With what `limits` says in its place."""
        said = {
            field: value for field in limits.__struct_fields__ if isinstance(value := getattr(limits, field), int)
        }
        return dataclasses.replace(self, **said)


@dataclass(frozen=True, slots=True)
class Shaped:
    """The limits that hold for a destination. `entry` is the configured destination that its domain is, or ""."""

    shape: Shape
    provider: str = ""
    together: Shape | None = None
    entry: str = ""


class Shapes:
    """Which limits hold for whom. Raises ConfigError for a provider that is not known."""

    def __init__(self, shaping: Shaping, connections: int, providers: Providers | None = None) -> None:
        self.adaptive = shaping.adaptive
        self._providers = providers or known()
        for name in shaping.providers:
            if name not in self._providers.by_name:
                raise ConfigError(
                    f"delivery.shaping.providers: {name!r} is no known provider: write one of "
                    f"{', '.join(self._providers.by_name)}, or name its MX hosts in delivery.shaping.destinations"
                )
        default = Shape(connections=connections).narrowed(shaping.default)
        self._default = Shaped(default)
        self._by_provider: dict[str, Shaped] = {}
        for name, provider in self._providers.by_name.items():
            shape = default.narrowed(provider.shaping)
            if default.connections is not None and shape.connections is not None:
                # Who allows little for everybody does not get more for a provider we know.
                shape = dataclasses.replace(shape, connections=min(shape.connections, default.connections))
            together = Shape().narrowed(provider.shaping.together)
            if configured := shaping.providers.get(name):
                shape, together = shape.narrowed(configured), together.narrowed(configured.together)
            self._by_provider[name] = Shaped(shape, name, None if together == Shape() else together)
        self._destinations = dict(shaping.destinations)
        self._found: dict[tuple[str, str], Shaped] = {}

    def of(self, domain: str, destination: str) -> Shaped:
        """The limits for mail to `domain`, whose MX hosts are those of `destination` (`Route.destination`)."""
        key = (domain if domain in self._destinations else "", destination)
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= _MOST_FOUND:
                self._found.clear()
            found = self._found[key] = self._find(domain, destination.split(","))
        return found

    def _find(self, domain: str, hosts: Sequence[str]) -> Shaped:
        shaped = self._by_provider.get(self._providers.of_any(hosts), self._default)
        if not self._destinations:
            return shaped
        if domain in self._destinations:
            return dataclasses.replace(shaped, shape=shaped.shape.narrowed(self._destinations[domain]), entry=domain)
        for name in _wider(hosts):
            if limits := self._destinations.get(name):
                return dataclasses.replace(shaped, shape=shaped.shape.narrowed(limits))
        return shaped


def shapes_of(config: RelayConfig) -> Shapes:
    """As the configuration says. Raises ConfigError."""
    return Shapes(config.delivery.shaping, config.delivery.max_connections_per_destination)


def _wider(hosts: Iterable[str]) -> Iterable[str]:
    """The hosts' names and those they are under, from the longest to the shortest."""
    names = {host.lower() for host in hosts}
    while names:
        longest = max(names, key=lambda name: (name.count("."), name))
        names.discard(longest)
        yield longest
        if wider := longest.partition(".")[2]:
            names.add(wider)
