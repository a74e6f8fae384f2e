from __future__ import annotations

import ipaddress
import random
from collections.abc import Mapping, Sequence

import pytest

from malote_relay import config
from malote_relay.delivery.route import MAX_HOSTS, Policy, Unroutable, interleaved, route
from malote_relay.resolver import IPAddress, Mx, NoRecords, NoSuchDomain, ResolverError, TemporaryFailure

PUBLIC = "93.184.216.34"


class Names:
    """A DNS made of dictionaries; a missing name does not exist."""

    def __init__(
        self,
        mx: Mapping[str, Sequence[tuple[int, str]] | ResolverError],
        addresses: Mapping[str, Sequence[str] | ResolverError],
    ):
        self._mx = mx
        self._addresses = addresses

    async def mx(self, domain: str) -> tuple[Mx, ...]:
        found = self._mx.get(domain, NoSuchDomain(domain))
        if isinstance(found, ResolverError):
            raise found
        return tuple(Mx(*one) for one in found)

    async def addresses(self, host: str) -> tuple[IPAddress, ...]:
        found = self._addresses.get(host, NoSuchDomain(host))
        if isinstance(found, ResolverError):
            raise found
        return tuple(ipaddress.ip_address(one) for one in found)


async def hosts(names: Names, domain: str = "d.example", policy: Policy | None = None, seed: int = 0) -> list[str]:
    found = await route(domain, names, policy or Policy(), random.Random(seed))
    return [host.name for host in found.hosts]


async def refused(names: Names, domain: str = "d.example", policy: Policy | None = None) -> Unroutable:
    with pytest.raises(Unroutable) as caught:
        await route(domain, names, policy or Policy(), random.Random(0))
    return caught.value


async def test_hosts_come_by_preference() -> None:
    names = Names(
        {"d.example": [(20, "b.example"), (10, "a.example"), (30, "c.example")]},
        {"a.example": [PUBLIC], "b.example": [PUBLIC], "c.example": [PUBLIC]},
    )
    assert await hosts(names) == ["a.example", "b.example", "c.example"]


async def test_hosts_of_equal_preference_are_shuffled_by_the_given_source() -> None:
    names = Names(
        {"d.example": [(10, "a.example"), (10, "b.example"), (5, "first.example")]},
        {name: [PUBLIC] for name in ("a.example", "b.example", "first.example")},
    )
    orders = {tuple(await hosts(names, seed=seed)) for seed in range(20)}
    assert orders == {("first.example", "a.example", "b.example"), ("first.example", "b.example", "a.example")}


async def test_a_domain_without_mx_is_its_own_host() -> None:
    names = Names({"d.example": NoRecords("no MX")}, {"d.example": [PUBLIC]})
    assert await hosts(names) == ["d.example"]


@pytest.mark.parametrize("records", [[(0, "")], [(0, ""), (10, "")]], ids=["once", "twice"])
async def test_the_null_mx_refuses_for_good(records: Sequence[tuple[int, str]]) -> None:
    error = await refused(Names({"d.example": records}, {}))
    assert (error.permanent, error.bounce_class) == (True, "bad-domain")
    assert error.reply.startswith("556 5.1.10")


async def test_a_domain_that_does_not_exist_fails_and_one_that_nobody_could_ask_for_waits() -> None:
    gone = await refused(Names({}, {}))
    assert (gone.permanent, gone.bounce_class, gone.reply[:9]) == (True, "bad-domain", "550 5.1.2")
    unknown = await refused(Names({"d.example": TemporaryFailure("SERVFAIL")}, {}))
    assert (unknown.permanent, unknown.reply[:9]) == (False, "451 4.4.3")


async def test_an_mx_host_that_cannot_be_looked_up_makes_it_wait_only_when_no_other_can() -> None:
    mx = {"d.example": [(10, "a.example"), (20, "b.example")]}
    assert await hosts(Names(mx, {"a.example": TemporaryFailure("x"), "b.example": [PUBLIC]})) == ["b.example"]
    error = await refused(Names(mx, {"a.example": TemporaryFailure("x")}))
    assert not error.permanent
    assert (await refused(Names(mx, {"a.example": NoRecords("x")}))).permanent


