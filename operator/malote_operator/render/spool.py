"""How much room a relay's spool needs, derived from its plan."""

from __future__ import annotations

import math

from malote_operator.api.plan import PlanSpec

EVENT_BYTES = 590
"""A recipient's two events with their indexes in SQLite (measured)."""
QUEUE_HOURS = 6
"""The queue may hold this many full hours of mail, as when a large destination is down, …"""
QUEUE_MESSAGE_BYTES = 50_000
"""… of this average size, …"""
LARGE_MESSAGES = 20
"""… and this many of the largest size allowed."""

_GIBIBYTE = 2**30


def size(plan: PlanSpec) -> str:
    """A Kubernetes quantity in whole gibibytes: events for the retention, plus the queue."""
    events = plan.messages_per_hour * 24 * plan.report_retention_days * EVENT_BYTES
    queue = plan.messages_per_hour * QUEUE_HOURS * QUEUE_MESSAGE_BYTES + LARGE_MESSAGES * plan.max_message_bytes
    return f"{math.ceil((events + queue) / _GIBIBYTE)}Gi"
