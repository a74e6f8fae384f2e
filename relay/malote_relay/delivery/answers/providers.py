"""Who runs a mail host: known from the names of MX hosts, kept as data (providers.toml) with the limits that fit.

By these names rules about replies (`rules`) say whose words they know, and the configuration whose limits it sets.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from malote_relay.config.shaping import ProviderShaping, ShapingLimits, TogetherLimits

FILE: Final = Path(__file__).with_name("providers.toml")

_SUFFIX: Final = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")


class BadProviders(ValueError):
    """The data cannot be used; the message says which file, which provider and why."""


class Together(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of all destinations together, as in the file."""

    connections: int | None = None
    messages_per_minute: int | None = None
    recipients_per_minute: int | None = None


class Provider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file. `source` says where the limits come from."""

    suffixes: tuple[str, ...]
    source: str
    connections: int | None = None
    messages_per_minute: int | None = None
    recipients_per_minute: int | None = None
    messages_per_connection: int | None = None
    recipients_per_connection: int | None = None
    recipients_per_message: int | None = None
    together: Together = Together()

    @property
    def shaping(self) -> ProviderShaping:
        """Its limits, in the configuration's form."""
        own = {field: getattr(self, field) for field in ShapingLimits.__struct_fields__}
        return ProviderShaping(**own, together=TogetherLimits(**msgspec.structs.asdict(self.together)))


class Providers:
    """Known providers by name, and found by host."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self.by_name = dict(providers)
        self._by_suffix = {suffix: name for name, one in providers.items() for suffix in one.suffixes}

    def of(self, host: str) -> str:
        """Who runs a mail host, by its name: "" when unknown. `host` may carry an address: ``mx.example[::1]``."""
        name = host.partition("[")[0].rstrip(".").lower()
        while name:
            if found := self._by_suffix.get(name):
                return found
            name = name.partition(".")[2]
        return ""

    def of_any(self, hosts: Iterable[str]) -> str:
        """The provider of the first host that has one."""
        return next((found for host in hosts if (found := self.of(host))), "")


def load(path: Path) -> Providers:
    """Read a file of providers. Raises BadProviders, OSError."""
    try:
        found = msgspec.convert(tomllib.loads(path.read_text("utf-8")), dict[str, Provider])
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BadProviders(f"{path.name}: {error}") from error
    for name, provider in found.items():
        for suffix in provider.suffixes:
            if not _SUFFIX.fullmatch(suffix):
                raise BadProviders(f"{path.name}: provider {name}: {suffix!r} is no lower-case host name")
    return Providers(found)


@functools.cache
def known() -> Providers:
    """Those in the file that comes with the relay."""
    return load(FILE)
