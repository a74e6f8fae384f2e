"""Where TLSA records are looked for, and when they count."""

from __future__ import annotations

from typing import Any

import dns.rdata
import pytest

from malote_relay.delivery.tls import dane
from malote_relay.delivery.tls.security import Level
from malote_relay.resolver import Examined, TemporaryFailure

GOOD = "3 1 1 " + "ab" * 32
NEXT_HOP = ("d.example",)


class Names:
    """Answers by name and type: (records, authentic, canonical name); what is not there does not exist, unsigned."""

    def __init__(self, answers: dict[tuple[str, str], Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str]] = []

    async def examine(self, name: str, rdtype: str) -> Examined:
        self.asked.append((name, rdtype))
        found = self.answers.get((name, rdtype), ([], False, name))
        if isinstance(found, TemporaryFailure):
            raise found
        values, authentic, canonical = found
        return Examined(tuple(dns.rdata.from_text("IN", rdtype, value) for value in values), authentic, canonical)


def world(**changes: Any) -> Names:
    answers: dict[tuple[str, str], Any] = {
        ("mx.d.example", "A"): (["192.0.2.1"], True, "mx.d.example"),
        ("_25._tcp.mx.d.example", "TLSA"): ([GOOD], True, "_25._tcp.mx.d.example"),
    }
    return Names(answers | changes.pop("answers", {}))


async def asked_of(names: Names) -> Any:
    return await dane.security_of("mx.d.example", 25, NEXT_HOP, names)


async def test_signed_records_of_a_signed_host_are_required() -> None:
    security = await asked_of(world())
    assert security.level is Level.DANE
    assert security.names == ("mx.d.example",)
    assert [(one.usage, one.selector, one.matching) for one in security.tlsa] == [(3, 1, 1)]


async def test_under_a_trust_anchor_the_certificate_may_be_for_the_domain_too() -> None:
    place = ("_25._tcp.mx.d.example", "TLSA")
    security = await asked_of(world(answers={place: (["2 1 1 " + "ab" * 32], True, place[0])}))
    assert security.names == ("mx.d.example", "d.example")


async def test_unsigned_addresses_ask_for_no_records_at_all() -> None:
    names = world(answers={("mx.d.example", "A"): (["192.0.2.1"], False, "mx.d.example")})
    assert await asked_of(names) is None
    assert not [name for name, rdtype in names.asked if rdtype == "TLSA"]


async def test_unsigned_or_missing_records_are_none() -> None:
    place = ("_25._tcp.mx.d.example", "TLSA")
    assert await asked_of(world(answers={place: ([GOOD], False, place[0])})) is None
    assert await asked_of(world(answers={place: ([], True, place[0])})) is None


async def test_records_that_cannot_be_used_require_tls_all_the_same() -> None:
    place = ("_25._tcp.mx.d.example", "TLSA")
    security = await asked_of(world(answers={place: (["0 1 1 " + "ab" * 32], True, place[0])}))
    assert security == dane.UNUSABLE


async def test_a_look_up_that_fails_is_no_permission() -> None:
    names = world(answers={("_25._tcp.mx.d.example", "TLSA"): TemporaryFailure("SERVFAIL")})
    with pytest.raises(TemporaryFailure):
        await asked_of(names)


async def test_a_signed_alias_leads_to_its_targets_records_first_and_then_the_hosts_own() -> None:
    alias = {("mx.d.example", "A"): (["192.0.2.1"], True, "real.e.example")}
    target = ("_25._tcp.real.e.example", "TLSA")
    security = await asked_of(world(answers=alias | {target: ([GOOD], True, target[0])}))
    assert security.names[0] == "real.e.example"
    security = await asked_of(world(answers=alias))
    assert security.names[0] == "mx.d.example"


@pytest.mark.parametrize("signed", [True, False])
async def test_an_alias_into_the_unsigned_leaves_the_hosts_own_records_if_the_alias_is_signed(signed: bool) -> None:
    names = world(
        answers={
            ("mx.d.example", "A"): (["192.0.2.1"], False, "real.e.example"),
            ("mx.d.example", "CNAME"): (["real.e.example."], signed, "mx.d.example"),
            ("_25._tcp.real.e.example", "TLSA"): ([GOOD], True, "_25._tcp.real.e.example"),
        }
    )
    security = await asked_of(names)
    assert (security.names[0] if security else None) == ("mx.d.example" if signed else None)


async def test_the_way_to_the_host_must_be_signed_too() -> None:
    signed = {("d.example", "MX"): (["10 mx.d.example."], True, "e.example")}
    assert await dane.next_hop_names("d.example", Names(signed)) == ("d.example", "e.example")
    assert await dane.next_hop_names("d.example", Names({})) == ()
    nothing_by_proof: dict[tuple[str, str], Any] = {("d.example", "MX"): ([], True, "d.example")}
    assert await dane.next_hop_names("d.example", Names(nothing_by_proof)) == ("d.example",)
