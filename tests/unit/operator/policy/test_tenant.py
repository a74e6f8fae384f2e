"""What holds for a Tenant, from unknown plan to Ready, and back."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest

from malote_operator.policy import domain as domain_policy
from malote_operator.policy import plan as plan_policy
from malote_operator.policy.model import (
    DomainMemory,
    DomainWorld,
    PlanWorld,
    Problem,
    RelayObservation,
    TenantMemory,
    TenantWorld,
    Welcome,
)

from . import worlds
from .tenants import IN_ORDER, decide, pod, relay, verdict
from .worlds import KEY, NO_SPF, NOW, SETTINGS, condition, seen, table

KINDS = [
    "Ready", "Approved", "Paid", "DomainsVerified", "RelayAvailable", "SubmissionOpen", "AccountsOpen",
    "CredentialsSent", "EgressRecordsPublished", "Reconciling", "Stalled",
]  # fmt: skip
PRICE = {"currency": "BRL", "monthly": "99.90"}


def test_with_everything_in_order_the_tenant_is_ready() -> None:
    decision = decide()
    assert table(decision.conditions) == {
        "Ready": "True/Sending",
        "Approved": "True/Approved",
        "Paid": "True/FreePlan",
        "DomainsVerified": "True/Verified",
        "RelayAvailable": "True/Available",
        "SubmissionOpen": "True/Open",
        "AccountsOpen": "True/Open",
        "CredentialsSent": "True/Sent",
        "EgressRecordsPublished": "Unknown/NotProvisioned",
        "Reconciling": "False/Settled",
        "Stalled": "False/Settled",
    }
    assert decision.submission_open
    assert decision.endpoint is not None
    assert decision.endpoint.host == "acme.smtp.example.net"
    assert [(one.username, one.secret_name) for one in decision.account_status] == [("app@acme", "acme-smtp-app")]
    assert decision.credential_namespaces == ("acme",)


@pytest.mark.parametrize("world", [TenantWorld(), replace(TenantWorld(), plan=worlds.plan()), IN_ORDER])
def test_every_condition_is_set_on_every_visit_each_with_a_reason(world: TenantWorld) -> None:
    decided = decide(world).conditions
    assert [one.type for one in decided] == KINDS
    assert all(one.reason for one in decided)


@pytest.mark.parametrize(
    ("world", "spec", "reason", "words", "stalled"),
    [
        (replace(IN_ORDER, plan=None), {}, "PlanNotFound", "Plan smtp-1 does not exist", True),
        (IN_ORDER, {"suspend": {"reason": "Abuse"}}, "Suspended", "abuse was reported", False),
        (IN_ORDER, {"suspend": {"reason": "Payment"}}, "Suspended", "payment is overdue", False),
        (IN_ORDER, {"cancelAfter": "2026-11-22"}, "Cancelled", "the last day was 2026-11-22", False),
        (IN_ORDER, {"approval": {"approved": False}}, "ApprovalPending", "set spec.approval.approved", False),
        (replace(IN_ORDER, plan=worlds.plan(price=PRICE)), {}, "PaymentPending", "spec.billing.paidUntil", False),
        (replace(IN_ORDER, plan=worlds.plan(price=PRICE)), {"billing": {"paidUntil": "2026-11-22"}}, "PaymentPending",
         "paid until 2026-11-22", False),
        (IN_ORDER, {"accounts": []}, "NoAccount", "add one to spec.accounts", False),
        (replace(IN_ORDER, domains=()), {}, "NoDomain", "no SendingDomain names this tenant", False),
        (replace(IN_ORDER, domains=(verdict(spf=NO_SPF),)), {}, "RecordsPending", "acme.example: SPF: there", False),
    ],
)  # fmt: skip
def test_submission_stays_closed_and_the_reason_is_said(
    world: TenantWorld, spec: dict[str, Any], reason: str, words: str, stalled: bool
) -> None:
    decision = decide(replace(world, relay=relay(pod(is_open=False))), **spec)
    conditions = table(decision.conditions)
    assert not decision.submission_open
    assert decision.submission_reason
    assert decision.submission_reason.isascii()
    assert conditions["Ready"] == conditions["SubmissionOpen"] == f"False/{reason}"
    assert words in condition(decision.conditions, "Ready").message
    assert conditions["Stalled"].startswith(str(stalled))
    assert conditions["Reconciling"].startswith("False")


@pytest.mark.parametrize(
    ("spec", "price", "paid"),
    [
        ({}, None, "True/FreePlan"),
        ({"billing": {"paidUntil": "2026-11-23"}}, PRICE, "True/Paid"),
        ({"billing": {"paidUntil": "2027-11-23"}}, PRICE, "True/Paid"),
        ({"billing": {"paidUntil": "2026-11-22"}}, PRICE, "False/PaymentPending"),
        ({}, PRICE, "False/PaymentPending"),
        ({"billing": {"paidUntil": "2020-01-01"}}, None, "True/FreePlan"),
    ],
)
def test_a_tenant_has_paid_until_its_day_and_on_a_free_plan_always(
    spec: dict[str, Any], price: dict[str, str] | None, paid: str
) -> None:
    world = replace(IN_ORDER, plan=worlds.plan(price=price) if price else worlds.plan())
    assert table(decide(world, **spec).conditions)["Paid"] == paid


def test_the_last_paid_day_and_the_last_day_of_the_contract_end_at_midnight() -> None:
    last = dt.datetime(2026, 11, 23, 23, 59, 59, tzinfo=dt.UTC)
    midnight = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
    priced = replace(IN_ORDER, plan=worlds.plan(price=PRICE))
    for world, spec in (
        (priced, {"billing": {"paidUntil": "2026-11-23"}}),
        (IN_ORDER, {"cancelAfter": "2026-11-23"}),
    ):
        before = decide(world, now=last, **spec)
        assert before.submission_open
        assert before.next_look == midnight
        after = decide(world, now=midnight, **spec)
        assert not after.submission_open
        assert after.next_look is None


@pytest.mark.parametrize(("reason", "frozen"), [("Abuse", True), ("Payment", False), ("Request", False)])
def test_abuse_freezes_the_queue_and_the_other_reasons_let_it_drain(reason: str, frozen: bool) -> None:
    assert decide(suspend={"reason": reason}).delivery_frozen is frozen


def test_the_relay_is_made_at_approval_and_stays_when_approval_is_withdrawn() -> None:
    nothing = replace(IN_ORDER, relay=RelayObservation(), domains=())
    assert decide(nothing).relay_wanted
    unapproved = decide(nothing, approval={"approved": False})
    assert not unapproved.relay_wanted
    assert unapproved.endpoint is None
    assert unapproved.credential_namespaces == ()
    assert table(unapproved.conditions)["RelayAvailable"] == "False/NotProvisioned"
    withdrawn = decide(approval={"approved": False})
    assert withdrawn.relay_wanted
    assert not withdrawn.submission_open


def test_without_a_plan_only_the_configuration_is_written_and_the_status_keeps_what_it_said() -> None:
    tenant = worlds.tenant()
    decision = decide(replace(IN_ORDER, plan=None), tenant)
    assert decision.config_only
    assert not decision.relay_wanted
    assert not decision.submission_open
    assert decision.endpoint is tenant.status.endpoint
    assert not decide(replace(IN_ORDER, plan=None, relay=RelayObservation()), tenant).config_only
    assert not decide().config_only


def test_without_a_plan_abuse_still_freezes_and_is_the_reason_and_the_relay_is_seen_as_it_is() -> None:
    closed = replace(IN_ORDER, plan=None, relay=relay(pod(is_open=False)))
    decision = decide(closed, suspend={"reason": "Abuse"})
    assert decision.delivery_frozen
    assert "abuse was reported" in decision.submission_reason
    conditions = table(decision.conditions)
    assert conditions["Ready"] == conditions["SubmissionOpen"] == "False/Suspended"
    assert conditions["RelayAvailable"] == "True/Available"
    assert conditions["Stalled"] == "True/PlanNotFound"


def test_submission_counts_as_open_for_as_long_as_a_pod_accepts_although_it_should_not() -> None:
    decision = decide(replace(IN_ORDER, memory=TenantMemory()), suspend={"reason": "Abuse"})
    conditions = table(decision.conditions)
    assert conditions["SubmissionOpen"] == "True/Closing"
    assert conditions["Ready"] == "False/Suspended"
    assert not decision.welcome_due
    gone = replace(IN_ORDER, relay=relay(pod(ready=False)))
    assert table(decide(gone, suspend={"reason": "Abuse"}).conditions)["SubmissionOpen"] == "False/Suspended"


def test_a_relay_that_does_not_answer_is_not_said_to_be_closed() -> None:
    silent = replace(IN_ORDER, relay=relay(replace(pod(is_open=False), config_hash="")))
    decision = decide(silent, suspend={"reason": "Abuse"})
    decided = condition(decision.conditions, "SubmissionOpen")
    assert (decided.status.value, decided.reason) == ("Unknown", "RelayUnavailable")
    assert "nobody knows whether it still takes mail" in decided.message
    assert table(decision.conditions)["Ready"] == "False/Suspended"


def test_a_relay_that_does_not_close_because_it_refuses_its_configuration_says_so() -> None:
    stuck = replace(IN_ORDER, relay=relay(pod(error="relay.json: no such mode")))
    conditions = decide(stuck, suspend={"reason": "Abuse"}).conditions
    decided = next(one for one in conditions if one.type == "SubmissionOpen")
    assert decided.reason == "Closing"
    assert "relay.json: no such mode" in decided.message


def test_more_accounts_than_the_plan_allows_are_left_out_and_the_rest_goes_on_sending() -> None:
    decision = decide(accounts=[{"name": "app"}, {"name": "news"}, {"name": "extra"}])
    assert decision.submission_open
    assert [account.name for account in decision.accounts] == ["app"]
    conditions = table(decision.conditions)
    assert conditions["Ready"] == "False/TooManyAccounts"
    assert conditions["SubmissionOpen"] == "True/Open"
    assert conditions["Stalled"] == "True/TooManyAccounts"
    assert "left out: news, extra" in condition(decision.conditions, "Ready").message


@pytest.mark.parametrize(
    ("observed", "reason"),
    [
        (RelayObservation(), "RelayUnavailable"),
        (relay(pod(ready=False), message="0/1 nodes are available"), "RelayUnavailable"),
        (relay(pod("b" * 64)), "Loading"),
        (relay(pod(is_open=False)), "Loading"),
        (relay(pod(error="relay.json: no such key")), "ConfigError"),
    ],
)
def test_submission_counts_as_open_only_when_the_pod_has_loaded_what_says_so(
    observed: RelayObservation, reason: str
) -> None:
    decision = decide(replace(IN_ORDER, relay=observed))
    conditions = table(decision.conditions)
    assert decision.submission_open
    assert conditions["SubmissionOpen"] == f"False/{reason}"
    assert conditions["Ready"].startswith("False")
    assert conditions["Reconciling"].startswith("True")


@pytest.mark.parametrize(
    ("observed", "says"),
    [
        (relay(), "kubectl describe statefulset acme-relay -n malote-relays"),
        (relay(pod(ready=False)), "kubectl describe pod acme-relay-0 -n malote-relays"),
        (relay(pod(ready=False), message="acme-relay-0: Unschedulable: 0/1 nodes"), "0/1 nodes"),
    ],
)
def test_a_relay_that_does_not_come_up_says_why_or_where_to_look(observed: RelayObservation, says: str) -> None:
    conditions = decide(replace(IN_ORDER, relay=observed)).conditions
    for kind in ("Ready", "RelayAvailable", "SubmissionOpen"):
        assert says in condition(conditions, kind).message


def test_a_relay_that_runs_and_cannot_be_asked_is_not_said_to_load_its_configuration() -> None:
    """As behind a NetworkPolicy of the operator's own namespace."""
    decided = condition(decide(replace(IN_ORDER, relay=relay(pod("", is_open=False)))).conditions, "SubmissionOpen")
    assert decided.reason == "RelayUnavailable"
    assert "acme-relay-0 does not answer the operator at port 9090" in decided.message


