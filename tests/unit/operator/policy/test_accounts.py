"""Accounts that the relay has paused: seen in the Tenant, with reason and what ends it."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

from malote_operator.api.tenant import AccountPaused
from malote_operator.policy import tenant as policy
from malote_operator.policy.model import PodObservation

from . import worlds
from .tenants import HASH, IN_ORDER, decide, relay
from .worlds import NOW, condition, table

TWO = [{"name": "app"}, {"name": "news"}]
PLAN = worlds.plan(maxAccounts=9)
SINCE = NOW - dt.timedelta(hours=1)
BOUNCED = AccountPaused(since=SINCE, reason="9 of 100 recipients within 24 hours bounced: 9 %, and 5 % is the limit")


def paused(**pauses: AccountPaused) -> Any:
    pod = PodObservation("acme-relay-0", True, HASH, True, paused=pauses)
    handed = frozenset(("acme", name) for name in ("app", "news", *pauses))
    return replace(IN_ORDER, plan=PLAN, relay=relay(pod), credentials=handed)


def test_a_paused_account_is_shown_with_its_reason_and_the_others_still_send() -> None:
    decision = decide(paused(news=BOUNCED), accounts=TWO)
    assert [(one.name, one.paused) for one in decision.account_status] == [("app", None), ("news", BOUNCED)]
    conditions = table(decision.conditions)
    assert conditions["AccountsOpen"] == "False/Paused"
    assert conditions["Ready"] == "True/Sending"
    assert "but not news" in condition(decision.conditions, "Ready").message
    said = condition(decision.conditions, "AccountsOpen").message
    assert said == (
        "account news is paused since 2026-11-23 11:00 UTC, until the platform team resumes it"
        " (malote-relayctl resume news): 9 of 100 recipients within 24 hours bounced: 9 %, and 5 % is the limit"
    )


def test_with_every_account_paused_the_tenant_is_not_ready_and_waits_for_people() -> None:
    decision = decide(paused(app=BOUNCED))
    conditions = table(decision.conditions)
    assert conditions["Ready"] == "False/AccountsPaused"
    assert "9 of 100 recipients" in condition(decision.conditions, "Ready").message
    assert (conditions["Reconciling"], conditions["Stalled"]) == ("False/Settled", "False/Settled")
    assert conditions["SubmissionOpen"] == "True/Open"
    both = decide(paused(app=BOUNCED, news=BOUNCED), accounts=TWO)
    others_suspended = decide(paused(app=BOUNCED), accounts=[TWO[0], {"name": "news", "suspended": True}])
    for one in (both, others_suspended):
        assert table(one.conditions)["Ready"] == "False/AccountsPaused"


def test_a_pause_with_an_end_says_when_and_is_looked_at_then() -> None:
    until = NOW + dt.timedelta(hours=5)
    decision = decide(paused(app=AccountPaused(since=SINCE, until=until, reason="…")))
    assert "until 2026-11-23 17:00 UTC:" in condition(decision.conditions, "AccountsOpen").message
    assert decision.next_look == until


def test_while_no_relay_answers_a_pause_stays_as_it_was_shown() -> None:
    tenant = worlds.tenant()
    shown = policy.status(tenant, decide(paused(app=BOUNCED)), NOW)
    silent = replace(IN_ORDER, relay=relay(PodObservation("acme-relay-0", ready=True)))
    with_status = type(tenant)(metadata=tenant.metadata, spec=tenant.spec, status=shown)
    decision = decide(silent, with_status)
    assert decision.account_status[0].paused == BOUNCED
    assert decide(paused(), with_status).account_status[0].paused is None, "it answers: nobody is paused"
    assert table(decide(silent).conditions)["AccountsOpen"] == "Unknown/RelayUnavailable"


def test_accounts_that_are_not_the_tenants_are_not_shown() -> None:
    decision = decide(paused(gone=BOUNCED))
    assert [one.name for one in decision.account_status] == ["app"]
    assert table(decision.conditions)["AccountsOpen"] == "True/Open"


def test_many_paused_accounts_are_named_in_the_status_and_counted_in_the_message() -> None:
    names = [f"a{number}" for number in range(9)]
    decision = decide(paused(**dict.fromkeys(names, BOUNCED)), accounts=[{"name": name} for name in names])
    assert all(one.paused for one in decision.account_status)
    assert condition(decision.conditions, "AccountsOpen").message.endswith("; and 4 more")
