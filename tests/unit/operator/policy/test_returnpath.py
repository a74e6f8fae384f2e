"""The return path of a SendingDomain: its records, when mail leaves with it, and when no longer."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from malote_operator.api.sendingdomain import Purpose, RecordState, SendingDomain
from malote_operator.dns.model import Observation
from malote_operator.policy import domain as policy
from malote_operator.policy.model import DomainDecision, DomainMemory, DomainWorld, TenantMemory
from malote_operator.render import state
from malote_operator.settings import Bounces, Settings

from . import worlds
from .test_domain import IN_ORDER, TAKEN
from .test_domain import decide as decide_by
from .worlds import NO_SPF, NOW, condition, table

HOST = "bounces.acme.example"
DOMAIN = worlds.domain(returnPath=HOST)
SETTINGS = Settings(bounces=Bounces(enabled=True))
MX = worlds.answer(HOST, "10 acme.smtp.example.net")
SPF = worlds.answer(HOST, "v=spf1 include:spf.example.net ~all")
NOTHING, FAILED = worlds.answer(HOST), worlds.failure(HOST)
MINUTE, HOUR = dt.timedelta(minutes=1), dt.timedelta(hours=1)


def seen(**changes: Any) -> Observation:
    """All five records right unless told otherwise."""
    return worlds.seen(**{"return_path_mx": MX, "return_path_spf": SPF} | changes)


FOUND = replace(IN_ORDER, observation=seen())


def decide(
    world: DomainWorld = FOUND,
    domain: SendingDomain = DOMAIN,
    settings: Settings = SETTINGS,
    now: dt.datetime = NOW,
) -> DomainDecision:
    return decide_by(world, domain, settings, now)


def after(decision: DomainDecision, now: dt.datetime, **changes: Any) -> DomainDecision:
    """What is decided later, with what is remembered of an earlier decision."""
    world = replace(FOUND, memory=decision.memory, observation=seen(at=now, **changes))
    return decide(world, judged(DOMAIN, decision), now=now)


def judged(domain: SendingDomain, decision: DomainDecision) -> SendingDomain:
    return msgspec.structs.replace(domain, status=policy.status(domain, decision, NOW))


def said(decision: DomainDecision) -> str:
    return table(decision.conditions).get("ReturnPathVerified", "")


def test_a_domain_that_names_none_has_neither_records_nor_a_condition_of_it() -> None:
    decision = decide(domain=worlds.domain())
    assert said(decision) == ""
    assert len(decision.records) == 3
    assert (decision.return_path, decision.memory.return_path) == ("", None)


def test_its_two_records_are_shown_beside_the_domains_three() -> None:
    decision = decide(replace(FOUND, observation=seen(return_path_mx=NOTHING, return_path_spf=NOTHING)))
    shown = [(one.purpose.value, one.type, one.name, one.value, one.state.value) for one in decision.records[3:]]
    assert shown == [
        ("ReturnPathMX", "MX", HOST, "10 acme.smtp.example.net", "Missing"),
        ("ReturnPathSPF", "TXT", HOST, "v=spf1 include:spf.example.net ~all", "Missing"),
    ]
    assert all(one.checked_at == NOW for one in decision.records)


def test_mail_leaves_with_it_once_both_are_seen_right() -> None:
    decision = decide()
    assert decision.return_path == HOST
    assert said(decision) == "True/RecordsFound"
    assert [one.state for one in decision.records] == [RecordState.FOUND] * 5


@pytest.mark.parametrize(
    ("amiss", "words"),
    [
        ({"return_path_mx": NOTHING}, "ReturnPathMX: there is no MX record"),
        ({"return_path_spf": NOTHING}, "ReturnPathSPF: there is no SPF record"),
        ({"return_path_mx": worlds.answer(HOST, "10 mx.acme.example")}, "leads to mx.acme.example"),
        ({"return_path_mx": FAILED}, "ReturnPathMX: could not be looked up"),
    ],
)
def test_until_then_mail_leaves_with_the_senders_own_and_the_status_says_why(
    amiss: dict[str, Any], words: str
) -> None:
    decision = decide(replace(FOUND, observation=seen(**amiss)))
    assert decision.return_path == ""
    assert said(decision) == "False/RecordsPending"
    message = condition(decision.conditions, "ReturnPathVerified").message
    assert "the sender's own reverse-path" in message
    assert words in message


@pytest.mark.parametrize("amiss", [{"return_path_mx": NOTHING}, {"return_path_spf": FAILED}, {}])
def test_it_has_no_part_in_whether_the_domain_is_verified(amiss: dict[str, Any]) -> None:
    decision, without = decide(replace(FOUND, observation=seen(**amiss))), decide(domain=worlds.domain())
    assert decision.verified
    assert [one for one in decision.conditions if one.type != "ReturnPathVerified"] == [*without.conditions]
    assert decision.records[:3] == without.records
    assert (decision.sending, decision.refusal, decision.keys) == (without.sending, without.refusal, without.keys)


def test_a_domain_that_is_not_verified_says_nothing_of_it_in_its_refusal() -> None:
    decision = decide(replace(FOUND, observation=seen(spf=NO_SPF, return_path_mx=NOTHING)))
    assert decision.refusal == "acme.example is not verified: SPF missing"
    assert "ReturnPath" not in condition(decision.conditions, "Ready").message


def test_no_records_are_shown_before_they_were_looked_for_since_spf_merges_what_stands_there() -> None:
    decision = decide(IN_ORDER)
    assert len(decision.records) == 3
    assert said(decision) == "False/LookingUp"
    assert decision.next_check == NOW


def test_another_host_is_looked_for_at_once_and_what_was_seen_of_the_first_does_not_count_for_it() -> None:
    first = decide()
    moved = msgspec.structs.replace(
        judged(DOMAIN, first), spec=msgspec.structs.replace(DOMAIN.spec, return_path="b2.acme.example")
    )
    decision = decide(replace(FOUND, memory=first.memory), moved)
    assert decision.return_path == ""
    assert said(decision) == "False/LookingUp"
    assert decision.next_check == NOW
    assert len(decision.records) == 3


def test_what_was_seen_of_another_endpoint_does_not_count_for_this_one() -> None:
    first = decide()
    settings = msgspec.structs.replace(
        SETTINGS, endpoint=msgspec.structs.replace(SETTINGS.endpoint, host_template="{tenant}.mail.example.net")
    )
    decision = decide(replace(FOUND, memory=first.memory, observation=None), judged(DOMAIN, first), settings)
    (mx,) = (one for one in decision.records if one.purpose is Purpose.RETURN_PATH_MX)
    assert (mx.value, mx.state) == ("10 acme.mail.example.net", RecordState.UNKNOWN)


@pytest.mark.parametrize("lost", [{"return_path_mx": NOTHING}, {"return_path_spf": NOTHING}])
def test_a_record_that_vanishes_shows_at_once_and_mail_leaves_with_it_for_a_short_grace_period(
    lost: dict[str, Any],
) -> None:
    first, vanished = decide(), NOW + 5 * HOUR
    within = after(first, vanished, **lost)
    assert within.return_path == HOST
    assert said(within) == "False/GracePeriod"
    assert "until 2026-11-23 18:00 UTC" in condition(within.conditions, "ReturnPathVerified").message
    assert within.verified
    assert after(within, vanished + 59 * MINUTE, **lost).return_path == HOST

    over = after(within, vanished + HOUR, **lost)
    assert over.return_path == ""
    assert said(over) == "False/GraceExpired"
    assert over.verified

    back = after(over, vanished + 2 * HOUR)
    assert back.return_path == HOST
    assert said(back) == "True/RecordsFound"
    assert back.memory == first.memory


def test_the_end_of_its_grace_period_is_not_slept_through() -> None:
    soon = NOW + 59 * MINUTE + dt.timedelta(seconds=50)
    within = after(after(decide(), NOW, return_path_mx=NOTHING), soon, return_path_mx=NOTHING)
    assert within.next_check == NOW + HOUR


def test_a_failed_look_up_takes_it_from_nobody() -> None:
    decision = after(decide(), NOW + HOUR, return_path_mx=FAILED, return_path_spf=FAILED)
    assert decision.return_path == HOST
    assert said(decision) == "True/RecordsFound"
    assert all("changes nothing: SERVFAIL" in record.message for record in decision.records[3:])
    assert decision.next_check is not None
    assert decision.next_check < NOW + HOUR + 2 * MINUTE
    blind = seen(return_path_mx=FAILED, return_path_spf=FAILED)
    without_status = decide(replace(FOUND, memory=decision.memory, observation=blind))
    assert without_status.return_path == HOST
    assert said(without_status) == "True/LookupFailed"


def test_it_outlives_a_restart_even_if_the_status_is_lost() -> None:
    first = decide()
    blind = replace(FOUND, memory=first.memory, observation=None)
    assert decide(blind).return_path == HOST
    assert decide(blind, judged(DOMAIN, first)).return_path == HOST
    lost = after(first, NOW + HOUR, return_path_mx=NOTHING)
    blind = replace(FOUND, memory=lost.memory, observation=None)
    assert decide(blind, now=NOW + 2 * HOUR - MINUTE).return_path == HOST
    assert decide(blind, now=NOW + 2 * HOUR).return_path == ""


def test_a_status_alone_proves_nothing_of_it() -> None:
    forged = judged(DOMAIN, decide())
    assert decide(replace(FOUND, observation=None), forged).return_path == ""
    verified = replace(FOUND, observation=None, memory=DomainMemory(verified_at=NOW))
    assert decide(verified, forged).return_path == ""


def test_who_has_just_published_its_records_need_not_wait_for_the_regular_look() -> None:
    old = worlds.domain(returnPath=HOST, age=9 * 24 * 3600.0)
    missing = seen(return_path_mx=NOTHING)
    decision = decide(replace(FOUND, observation=missing), old)
    assert decision.next_check == NOW + dt.timedelta(seconds=SETTINGS.dns.pending_recheck)
    day = NOW + 24 * HOUR
    world = replace(FOUND, memory=decision.memory, observation=replace(missing, at=day))
    late = decide(world, old, now=day)
    regular = decide(replace(FOUND, observation=worlds.seen(at=day)), worlds.domain(age=9e5), now=day)
    assert late.next_check == regular.next_check, "and who never does costs no more than the others"


def test_without_the_platforms_setting_it_means_nothing_and_the_status_says_so() -> None:
    decision = decide(IN_ORDER, settings=Settings())
    assert said(decision) == "False/NotOffered"
    assert decision.return_path == ""
    assert len(decision.records) == 3
    assert decision.next_check is not None
    assert decision.next_check > NOW


def test_what_was_seen_before_the_platform_stopped_taking_bounces_in_does_not_count_when_it_does_again() -> None:
    first = decide()
    off = decide(replace(IN_ORDER, memory=first.memory), judged(DOMAIN, first), Settings())
    assert said(off) == "False/NotOffered"
    on = decide(replace(IN_ORDER, memory=off.memory), judged(DOMAIN, off))
    assert on.return_path == ""
    assert said(on) == "False/LookingUp"
    assert on.next_check == NOW


@pytest.mark.parametrize(
    ("world", "expected"),
    [
        (TAKEN, "Unknown/NotAccepted"),
        (replace(IN_ORDER, keys=(), observation=None), "Unknown/KeyPending"),
        (replace(IN_ORDER, observation=None), "Unknown/LookingUp"),
    ],
)
def test_its_condition_is_set_on_every_visit(world: DomainWorld, expected: str) -> None:
    assert said(decide(world)) == expected


def test_a_domain_without_it_any_more_forgets_it() -> None:
    decision = decide(replace(FOUND, memory=decide().memory), worlds.domain())
    assert decision.memory.return_path is None
    assert decision.return_path == ""


def test_it_is_remembered_in_the_config_map() -> None:
    lost = after(decide(), NOW + HOUR, return_path_mx=NOTHING)
    memory = TenantMemory(domains={"uid-1": lost.memory})
    assert lost.memory.return_path is not None
    assert lost.memory.return_path.grace_started == NOW + HOUR
    assert state.parse(state.config_map(worlds.tenant(), memory, SETTINGS)) == memory