def test_a_relay_that_accepts_while_it_loads_a_changed_configuration_keeps_its_tenant_ready_for_a_while() -> None:
    written = NOW - dt.timedelta(seconds=9)
    loading = replace(
        IN_ORDER, relay=relay(pod("b" * 64)), config_written_at=written, memory=TenantMemory(welcome_sent_at=None)
    )
    decision = decide(loading)
    conditions = table(decision.conditions)
    assert conditions["Ready"] == "True/Sending"
    assert conditions["SubmissionOpen"] == "True/Open"
    assert conditions["Reconciling"] == "True/Loading"
    assert not decision.welcome_due
    assert decision.next_look == written + dt.timedelta(seconds=10)

    late = decide(replace(loading, config_written_at=NOW - dt.timedelta(seconds=10)))
    assert table(late.conditions)["Ready"] == "False/Loading"
    assert late.next_look is None

    settled = decide(replace(loading, relay=relay(pod())))
    assert table(settled.conditions)["Reconciling"] == "False/Settled"
    assert settled.next_look is None


@pytest.mark.parametrize(
    "observed", [relay(pod("b" * 64, is_open=False)), relay(pod("b" * 64, error="no")), relay(pod("b", ready=False))]
)
def test_a_relay_that_does_not_accept_is_not_ready_however_fresh_its_configuration(
    observed: RelayObservation,
) -> None:
    decision = decide(replace(IN_ORDER, relay=observed, config_written_at=NOW))
    assert table(decision.conditions)["Ready"].startswith("False")


