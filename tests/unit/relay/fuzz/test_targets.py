"""Each fuzzing target for a moment, with other inputs each time; what was found before, and the seeds, always."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets

import pytest
from hypothesis import HealthCheck, given, seed, settings
from tests.fuzz.target import Target, all_targets

TARGETS = list(all_targets().values())
SEED = int(os.environ.get("MALOTE_FUZZ_SEED") or secrets.randbits(32))
"""Where the inputs begin. A failure names it, and the input as well."""


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_what_was_found_once_is_not_found_again(target: Target) -> None:
    for data in [b"", *target.seeds, *(path.read_bytes() for path in target.found)]:
        target.check(data)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_input_breaks_it(target: Target) -> None:
    search(target, SEED)


def test_a_failure_says_how_to_see_it_again() -> None:
    def check(data: bytes) -> None:
        assert b"@" not in data

    target = Target("fragile", check, words=(b"@",))
    found = []
    for _ in range(2):
        with pytest.raises(AssertionError) as caught:
            search(target, 7)
        found.append([note for note in caught.value.__notes__ if "MALOTE_FUZZ_SEED" in note])
    assert found[0] == found[1]
    (note,) = found[0]
    assert "MALOTE_FUZZ_SEED=7" in note
    assert "echo QA== | base64 -d > tests/fuzz/corpus/fragile/" in note


def search(target: Target, start: int) -> None:
    """Try inputs, the same for the same start. Raises what the check raises, with what repeats it."""
    broken = b""

    @settings(
        max_examples=200,
        deadline=None,
        derandomize=False,  # as hypothesis would where it finds itself in CI
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    @seed(start)
    @given(target.inputs())
    def holds(data: bytes) -> None:
        nonlocal broken
        try:
            target.check(data)
        except Exception:
            broken = data  # the last one is the shortest
            raise

    try:
        holds()
    except Exception as error:
        text = base64.b64encode(broken).decode()
        error.add_note(
            f"MALOTE_FUZZ_SEED={start} tries the same inputs again; to keep this one as a case:\n"
            f"mkdir -p tests/fuzz/corpus/{target.name}\n"
            f"echo {text} | base64 -d > tests/fuzz/corpus/{target.name}/{hashlib.sha256(broken).hexdigest()[:16]}"
        )
        raise
