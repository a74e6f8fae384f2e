"""The metrics that say how things stand: brought up to date before each scrape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from malote_relay.delivery.destinations.destination import DestinationState
from malote_relay.metrics import STANDINGS, Metrics
from malote_relay.quota import Usage, start_of
from malote_relay.store.model import QueueState

_SECONDS_PER_DAY = 86_400


def show(
    metrics: Metrics,
    now: float,
    *,
    usage: Usage,
    oldest_key: float | None,
    queue: QueueState,
    destinations: Sequence[DestinationState],
) -> None:
    """Set the gauges. `oldest_key` is when the oldest signing key was written, in epoch seconds like `now`."""
    metrics.hour_charged.set(usage.charged)
    metrics.hour_limit.set(usage.limit)
    metrics.hour_tolerance.set(usage.tolerance)
    metrics.hour_held.set(usage.held)
    metrics.clock_behind_seconds.set(max(0.0, start_of(usage.hour) - now))
    metrics.dkim_key_age_days.set(0.0 if oldest_key is None else max(0.0, now - oldest_key) / _SECONDS_PER_DAY)
    metrics.queue_messages.labels("ready").set(queue.ready)
    metrics.queue_messages.labels("deferred").set(queue.deferred)
    metrics.queue_messages.labels("held").set(queue.held)
    oldest = queue.oldest_received_at
    metrics.queue_oldest_seconds.set(0.0 if oldest is None else max(0.0, now - oldest))
    states = Counter(one.standing for one in destinations)
    for standing in STANDINGS:
        metrics.destinations.labels(standing).set(states[standing])