@pytest.mark.parametrize("last", ["9999-12-31", "9999-12-30", "0001-01-01"])
def test_the_ends_of_the_calendar_are_dates_like_any_other(last: str) -> None:
    priced = replace(IN_ORDER, plan=worlds.plan(price=PRICE))
    decision = decide(priced, billing={"paidUntil": last}, cancelAfter=last)
    assert decision.submission_open is last.startswith("9")
    eve = dt.datetime(9999, 12, 31, tzinfo=dt.UTC)
    assert decision.next_look == (eve if last == "9999-12-30" else None)


def test_why_no_domain_is_verified_is_told_of_those_that_could_be() -> None:
    surplus = [replace(verdict(spf=NO_SPF), domain=f"a{n}.example", accepted=False, conditions=()) for n in range(5)]
    decision = decide(replace(IN_ORDER, domains=(*surplus, verdict(spf=NO_SPF))))
    assert condition(decision.conditions, "DomainsVerified").message.startswith("acme.example: SPF")


def test_a_configuration_still_to_be_loaded_is_progress_even_when_submission_is_closed() -> None:
    decision = decide(replace(IN_ORDER, domains=(), relay=relay(pod("b" * 64))))
    assert table(decision.conditions)["Reconciling"].startswith("True")


def test_ready_waits_for_the_credentials_but_not_for_namespaces_that_do_not_exist() -> None:
    without = replace(IN_ORDER, credentials=frozenset())
    decision = decide(without)
    assert table(decision.conditions)["Ready"] == "False/CredentialsPending"
    assert table(decision.conditions)["Reconciling"] == "True/CredentialsPending"
    absent = decide(replace(without, absent_namespaces=frozenset({"acme"})))
    assert table(absent.conditions)["Ready"] == "True/Sending"
    assert "when namespace acme exists" in condition(absent.conditions, "Ready").message


