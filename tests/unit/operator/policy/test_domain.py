"""What holds for a SendingDomain, from unknown tenant to expired grace period."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from malote_operator.api.sendingdomain import RecordState, SendingDomain
from malote_operator.dns.model import Answer, Observation, Outcome
from malote_operator.policy import domain as policy
from malote_operator.policy.model import DomainDecision, DomainMemory, DomainWorld, Problem
from malote_operator.settings import Settings

from . import worlds
from .worlds import FAILED, KEY, NO_DKIM, NO_DMARC, NO_SPF, NOW, SETTINGS, condition, seen, table

KINDS = {"Ready", "Accepted", "SPFValid", "DKIMValid", "DMARCValid", "Verified", "Reconciling", "Stalled"}
IN_ORDER = DomainWorld(
    tenant=worlds.tenant(), plan=worlds.plan(), claim=worlds.claim(), keys=(KEY,), observation=seen()
)
TAKEN = replace(IN_ORDER, claim=worlds.claim("uid-9", "globex"))
HOUR = dt.timedelta(hours=1)


def decide(
    world: DomainWorld = IN_ORDER,
    domain: SendingDomain | None = None,
    settings: Settings = SETTINGS,
    now: dt.datetime = NOW,
) -> DomainDecision:
    domain = domain or worlds.domain()
    world = world if world.ranking.order else replace(world, ranking=worlds.ranked(domain))
    return policy.decide(domain, world, settings, now)


def judged(domain: SendingDomain, decision: DomainDecision, now: dt.datetime = NOW) -> SendingDomain:
    """The domain with the status that followed from the decision."""
    return msgspec.structs.replace(domain, status=policy.status(domain, decision, now))


def test_all_three_records_and_the_claim_make_a_domain_verified() -> None:
    decision = decide()
    assert decision.verified
    assert decision.sending
    assert decision.refusal == ""
    assert decision.memory == DomainMemory(verified_at=NOW)
    assert table(decision.conditions) == {
        "Ready": "True/Verified",
        "Accepted": "True/Accepted",
        "SPFValid": "True/Found",
        "DKIMValid": "True/Found",
        "DMARCValid": "True/Found",
        "Verified": "True/AllRecordsFound",
        "Reconciling": "False/Settled",
        "Stalled": "False/Settled",
    }


@pytest.mark.parametrize(
    "world",
    [
        DomainWorld(),
        replace(IN_ORDER, keys=()),
        replace(IN_ORDER, observation=None),
        replace(IN_ORDER, observation=seen(**FAILED)),
        IN_ORDER,
    ],
)
def test_every_condition_is_set_on_every_visit_each_with_a_reason(world: DomainWorld) -> None:
    decided = decide(world).conditions
    assert {one.type for one in decided} == KINDS
    assert len(decided) == len(KINDS)
    assert all(one.reason for one in decided)


@pytest.mark.parametrize(
    ("world", "domain", "reason", "words", "stalled"),
    [
        (replace(IN_ORDER, tenant=None), worlds.domain(), "TenantNotFound", "Tenant acme does not exist", True),
        (IN_ORDER, worlds.domain(namespace="other"), "NamespaceNotAllowed", "does not list namespace other", True),
        (replace(IN_ORDER, plan=None), worlds.domain(), "PlanNotFound", "Plan smtp-1 of Tenant acme", True),
        (TAKEN, worlds.domain(), "DomainTaken", "another tenant", True),
        (IN_ORDER, worlds.domain(dkim={"publish": "CNAME"}), "CNAMENotOffered", "publish: TXT", True),
        (
            replace(IN_ORDER, ranking=worlds.ranked(worlds.domain(uid="uid-0", age=99), worlds.domain())),
            worlds.domain(),
            "DuplicateDomain",
            "declares acme.example already",
            True,
        ),
        (
            replace(
                IN_ORDER, ranking=worlds.ranked(worlds.domain("first.example", uid="uid-0", age=99), worlds.domain())
            ),
            worlds.domain(),
            "TooManyDomains",
            "allows 1 sending domain and first.example came first",
            True,
        ),
    ],
)  # fmt: skip
def test_a_domain_is_not_accepted(
    world: DomainWorld, domain: SendingDomain, reason: str, words: str, stalled: bool
) -> None:
    decision = decide(world, domain)
    assert not decision.accepted
    assert not decision.sending
    assert not decision.wants_key
    assert not decision.wants_claim
    assert decision.records == ()
    assert decision.next_check is None
    assert decision.refusal.isascii()
    conditions = table(decision.conditions)
    assert conditions["Ready"] == conditions["Accepted"] == f"False/{reason}"
    assert conditions["SPFValid"] == "Unknown/NotAccepted"
    assert conditions["Reconciling"].startswith("False")
    assert conditions["Stalled"].startswith(str(stalled))
    assert words in condition(decision.conditions, "Ready").message


def test_the_refusal_names_no_other_tenant() -> None:
    decision = decide(TAKEN)
    shown = decision.refusal + "".join(one.message for one in decision.conditions)
    assert "globex" not in shown


def test_of_too_many_domains_the_later_ones_are_left_out_by_age_then_uid() -> None:
    a, b, c = (worlds.domain(f"{uid}.example", uid=uid, age=age) for uid, age in (("c", 9), ("a", 5), ("b", 5)))
    world = replace(
        IN_ORDER, ranking=worlds.ranked(c, b, a), plan=worlds.plan(maxDomains=2), claim=None, observation=None
    )
    assert [decide(world, one).accepted for one in (a, b, c)] == [True, True, False]


def test_domains_outside_the_namespaces_or_going_away_do_not_count() -> None:
    outside = worlds.domain("outside.example", uid="uid-0", namespace="other", age=99)
    going = worlds.domain("going.example", uid="uid-00", age=99)
    going = msgspec.structs.replace(going, metadata=msgspec.structs.replace(going.metadata, deletion_timestamp=NOW))
    assert decide(replace(IN_ORDER, ranking=worlds.ranked(outside, going, worlds.domain()))).accepted


def test_a_domain_that_is_being_deleted_stops_at_once_whatever_finalizer_keeps_it() -> None:
    domain = worlds.domain()
    metadata = msgspec.structs.replace(domain.metadata, deletion_timestamp=NOW, finalizers=("acme.example/keep",))
    kept = msgspec.structs.replace(domain, metadata=metadata)
    decision = decide(replace(IN_ORDER, memory=DomainMemory(verified_at=NOW - HOUR)), kept)
    assert not decision.accepted
    assert not decision.verified
    assert not decision.sending
    assert not decision.in_config
    assert not decision.wants_key
    assert not decision.wants_claim
    assert decision.next_check is None
    assert decision.releases_claim
    conditions = table(decision.conditions)
    assert conditions["Ready"] == conditions["Accepted"] == "False/Deleting"
    assert conditions["Verified"] == "False/NotAccepted"
    assert conditions["Stalled"].startswith("False")
    assert "acme.example/keep" in condition(decision.conditions, "Ready").message


def test_a_domain_that_is_being_deleted_leaves_the_claim_of_another_alone() -> None:
    domain = worlds.domain()
    metadata = msgspec.structs.replace(domain.metadata, deletion_timestamp=NOW)
    for claim in (worlds.claim("uid-2"), worlds.claim("uid-9", "globex"), None):
        world = replace(IN_ORDER, claim=claim)
        assert not decide(world, msgspec.structs.replace(domain, metadata=metadata)).releases_claim


def test_a_domain_declared_twice_counts_once() -> None:
    twice = worlds.domain(uid="uid-0", age=99)
    later = worlds.domain("other.example", uid="uid-2", age=1)
    world = replace(
        IN_ORDER, ranking=worlds.ranked(twice, worlds.domain(), later), plan=worlds.plan(maxDomains=2), claim=None
    )
    assert decide(replace(world, observation=None), later).accepted


def test_without_a_key_one_is_wanted_before_anything_is_shown() -> None:
    decision = decide(replace(IN_ORDER, keys=(), observation=None, claim=None))
    assert decision.wants_key
    assert decision.records == ()
    assert table(decision.conditions)["Reconciling"] == "True/KeyPending"


def test_no_records_are_shown_before_dns_was_asked_since_spf_merges_what_stands_there() -> None:
    decision = decide(replace(IN_ORDER, observation=None, claim=None))
    assert decision.records == ()
    assert decision.next_check == NOW
    assert table(decision.conditions)["Reconciling"] == "True/LookingUp"


def test_the_records_to_paste_are_shown_with_their_states() -> None:
    world = replace(
        IN_ORDER,
        claim=None,
        observation=seen(spf=worlds.answer("acme.example", "v=spf1 a -all", "x"), dkim=NO_DKIM, dmarc=NO_DMARC),
    )
    decision = decide(world)
    spf, dkim, dmarc = decision.records
    assert (spf.name, spf.type, spf.value) == ("acme.example", "TXT", "v=spf1 a include:spf.example.net -all")
    assert (spf.state, spf.observed) == (RecordState.MISMATCH, ("v=spf1 a -all",))
    assert dkim.name == f"{KEY.selector}._domainkey.acme.example"
    assert dkim.value == f"v=DKIM1; k=rsa; p={KEY.public_key}"
    assert (dmarc.name, dmarc.value) == ("_dmarc.acme.example", "v=DMARC1; p=none")
    assert (dkim.state, dmarc.state) == (RecordState.MISSING, RecordState.MISSING)
    assert all(record.checked_at == NOW for record in decision.records)
    conditions = table(decision.conditions)
    assert conditions["SPFValid"] == "False/Mismatch"
    assert conditions["DKIMValid"] == "False/Missing"
    assert conditions["Ready"] == "False/RecordsPending"
    # Waiting for DNS is neither progress nor a stall.
    assert conditions["Reconciling"].startswith("False")
    assert conditions["Stalled"].startswith("False")
    assert decision.refusal == "acme.example is not verified: SPF mismatch; DKIM missing; DMARC missing"


def test_seeing_dkim_asks_for_the_claim_and_only_the_claim_verifies() -> None:
    decision = decide(replace(IN_ORDER, claim=None, observation=seen(spf=NO_SPF)))
    assert decision.wants_claim
    complete = decide(replace(IN_ORDER, claim=None))
    assert complete.wants_claim
    assert not complete.verified
    assert not complete.sending
    assert table(complete.conditions)["Verified"] == "False/ClaimPending"
    assert not decide(replace(IN_ORDER, claim=None, observation=seen(dkim=NO_DKIM))).wants_claim


def test_a_claim_left_by_a_deleted_sending_domain_of_the_same_tenant_is_released() -> None:
    assert decide(replace(IN_ORDER, claim=worlds.claim("uid-gone"))).releases_claim
    assert not decide(replace(IN_ORDER, claim=worlds.claim("uid-gone", "globex"))).releases_claim
    assert not decide().releases_claim


def test_a_claim_is_released_when_dkim_is_gone_and_nothing_is_sent_any_more() -> None:
    assert decide(replace(IN_ORDER, observation=seen(dkim=NO_DKIM))).releases_claim
    in_grace = DomainMemory(verified_at=NOW - HOUR)
    assert not decide(replace(IN_ORDER, observation=seen(dkim=NO_DKIM), memory=in_grace)).releases_claim
    assert not decide(replace(IN_ORDER, observation=seen(spf=NO_SPF))).releases_claim
    assert not decide(replace(IN_ORDER, observation=seen(dkim=FAILED["dkim"]))).releases_claim


@pytest.mark.parametrize("lost", [{"spf": NO_SPF}, {"dkim": NO_DKIM}, {"dmarc": NO_DMARC}])
def test_a_lost_record_shows_at_once_and_mail_goes_on_for_the_grace_period(lost: dict[str, Any]) -> None:
    memory = DomainMemory(verified_at=NOW - 100 * HOUR)
    decision = decide(replace(IN_ORDER, observation=seen(**lost), memory=memory))
    assert not decision.verified
    assert decision.sending
    assert decision.memory == replace(memory, grace_started=NOW)
    assert table(decision.conditions)["Ready"] == "False/GracePeriod"
    assert "until 2026-11-26 12:00 UTC" in condition(decision.conditions, "Ready").message

    later = NOW + 71 * HOUR
    still = decide(replace(IN_ORDER, observation=seen(**lost, at=later), memory=decision.memory), now=later)
    assert still.sending
    assert still.memory == decision.memory

    end = NOW + 72 * HOUR
    over = decide(replace(IN_ORDER, observation=seen(**lost, at=end), memory=decision.memory), now=end)
    assert not over.sending
    assert table(over.conditions)["Ready"] == "False/GraceExpired"

    back = decide(replace(IN_ORDER, memory=over.memory, observation=seen(at=end)), now=end)
    assert back.verified
    assert back.memory == memory


def test_the_end_of_the_grace_period_is_not_slept_through() -> None:
    memory = DomainMemory(verified_at=NOW - 100 * HOUR, grace_started=NOW - 72 * HOUR + dt.timedelta(seconds=7))
    decision = decide(replace(IN_ORDER, observation=seen(spf=NO_SPF), memory=memory))
    assert decision.next_check == NOW + dt.timedelta(seconds=7)


@pytest.mark.parametrize("failed", [["spf"], ["dkim"], ["dmarc"], ["spf", "dkim", "dmarc"]])
def test_a_failed_look_up_never_downgrades_a_verified_domain(failed: list[str]) -> None:
    verified = decide()
    domain = judged(worlds.domain(), verified)
    world = replace(
        IN_ORDER, memory=verified.memory, observation=seen(at=NOW + HOUR, **{kind: FAILED[kind] for kind in failed})
    )
    decision = decide(world, domain, now=NOW + HOUR)
    assert decision.verified
    assert decision.memory == verified.memory
    assert all(record.state is RecordState.FOUND for record in decision.records)
    messages = {record.purpose.value: record.message for record in decision.records}
    assert all("changes nothing: SERVFAIL" in messages[kind.upper()] for kind in failed)
    assert decision.next_check is not None
    assert decision.next_check < NOW + HOUR + dt.timedelta(minutes=2)


def test_a_verified_domain_goes_on_when_the_operator_restarts_even_if_its_status_is_lost() -> None:
    memory = DomainMemory(verified_at=NOW - HOUR)
    kept = judged(worlds.domain(), decide())
    assert decide(replace(IN_ORDER, memory=memory, observation=None), kept).verified
    restored = decide(replace(IN_ORDER, memory=memory, observation=None))
    assert restored.sending
    assert restored.next_check == NOW
    blind = decide(replace(IN_ORDER, memory=memory, observation=seen(**FAILED)))
    assert blind.sending


def test_a_status_alone_proves_nothing() -> None:
    forged = judged(worlds.domain(), decide())
    decision = decide(replace(IN_ORDER, observation=None, claim=None), forged)
    assert not decision.sending
    assert not decision.wants_claim
    decision = decide(replace(IN_ORDER, observation=None), forged)
    assert not decision.sending


def test_what_was_seen_of_another_key_does_not_count_for_this_one() -> None:
    domain = judged(worlds.domain(), decide())
    other = replace(KEY, selector="mffffffffffff")
    decision = decide(replace(IN_ORDER, keys=(KEY, other), memory=DomainMemory(NOW - HOUR)), domain)
    assert decision.records[1].state is RecordState.UNKNOWN
    assert decision.next_check == NOW


def test_what_was_seen_of_a_cname_into_another_zone_does_not_count_for_this_one() -> None:
    domain = worlds.domain(dkim={"publish": "CNAME"})
    old, new = (worlds.with_dns(dkim_zone=zone) for zone in ("old.example.net", "new.example.net"))
    name = NO_DKIM.name
    before = decide(replace(IN_ORDER, claim=None), domain, old).records[1]
    right = Answer(name, Outcome.ANSWERED, (f"v=DKIM1; p={KEY.public_key}",), cname=(before.value,))
    domain = judged(domain, decide(replace(IN_ORDER, observation=seen(dkim=right)), domain, old))
    assert domain.status.records[1].state is RecordState.FOUND
    unlearned = replace(IN_ORDER, observation=seen(dkim=FAILED["dkim"]))
    assert decide(unlearned, domain, old).records[1].state is RecordState.FOUND
    assert decide(unlearned, domain, new).records[1].state is RecordState.UNKNOWN


def test_a_failure_for_a_domain_never_seen_leaves_the_record_unknown_and_shows_what_to_paste() -> None:
    decision = decide(replace(IN_ORDER, claim=None, observation=seen(**FAILED)))
    assert [record.state for record in decision.records] == [RecordState.UNKNOWN] * 3
    assert "add the include: to that one instead" in decision.records[0].message
    assert table(decision.conditions)["DMARCValid"] == "Unknown/LookupFailed"
    assert not decision.sending


@pytest.mark.parametrize(
    ("age", "seconds"),
    [(0, 3), (60, 3), (150, 3), (600, 12), (3600, 72), (86_400, 300), (30 * 86_400, 300)],
)
def test_an_unverified_domain_is_looked_at_often_while_young(age: float, seconds: float) -> None:
    world = replace(IN_ORDER, claim=None, observation=seen(spf=NO_SPF))
    decision = decide(world, worlds.domain(age=age))
    assert decision.next_check == NOW + dt.timedelta(seconds=seconds)


def test_verified_domains_are_looked_at_in_their_interval_spread_by_a_tenth() -> None:
    uids = [f"uid-{number}" for number in range(50)]
    due = [decide(replace(IN_ORDER, claim=worlds.claim(uid)), worlds.domain(uid=uid)).next_check for uid in uids]
    waits = [(one - NOW).total_seconds() for one in due if one is not None]
    assert len(waits) == 50
    assert all(810 <= wait <= 990 for wait in waits)
    assert max(waits) - min(waits) > 90


def test_looking_again_without_news_writes_nothing_new_for_a_minute() -> None:
    domain = judged(worlds.domain(), decide())
    soon = NOW + dt.timedelta(seconds=59)
    memory = DomainMemory(verified_at=NOW)

    def status_at(now: dt.datetime, observation: Observation) -> object:
        world = replace(IN_ORDER, memory=memory, observation=observation)
        return policy.status(domain, decide(world, domain, now=now), now)

    assert status_at(soon, seen(at=soon)) == domain.status
    assert status_at(soon, seen(at=soon, spf=NO_SPF)) != domain.status
    later = NOW + dt.timedelta(seconds=60)
    assert status_at(later, seen(at=later)) != domain.status
    assert status_at(NOW + dt.timedelta(days=1), seen()) == domain.status, "it was visited and not looked at"


def test_what_could_not_be_done_shows_on_top() -> None:
    problem = Problem("NameConflict", "Secret acme-dkim-m0 is somebody else's")
    decision = decide(replace(IN_ORDER, problems=(problem,)))
    conditions = table(decision.conditions)
    assert conditions["Ready"] == "False/NameConflict"
    assert conditions["Stalled"] == "True/NameConflict"
    assert conditions["Verified"] == "True/AllRecordsFound"


def test_the_cname_form_shows_a_target_of_this_sending_domain_alone() -> None:
    domain = worlds.domain(dkim={"publish": "CNAME"})
    settings = worlds.with_dns(dkim_zone="dkim.example.net")
    decision = decide(replace(IN_ORDER, claim=None), domain, settings)
    record = decision.records[1]
    assert record.type == "CNAME"
    assert record.value.endswith(".dkim.example.net")
    assert record.state is RecordState.MISMATCH  # a TXT record stands there
    name = record.name
    right = Answer(name, Outcome.ANSWERED, (f"v=DKIM1; p={KEY.public_key}",), cname=(record.value,))
    assert decide(replace(IN_ORDER, observation=seen(dkim=right)), domain, settings).verified
