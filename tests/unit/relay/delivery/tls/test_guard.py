"""What TLS a route's hosts must have: who comes first, and what becomes of hosts that do not keep it."""

from __future__ import annotations

import ipaddress
from typing import Any, cast

import dns.rdata
import pytest

from malote_relay.delivery.route import MailHost, Route, Unroutable
from malote_relay.delivery.tls import dane
from malote_relay.delivery.tls.guard import ENFORCE, TESTING, Guard
from malote_relay.delivery.tls.mtasts import Mode, StsPolicy
from malote_relay.delivery.tls.policies import Policies
from malote_relay.delivery.tls.results import Applied, ResultType, Trouble
from malote_relay.delivery.tls.security import OPPORTUNISTIC, Level
from malote_relay.resolver import Examined, TemporaryFailure

ROUTE = Route(
    "d.example",
    tuple(MailHost(f"mx{number}.d.example", (ipaddress.ip_address(f"192.0.2.{number}"),)) for number in (1, 2)),
)


class World:
    """A signed DNS with TLSA records by host, and a policy."""

    def __init__(self, policy: StsPolicy | Trouble | None = None, **tlsa: str | TemporaryFailure) -> None:
        self.sts = policy
        self.tlsa = tlsa
        self.signed = True
        self.told: list[tuple[str, ResultType]] = []

    async def policy(self, domain: str) -> StsPolicy | Trouble | None:
        assert domain == "d.example"
        return self.sts

    async def txt(self, name: str) -> tuple[bytes, ...]:
        raise AssertionError

    async def examine(self, name: str, rdtype: str) -> Examined:
        found: Any = None
        if rdtype == "TLSA":
            found = self.tlsa.get(name.split(".")[2])
        elif rdtype == "A":
            found = "192.0.2.1"
        if isinstance(found, TemporaryFailure):
            raise found
        records = (dns.rdata.from_text("IN", rdtype, found),) if found else ()
        return Examined(records, self.signed, name)

    def _note(self, domain: str, applied: Applied, mx: str, trouble: Trouble) -> None:
        self.told.append((mx, trouble.result))

    async def secure(self, *, use_dane: bool = True, route: Route = ROUTE) -> Route:
        guard = Guard(self, cast(Policies, self), use_dane=use_dane, note=self._note)
        return await guard.secure(route)


def levels(route: Route) -> list[tuple[str, Level]]:
    return [(host.name.partition(".")[0], host.security.level) for host in route.hosts]


def sts(mode: Mode, *mx: str) -> StsPolicy:
    return StsPolicy(mode, 86_400, mx or ("*.d.example",))


RECORD = "3 1 1 " + "ab" * 32


async def test_a_domain_that_asks_for_nothing_gets_what_can_be_had() -> None:
    secured = await World().secure()
    assert [host.security for host in secured.hosts] == [OPPORTUNISTIC] * 2
    assert [host.applied and host.applied.kind for host in secured.hosts] == ["no-policy-found"] * 2


@pytest.mark.parametrize(
    ("mode", "security"), [(Mode.ENFORCE, ENFORCE), (Mode.TESTING, TESTING), (Mode.NONE, OPPORTUNISTIC)]
)
async def test_a_policys_mode_says_what_its_hosts_must_have(mode: Mode, security: Any) -> None:
    secured = await World(sts(mode)).secure()
    assert [host.security for host in secured.hosts] == [security] * 2


async def test_each_host_has_dane_where_it_has_records_and_the_policy_where_not() -> None:
    secured = await World(sts(Mode.ENFORCE, "mx2.d.example"), mx1=RECORD).secure()
    assert levels(secured) == [("mx1", Level.DANE), ("mx2", Level.VERIFIED)]
    assert [host.applied and host.applied.kind for host in secured.hosts] == ["tlsa", "sts"]