def test_the_welcome_mail_is_due_once_submission_is_open_and_never_twice() -> None:
    unsent = replace(IN_ORDER, memory=TenantMemory())
    assert decide(unsent).welcome_due
    assert not decide().welcome_due
    assert not decide(replace(unsent, relay=relay(pod("b" * 64)))).welcome_due
    assert not decide(replace(unsent, credentials=frozenset())).welcome_due
    unable = decide(replace(unsent, welcome=Welcome(configured=False)))
    assert not unable.welcome_due
    assert table(unable.conditions)["CredentialsSent"] == "False/MailNotConfigured"
    assert table(unable.conditions)["Ready"] == "True/Sending"
    failed = decide(replace(unsent, welcome=Welcome(configured=True, failure="connection refused")))
    assert failed.welcome_due
    assert condition(failed.conditions, "CredentialsSent").message == "connection refused"


def test_a_domain_in_its_grace_period_keeps_submission_open() -> None:
    world = DomainWorld(
        tenant=worlds.tenant(),
        plan=worlds.plan(),
        ranking=worlds.ranked(worlds.domain()),
        claim=worlds.claim(),
        keys=(KEY,),
        observation=seen(spf=NO_SPF),
        memory=DomainMemory(verified_at=NOW - dt.timedelta(days=9)),
    )
    in_grace = domain_policy.decide(worlds.domain(), world, SETTINGS, NOW)
    decision = decide(replace(IN_ORDER, domains=(in_grace,)))
    assert decision.submission_open
    assert table(decision.conditions)["DomainsVerified"] == "True/GracePeriod"


def test_domains_that_are_not_the_tenants_business_stay_out_of_its_configuration() -> None:
    world = DomainWorld(tenant=worlds.tenant(), plan=worlds.plan())
    stranger = domain_policy.decide(worlds.domain("evil.example", namespace="other"), world, SETTINGS, NOW)
    decision = decide(replace(IN_ORDER, domains=(verdict(), stranger)))
    assert [one.domain for one in decision.domains] == ["acme.example"]


@pytest.mark.parametrize(("permanent", "stalled", "reconciling"), [(True, "True", "False"), (False, "False", "True")])
def test_what_could_not_be_done_shows_on_top(permanent: bool, stalled: str, reconciling: str) -> None:
    problem = Problem("NameConflict", "Service acme-relay is somebody else's", permanent)
    conditions = table(decide(replace(IN_ORDER, problems=(problem,))).conditions)
    assert conditions["Ready"] == "False/NameConflict"
    assert conditions["Stalled"].startswith(stalled)
    assert conditions["Reconciling"].startswith(reconciling)
    assert conditions["SubmissionOpen"] == "True/Open"


def test_what_to_render_does_not_depend_on_how_the_relay_is() -> None:
    first = decide(replace(IN_ORDER, relay=RelayObservation(), wanted_hash="", credentials=frozenset()))
    second = decide()
    for part in ("relay_wanted", "submission_open", "submission_reason", "delivery_frozen", "accounts", "domains",
                 "credential_namespaces", "endpoint", "account_status"):  # fmt: skip
        assert getattr(first, part) == getattr(second, part)


def test_a_plan_says_how_many_use_it() -> None:
    decision = plan_policy.decide(worlds.plan(), PlanWorld(tenants=2))
    status = plan_policy.status(worlds.plan(), decision, NOW)
    assert status.tenants == 2
    assert table(decision.conditions) == {
        "Ready": "True/InUse",
        "Reconciling": "False/Settled",
        "Stalled": "False/Settled",
    }
