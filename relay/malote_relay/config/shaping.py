"""How much mail, how fast, goes to whom: limits for every destination, for providers, and for single destinations."""

from __future__ import annotations

from malote_relay.config.fields import Positive, Struct


class ShapingLimits(Struct, frozen=True, kw_only=True):
    """Limits of one destination (a set of MX hosts); what is not said is as in the next wider rule, or unlimited."""

    connections: Positive | None = None
    messages_per_minute: Positive | None = None
    recipients_per_minute: Positive | None = None
    messages_per_connection: Positive | None = None
    recipients_per_connection: Positive | None = None
    recipients_per_message: Positive | None = None


class TogetherLimits(Struct, frozen=True, kw_only=True):
    """Limits of all destinations of a provider together."""

    connections: Positive | None = None
    messages_per_minute: Positive | None = None
    recipients_per_minute: Positive | None = None


class ProviderShaping(ShapingLimits, frozen=True, kw_only=True):
    """Limits of each destination that a provider's hosts serve, and of all of them together."""

    together: TogetherLimits = TogetherLimits()


class Shaping(Struct, frozen=True, kw_only=True):
    """Limits from the widest to the narrowest rule; each says only what differs from the one before.

    `providers` by the names in delivery/answers/providers.toml, which has limits of its own for them; `destinations`
    by a recipient domain, or by the name that MX hosts have or are under. `adaptive`: less while a host asks for it.
    """

    adaptive: bool = True
    default: ShapingLimits = ShapingLimits()
    providers: dict[str, ProviderShaping] = {}
    destinations: dict[str, ShapingLimits] = {}
