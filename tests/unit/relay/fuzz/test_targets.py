"""Each fuzzing target for a moment; what was found before, and the seeds, always."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from tests.fuzz.target import Target, all_targets

TARGETS = list(all_targets().values())


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_what_was_found_once_is_not_found_again(target: Target) -> None:
    for data in [b"", *target.seeds, *(path.read_bytes() for path in target.found)]:
        target.check(data)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_input_breaks_it(target: Target) -> None:
    @settings(
        max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(target.inputs())
    def holds(data: bytes) -> None:
        target.check(data)

    holds()