async def test_the_relay_and_hosts_not_better_than_it_are_no_destination() -> None:
    policy = Policy(own_names=frozenset({"relay.example"}))
    mx = {"d.example": [(10, "a.example"), (20, "relay.example"), (20, "b.example"), (30, "c.example")]}
    names = Names(mx, {name: [PUBLIC] for name in ("a.example", "b.example", "c.example", "relay.example")})
    assert await hosts(names, policy=policy) == ["a.example"]
    loop = await refused(Names({"d.example": [(10, "relay.example")]}, {}), policy=policy)
    assert (loop.permanent, loop.reply[:9]) == (True, "554 5.4.6")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::", "::1", "fe80::1", "fc00::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "::10.0.0.1",
        "2001:db8::1", "fec0::1", "64:ff9b:1::1", "::ffff:0:10.0.0.1", "3fff::1", "5f00::1",
    ],
)  # fmt: skip
async def test_addresses_inside_are_refused(address: str) -> None:
    names = Names({"d.example": [(10, "a.example")]}, {"a.example": [address]})
    error = await refused(names)
    assert (error.permanent, error.bounce_class, error.reply[:9]) == (True, "routing", "550 5.4.4")
    assert "allowNetworks" in error.reply


@pytest.mark.parametrize("address", [PUBLIC, "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"])
async def test_public_addresses_are_taken(address: str) -> None:
    assert await hosts(Names({"d.example": [(10, "a.example")]}, {"a.example": [address]})) == ["a.example"]


async def test_inside_addresses_are_taken_from_the_allowed_networks_only() -> None:
    policy = Policy(allow_networks=(ipaddress.ip_network("10.1.0.0/16"),))
    names = Names({"d.example": [(10, "a.example")]}, {"a.example": ["10.2.0.1", "10.1.0.1", "::ffff:10.1.0.2"]})
    found = await route("d.example", names, policy, random.Random(0))
    assert set(found.hosts[0].addresses) == {
        ipaddress.ip_address("10.1.0.1"),
        ipaddress.ip_address("::ffff:10.1.0.2"),
    }


async def test_an_own_address_is_refused_even_in_an_allowed_network() -> None:
    policy = Policy(
        own_addresses=frozenset({ipaddress.ip_address("10.1.0.1")}),
        allow_networks=(ipaddress.ip_network("10.0.0.0/8"),),
    )
    error = await refused(Names({"d.example": [(10, "a.example")]}, {"a.example": ["10.1.0.1"]}), policy=policy)
    assert "itself" in error.reply


@pytest.mark.parametrize(
    ("literal", "address"),
    [(f"[{PUBLIC}]", PUBLIC), ("[IPv6:2606:2800:220:1::1]", "2606:2800:220:1::1")],
)
async def test_an_address_literal_is_its_own_route(literal: str, address: str) -> None:
    found = await route(literal, Names({}, {}), Policy(), random.Random(0))
    assert found.hosts[0].addresses == (ipaddress.ip_address(address),)
    assert found.destination == address


@pytest.mark.parametrize("literal", ["[127.0.0.1]", "[IPv6:::1]", "[IPv6:::ffff:10.0.0.1]", "[nonsense]", "[1.2.3.4"])
async def test_an_address_literal_gets_no_further_than_a_name(literal: str) -> None:
    assert (await refused(Names({}, {}), literal)).permanent


async def test_domains_with_the_same_hosts_are_one_destination() -> None:
    names = Names(
        {"d.example": [(10, "a.example"), (20, "b.example")], "e.example": [(10, "b.example"), (20, "a.example")]},
        {"a.example": [PUBLIC], "b.example": [PUBLIC]},
    )
    one, other = [await route(domain, names, Policy(), random.Random(0)) for domain in ("d.example", "e.example")]
    assert one.destination == other.destination


