"""What holds for all unit tests: none of them is about time, so none fails on a machine that is slow or stalls."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
