"""Events about pauses: once when one begins, once when it ends."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any

import msgspec
from tests.unit.operator.policy import worlds

from malote_operator.api.tenant import AccountPaused, AccountStatus, TenantStatus
from malote_operator.reconcile.pauses import tell_of_pauses

PAUSE = AccountPaused(since=worlds.NOW, reason="9 of 100 bounced")
AGAIN = AccountPaused(since=worlds.NOW + dt.timedelta(days=1), reason="8 of 100 bounced")


def status(pause: AccountPaused | None) -> TenantStatus:
    return TenantStatus(accounts=(AccountStatus(name="app", username="app@acme", secret_name="s", paused=pause),))


async def told(before: TenantStatus, after: TenantStatus) -> list[tuple[str, str, bool]]:
    events: list[tuple[str, str, bool]] = []

    class Events:
        async def record(self, regarding: Any, *, reason: str, note: str, action: str, warning: bool) -> None:
            assert regarding["metadata"]["name"] == "acme"
            events.append((reason, note, warning))

    tenant = msgspec.structs.replace(worlds.tenant(), status=before)
    await tell_of_pauses(SimpleNamespace(events=Events()), tenant, after)  # type: ignore[arg-type]  # only events
    return events


async def test_a_pause_is_told_when_it_begins_with_its_reason() -> None:
    expected = [("AccountPaused", "account app: 9 of 100 bounced", True)]
    assert await told(TenantStatus(), status(PAUSE)) == expected
    assert await told(status(None), status(PAUSE)) == expected
    assert await told(status(PAUSE), status(AGAIN)) == [("AccountPaused", "account app: 8 of 100 bounced", True)]


async def test_it_is_told_when_it_has_ended_and_not_in_between() -> None:
    assert await told(status(PAUSE), status(PAUSE)) == []
    assert await told(status(None), status(None)) == []
    (event,) = await told(status(PAUSE), status(None))
    assert event == ("AccountResumed", "account app may send again; it was paused: 9 of 100 bounced", False)
