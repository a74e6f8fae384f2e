"""The records of a relay's EHLO name: shown, looked at, and waited for by nothing."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from malote_operator.api.egress import EgressStatus
from malote_operator.api.sendingdomain import RecordState
from malote_operator.dns import expected
from malote_operator.policy import egress
from malote_operator.policy import tenant as policy
from malote_operator.policy.model import DkimPublicKey, EgressWorld, Problem

from . import worlds
from .tenants import IN_ORDER, decide
from .worlds import KEY, NOW, answer, condition, failure, seen, table

NAME = "acme.out.example.net"
ADDRESS, REVERSED = "192.0.2.25", "25.2.0.192.in-addr.arpa"
RIGHT: dict[str, Any] = {
    "name": NAME,
    "host": answer(NAME, ADDRESS),
    "reverse": (answer(REVERSED, NAME),),
    "spf": answer(NAME, "v=spf1 a -all"),
    "dkim": answer(expected.dkim_name(NAME, KEY.selector), expected.dkim_value(KEY.public_key)),
}
OTHER = DkimPublicKey("m999999999999", KEY.public_key, NOW)


def world(**observed: Any) -> EgressWorld:
    return EgressWorld(NAME, KEY, observation=seen(**RIGHT | observed))


def shown(one: EgressWorld | None, before: EgressStatus | None = None) -> EgressStatus:
    status = egress.status(one, before)
    assert status is not None
    return status


def by_purpose(status: EgressStatus) -> dict[str, Any]:
    return {one.purpose.value: one for one in status.records}


def test_the_records_are_shown_ready_to_paste_before_anything_was_looked_up() -> None:
    status = shown(EgressWorld(NAME, KEY))
    assert status.helo_name == NAME
    assert [(one.purpose.value, one.type, one.name, one.value) for one in status.records] == [
        ("Address", "A", NAME, ""),
        ("SPF", "TXT", NAME, "v=spf1 a -all"),
        ("DKIM", "TXT", f"{KEY.selector}._domainkey.{NAME}", f"v=DKIM1; k=rsa; p={KEY.public_key}"),
    ]
    assert {one.state for one in status.records} == {RecordState.UNKNOWN}
    assert egress.condition(status).reason == "NotLookedUp"


def test_what_stands_in_the_dns_is_found() -> None:
    status = shown(world())
    assert [(one.state.value, one.checked_at) for one in status.records] == [("Found", NOW)] * 4
    assert egress.condition(status).status.value == "True"


@pytest.mark.parametrize(
    ("spf", "state", "words"),
    [
        ((), "Missing", "there is no SPF record"),
        (("other",), "Missing", "there is no SPF record"),
        (("v=spf1 ip4:192.0.2.7 -all",), "Found", ""),
        (("v=spf1 include:spf.example.net -all",), "Found", ""),
        (("v=spf1 redirect=spf.example.net",), "Found", ""),
        (("v=spf1 -all",), "Mismatch", "lets nobody send: write v=spf1 a -all"),
        (("v=spf1 -all redirect=spf.example.net",), "Mismatch", "lets nobody send: write v=spf1 a -all"),
        (("v=spf1 redirect=spf.example.net ~all",), "Mismatch", "lets nobody send"),
        (("v=spf1 redirect=a.example redirect=b.example",), "Mismatch", "redirect= stands twice"),
        (("v=spf1 a exp=a.example exp=b.example -all",), "Mismatch", "exp= stands twice"),
        (("v=spf1 " + "mx " * 11 + "-all",), "Mismatch", "needs 11 DNS look-ups"),
        (("v=spf1 -a ~all",), "Mismatch", "lets nobody send"),
        (("v=spf1 -all a",), "Mismatch", "lets nobody send"),
        (("v=spf1 +all",), "Found", "lets anybody send in this name"),
        (("v=spf1 ip4:nonsense -all",), "Mismatch", "is not an address or network"),
        (("v=spf1 a -all", "v=spf1 mx -all"), "Mismatch", "there are 2 SPF records"),
        (("v=spf a -all",), "Mismatch", "is not an SPF record"),
    ],
)
def test_an_spf_record_that_lets_the_relay_send_will_do(spf: tuple[str, ...], state: str, words: str) -> None:
    record = by_purpose(shown(world(spf=answer(NAME, *spf))))["SPF"]
    assert record.state.value == state
    assert words in record.message
    assert bool(words) == bool(record.message)
    assert "other" not in record.observed


@pytest.mark.parametrize(
    ("source", "addresses", "shown_as", "state", "words"),
    [
        ("", (), ("A", ""), "Missing", "no A or AAAA record: publish one with the address that mail leaves from"),
        ("", ("192.0.2.7",), ("A", ""), "Found", ""),
        ("10.1.2.3", ("192.0.2.7",), ("A", ""), "Found", ""),
        ("not an address", ("192.0.2.7",), ("A", ""), "Found", ""),
        ("1.1.1.1", ("1.1.1.1", "9.9.9.9"), ("A", "1.1.1.1"), "Found", ""),
        (
            "1.1.1.1",
            ("9.9.9.9",),
            ("A", "1.1.1.1"),
            "Mismatch",
            "leads to 9.9.9.9 and not to 1.1.1.1, which mail leaves",
        ),
        ("2001:4860:0::1", ("2001:4860::1",), ("AAAA", "2001:4860::1"), "Found", ""),
    ],
)
def test_the_name_leads_to_the_address_that_mail_leaves_from_as_far_as_that_is_known(
    source: str, addresses: tuple[str, ...], shown_as: tuple[str, str], state: str, words: str
) -> None:
    seen = world(host=answer(NAME, *addresses), reverse=tuple(answer(f"{one}.arpa", NAME) for one in addresses))
    record = by_purpose(shown(replace(seen, source_address=source)))["Address"]
    assert ((record.type, record.value), record.state.value, record.observed) == (shown_as, state, addresses)
    assert words in record.message
    assert bool(words) == bool(record.message)


@pytest.mark.parametrize(
    ("names", "state", "words"),
    [
        ((NAME,), "Found", ""),
        (("a.example", NAME), "Found", ""),
        ((), "Missing", f"{ADDRESS} has no PTR record: whoever provides the address sets it"),
        (("host-25.example.net",), "Mismatch", f"{ADDRESS} leads back to host-25.example.net and not to {NAME}"),
    ],
)
def test_each_address_leads_back_to_the_name(names: tuple[str, ...], state: str, words: str) -> None:
    status = shown(world(reverse=(answer(REVERSED, *names),)))
    record = by_purpose(status)["PTR"]
    assert (record.type, record.name, record.value) == ("PTR", REVERSED, NAME)
    assert record.state.value == state
    assert words in record.message
    assert (egress.condition(status).status.value == "True") == (state == "Found")


def test_an_address_that_the_name_has_no_longer_is_shown_no_longer() -> None:
    two = world(host=answer(NAME, ADDRESS, "2001:db8::25"), reverse=(answer(REVERSED, NAME), answer("5.2.ip6.arpa")))
    before = shown(two)
    assert [one.name for one in before.records if one.type == "PTR"] == [REVERSED, "5.2.ip6.arpa"]
    assert [one.name for one in shown(world(), before).records if one.type == "PTR"] == [REVERSED]
    gone = shown(world(host=answer(NAME), reverse=()), before)
    assert "PTR" not in by_purpose(gone)
    assert "publish one with the address" in egress.condition(gone).message


def test_what_is_missing_is_said_with_what_comes_of_it_and_the_tenant_stays_ready() -> None:
    decision = decide(replace(IN_ORDER, egress=world(spf=answer(NAME))))
    conditions = table(decision.conditions)
    assert conditions["EgressRecordsPublished"] == "False/Missing"
    assert conditions["Ready"] == "True/Sending"
    assert conditions["Reconciling"] == "False/Settled"
    said = condition(decision.conditions, "EgressRecordsPublished").message
    assert said.startswith(f"{NAME}: SPF: there is no SPF record (the platform team publishes status.egress.records")
    assert decision.egress is not None
    assert policy.status(worlds.tenant(), decision, NOW).egress == decision.egress


def test_a_look_up_that_failed_changes_no_state() -> None:
    failed = world(spf=failure(NAME), dkim=failure(RIGHT["dkim"].name), host=failure(NAME), reverse=())
    fresh = shown(failed)
    assert egress.condition(fresh).reason == "LookupFailed"
    after = shown(failed, shown(world()))
    assert {one.state for one in after.records} == {RecordState.FOUND}
    unseen = [
        one for one in after.records if "could not be looked up, which changes nothing: SERVFAIL" in one.message
    ]
    assert [one.purpose.value for one in unseen] == ["Address", "SPF", "DKIM"]
    assert by_purpose(after)["PTR"] == by_purpose(shown(world()))["PTR"]
    assert egress.condition(after).status.value == "True"


def test_another_name_or_key_has_not_been_seen_yet() -> None:
    before = shown(world())
    moved = shown(EgressWorld("acme.bulk.example.net", KEY), before)
    assert {one.state for one in moved.records} == {RecordState.UNKNOWN}
    late = shown(EgressWorld("acme.bulk.example.net", KEY, observation=world().observation), before)
    assert late == moved, "the answer is about the name that it was"
    records = by_purpose(shown(EgressWorld(NAME, OTHER), before))
    assert (records["SPF"].state, records["DKIM"].state) == (RecordState.FOUND, RecordState.UNKNOWN)


def test_a_record_that_is_shown_otherwise_now_is_not_shown_as_it_was() -> None:
    before = shown(world())
    old = tuple(msgspec.structs.replace(one, value=f"{one.value}.old") for one in before.records)
    fresh = EgressWorld(NAME, KEY)
    assert shown(fresh, msgspec.structs.replace(before, records=old)) == shown(fresh)


def test_looking_alone_moves_the_time_by_the_hour() -> None:
    before = shown(world())
    assert shown(world(at=NOW + dt.timedelta(minutes=59)), before) == before
    later = NOW + dt.timedelta(hours=1)
    assert {one.checked_at for one in shown(world(at=later), before).records} == {later}
    soon = NOW + dt.timedelta(minutes=1)
    records = by_purpose(shown(world(spf=answer(NAME), at=soon), before))
    assert (records["SPF"].checked_at, records["DKIM"].checked_at) == (soon, NOW)


def test_a_visit_without_a_look_writes_nothing() -> None:
    tenant, present = worlds.tenant(), replace(IN_ORDER, egress=world())
    first = policy.status(tenant, decide(present), NOW)
    tenant, later = msgspec.structs.replace(tenant, status=first), NOW + dt.timedelta(days=1)
    assert policy.status(tenant, decide(present, tenant, later), later) == first


def test_behind_a_smart_host_the_world_does_not_see_the_name() -> None:
    (record,) = shown(replace(world(), smart_host=True)).records
    assert record.purpose.value == "DKIM"


@pytest.mark.parametrize("unknown", [None, EgressWorld(NAME)])
def test_without_plan_or_key_what_was_shown_stays(unknown: EgressWorld | None) -> None:
    before = shown(world())
    assert egress.status(unknown, before) is before
    decision = decide(replace(IN_ORDER, egress=unknown, problems=(Problem("NameConflict", "not ours"),)))
    assert decision.egress is None
    assert table(decision.conditions)["EgressRecordsPublished"] == "Unknown/NotProvisioned"
    assert "the operator's log says why" in condition(decision.conditions, "EgressRecordsPublished").message