async def test_a_host_that_is_taken_out_leaves_the_destination_what_it_was() -> None:
    world = World(sts(Mode.ENFORCE, "mx2.d.example"))
    secured = await world.secure()
    assert levels(secured) == [("mx2", Level.VERIFIED)]
    assert secured.destination == ROUTE.destination
    assert world.told == [("mx1.d.example", ResultType.VALIDATION_FAILURE)]


async def test_testing_tells_of_a_host_that_is_not_listed_once_and_uses_it() -> None:
    world = World(sts(Mode.TESTING, "mx2.d.example"))
    secured = await world.secure()
    assert levels(secured) == [("mx1", Level.OPPORTUNISTIC), ("mx2", Level.TESTING)]
    assert secured.hosts[0].applied is None
    assert world.told == [("mx1.d.example", ResultType.VALIDATION_FAILURE)]


async def test_records_that_cannot_be_looked_up_take_their_host_out_and_the_policy_does_not_bring_it_back() -> None:
    world = World(sts(Mode.ENFORCE), mx1=TemporaryFailure("SERVFAIL"))
    assert levels(await world.secure()) == [("mx2", Level.VERIFIED)]
    assert world.told == [("mx1.d.example", ResultType.DNSSEC_INVALID)]


async def test_when_no_host_is_left_mail_waits() -> None:
    for world in (
        World(sts(Mode.ENFORCE, "other.example")),
        World(mx1=TemporaryFailure("SERVFAIL"), mx2=TemporaryFailure("SERVFAIL")),
    ):
        with pytest.raises(Unroutable) as raised:
            await world.secure()
        assert (raised.value.permanent, raised.value.bounce_class) == (False, "tls")
        assert raised.value.reply.startswith("451 4.7.5")


async def test_a_policy_that_is_not_to_be_had_is_told_and_stops_nothing() -> None:
    world = World(Trouble(ResultType.STS_FETCH_ERROR, "gone"))
    assert [host.security for host in (await world.secure()).hosts] == [OPPORTUNISTIC] * 2
    assert world.told == [("", ResultType.STS_FETCH_ERROR)]


async def test_without_dane_or_signatures_records_are_not_looked_at() -> None:
    assert levels(await World(mx1=RECORD).secure(use_dane=False))[0][1] is Level.OPPORTUNISTIC
    world = World(mx1=RECORD)
    world.signed = False
    assert levels(await world.secure())[0][1] is Level.OPPORTUNISTIC


async def test_records_nobody_can_check_ask_for_encryption() -> None:
    secured = await World(mx1="0 0 1 " + "ab" * 32).secure()
    assert secured.hosts[0].security == dane.UNUSABLE


async def test_an_address_literal_has_no_domain_to_ask() -> None:
    literal = Route("[192.0.2.1]", (MailHost("", (ipaddress.ip_address("192.0.2.1"),)),))
    assert await World(sts(Mode.ENFORCE)).secure(route=literal) == literal


UNUSABLE_RECORD = "0 0 1 " + "ab" * 32


async def test_records_nobody_can_check_take_nothing_from_an_enforced_policy() -> None:
    """RFC 8461 section 2: a policy must not override a failing DANE; but here there is none to fail."""
    world = World(sts(Mode.ENFORCE, "mx1.d.example"), mx1=UNUSABLE_RECORD, mx2=UNUSABLE_RECORD)
    secured = await world.secure()
    assert [(host.name, host.security) for host in secured.hosts] == [("mx1.d.example", ENFORCE)]
    assert [host.applied and host.applied.kind for host in secured.hosts] == ["sts"]
    assert world.told == [("mx2.d.example", ResultType.VALIDATION_FAILURE)]


@pytest.mark.parametrize("mode", [Mode.TESTING, Mode.NONE])
async def test_nor_does_a_policy_that_is_only_tested_take_from_what_they_ask_for(mode: Mode) -> None:
    world = World(sts(mode, "mx1.d.example"), mx1=UNUSABLE_RECORD, mx2=UNUSABLE_RECORD)
    secured = await world.secure()
    assert [host.security for host in secured.hosts] == [dane.UNUSABLE] * 2
