"""A relay that takes in what comes back after delivery."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.relay.bounces.reports import FEEDBACK, HOST

from malote_relay.bounces.intake import Consequence
from malote_relay.config import KEYS_DIRECTORY, Bounces, Domain, Listen
from malote_relay.store.model import StoreError


class Acted:
    """Who acts on what was told; or cannot, while `broken`."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Consequence]] = []
        self.broken = False

    async def bounced(self, bounce: Consequence) -> None:
        self._note("bounced", bounce)

    async def complained(self, complaint: Consequence) -> None:
        self._note("complained", complaint)

    def _note(self, what: str, consequence: Consequence) -> None:
        if self.broken:
            raise StoreError("not now")
        self.told.append((what, consequence))


@pytest.fixture
async def relay(site: Any, start: Callable[[], Any]) -> Any:
    """A relay with return paths for acme.example, that takes bounces in."""
    (site.directory / KEYS_DIRECTORY / "bounces.key").write_bytes(b"a secret of the tenant's own")
    keys = site.config.domains[0].keys
    site.change(
        domains=(Domain(name="acme.example", sending=True, keys=keys, return_path=HOST),),
        bounces=Bounces(secrets=("bounces.key",), feedback_addresses=(FEEDBACK,), max_message_bytes=400_000),
        listen=Listen(address="127.0.0.1", submission_port=0, submissions_port=0, observe_port=0, bounce_port=0),
    )
    running = await start()
    running.acted = running.relay._intake.acts = Acted()
    return running
