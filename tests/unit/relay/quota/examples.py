"""How long property tests search: seconds and the same examples by default, with MALOTE_EXAMPLES (a factor) as long
as one likes and other examples each time."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings


def search(examples: int, steps: int) -> settings:
    """Settings for a state machine."""
    factor = float(os.environ.get("MALOTE_EXAMPLES", "1"))
    return settings(
        max_examples=max(1, int(examples * factor)),
        stateful_step_count=steps,
        derandomize="MALOTE_EXAMPLES" not in os.environ,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