async def test_a_destination_stays_the_same_whichever_of_its_hosts_can_be_looked_up() -> None:
    mx = {"d.example": [(10, "a.example"), (20, "b.example")]}
    good = Names(mx, {"a.example": [PUBLIC], "b.example": [PUBLIC]})
    broken = Names(mx, {"a.example": TemporaryFailure("SERVFAIL"), "b.example": [PUBLIC]})
    one, other = [await route("d.example", names, Policy(), random.Random(0)) for names in (good, broken)]
    assert [host.name for host in other.hosts] == ["b.example"]
    assert one.destination == other.destination == "a.example,b.example"


@pytest.mark.parametrize("count", [MAX_HOSTS + 5, 500])
async def test_a_destination_stays_the_same_whichever_of_its_many_hosts_are_drawn(count: int) -> None:
    many = [(10, f"h{number}.example") for number in range(count)]
    found = {host: [PUBLIC] for _, host in many}
    routes = [
        await route("d.example", Names({"d.example": many}, found), Policy(), random.Random(seed))
        for seed in range(5)
    ]
    assert len({route.hosts for route in routes}) == 5
    assert len({route.destination for route in routes}) == 1
    assert len(routes[0].destination) < 1000
    fewer = await route("d.example", Names({"d.example": many[:-1]}, found), Policy(), random.Random(0))
    assert fewer.destination != routes[0].destination


@pytest.mark.parametrize("host", ["93.184.216.34", "localhost"])
async def test_an_mx_that_is_no_host_name_is_no_way_in(host: str) -> None:
    """An address in the place of an MX host is a name that does not exist; what it resolves to is checked too."""
    assert (await refused(Names({"d.example": [(10, host)]}, {}))).permanent
    inside = await refused(Names({"d.example": [(10, host)]}, {host: ["127.0.0.1"]}))
    assert (inside.permanent, inside.reply[:9]) == (True, "550 5.4.4")


async def test_of_many_mx_hosts_the_best_are_looked_at() -> None:
    many = [(number, f"h{number}.example") for number in range(MAX_HOSTS + 50)]
    names = Names({"d.example": many}, {host: [PUBLIC] for _, host in many})
    assert await hosts(names) == [host for _, host in many[:MAX_HOSTS]]


@pytest.mark.parametrize("where", ["smart.example", "10.0.0.9"])
async def test_with_a_smart_host_everything_goes_there_inside_or_not(where: str) -> None:
    smart = config.SmartHost(host=where, port=2587, tls=config.SmartHostTls.IMPLICIT)
    names = Names({}, {"smart.example": ["10.0.0.9"]})
    for domain in ("d.example", "e.example", "[192.0.2.1]"):
        found = await route(domain, names, Policy(smart_host=smart), random.Random(0))
        assert (found.domain, found.port, found.destination) == (domain, 2587, where)
        assert [str(address) for address in found.hosts[0].addresses] == ["10.0.0.9"]
        assert found.hosts[0].security.implicit
        assert found.hosts[0].security.required
    error = await refused(Names({}, {}), policy=Policy(smart_host=config.SmartHost(host="gone.example")))
    assert not error.permanent


def test_families_take_turns() -> None:
    addresses = [ipaddress.ip_address(one) for one in ("2606::1", "2606::2", "1.1.1.1")]
    assert [str(one) for one in interleaved(addresses)] == ["2606::1", "1.1.1.1", "2606::2"]


def test_the_policy_follows_the_configuration() -> None:
    relay = config.RelayConfig(
        tenant="t",
        hostname="Relay.Example.",
        plan=config.Plan(name="p", messages_per_hour=1),
        delivery=config.Delivery(helo_name="out.example", source_address="10.0.0.9", allow_networks=("10.0.0.0/8",)),
    )
    policy = Policy.of(relay)
    assert policy.own_names == {"relay.example", "out.example"}
    assert policy.refusal(ipaddress.ip_address("10.0.0.9"))
    assert not policy.refusal(ipaddress.ip_address("10.0.0.8"))
