from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from malote_relay.store.model import Queued

_ANY = Queued(
    id=1,
    message_id="m1",
    address="bia@shop.example",
    reverse_path="app@acme.example",
    account="app",
    size=100,
    eight_bit=False,
    smtputf8=False,
    received_at=1_800_000_000.0,
    released_at=1_800_000_000.0,
    attempts=0,
    next_attempt_at=1_800_000_000.0,
)


@pytest.fixture
def queued() -> Callable[..., Queued]:
    """A queued recipient with what the test does not care about filled in."""

    def make(**changes: object) -> Queued:
        return dataclasses.replace(_ANY, **changes)  # type: ignore[arg-type]  # any field

    return make
