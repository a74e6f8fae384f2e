"""Questions to a real DNS server over UDP."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator

import pytest

from malote_dev.mailworld.dns import DnsServer
from malote_relay import config
from malote_relay.resolver import Mx, NoRecords, NoSuchDomain, Resolver, TemporaryFailure


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        yield server


class Ticks:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


@pytest.fixture
def resolver(dns: DnsServer, ticks: Ticks) -> Resolver:
    return Resolver(config.Resolver(nameservers=(dns.address,), port=dns.port, timeout=10.0), clock=ticks)


async def test_records_are_read(dns: DnsServer, resolver: Resolver) -> None:
    dns.set("d.example", "MX", "20 B.example.", "10 a.example.")
    dns.set("a.example", "A", "192.0.2.1")
    dns.set("a.example", "AAAA", "2001:db8::1")
    dns.set("d.example", "TXT", "v=spf1 " + "x" * 400, "other")
    assert await resolver.mx("D.Example") == (Mx(10, "a.example"), Mx(20, "b.example"))
    assert await resolver.addresses("a.example") == tuple(map(ipaddress.ip_address, ("2001:db8::1", "192.0.2.1")))
    assert set(await resolver.txt("d.example")) == {b"v=spf1 " + b"x" * 400, b"other"}


async def test_the_null_mx_is_an_empty_host(dns: DnsServer, resolver: Resolver) -> None:
    dns.set("d.example", "MX", "0 .")
    assert await resolver.mx("d.example") == (Mx(0, ""),)


async def test_not_there_empty_and_unknown_are_told_apart(dns: DnsServer, resolver: Resolver) -> None:
    dns.set("d.example", "A", "192.0.2.1")
    with pytest.raises(NoSuchDomain):
        await resolver.mx("gone.example")
    with pytest.raises(NoRecords):
        await resolver.mx("d.example")
    for how in ("SERVFAIL", "REFUSED"):
        dns.fail("bad.example", how)
        with pytest.raises(TemporaryFailure):
            await resolver.mx("bad.example")
    dns.fail("bad.example", "TIMEOUT")
    impatient = Resolver(config.Resolver(nameservers=(dns.address,), port=dns.port, timeout=0.3))
    with pytest.raises(TemporaryFailure):
        await impatient.mx("bad.example")


@pytest.mark.parametrize("name", ["a..example", "x" * 64 + ".example", "x." * 128 + "example"])
async def test_what_is_no_domain_name_does_not_exist(resolver: Resolver, name: str) -> None:
    with pytest.raises(NoSuchDomain):
        await resolver.mx(name)


async def test_one_family_is_enough(dns: DnsServer, resolver: Resolver) -> None:
    dns.set("a.example", "AAAA", "2001:db8::1")
    assert await resolver.addresses("a.example") == (ipaddress.ip_address("2001:db8::1"),)
    dns.set("nothing.example", "TXT", "x")
    with pytest.raises(NoRecords):
        await resolver.addresses("nothing.example")


async def test_an_alias_leads_to_what_it_names(dns: DnsServer, resolver: Resolver) -> None:
    dns.set("alias.example", "CNAME", "d.example.")
    dns.set("d.example", "MX", "10 a.example.")
    dns.set("loop.example", "CNAME", "loop.example.")
    assert await resolver.mx("alias.example") == (Mx(10, "a.example"),)
    with pytest.raises((NoSuchDomain, TemporaryFailure)):
        await resolver.mx("loop.example")


async def test_answers_are_kept_for_their_ttl_and_no_longer(dns: DnsServer, resolver: Resolver, ticks: Ticks) -> None:
    dns.set("d.example", "MX", "10 a.example.", ttl=30)
    await resolver.mx("d.example")
    dns.set("d.example", "MX", "10 b.example.", ttl=30)
    ticks.now = 29
    assert await resolver.mx("d.example") == (Mx(10, "a.example"),)
    ticks.now = 31
    assert await resolver.mx("d.example") == (Mx(10, "b.example"),)


@pytest.mark.parametrize("validating", [True, False])
async def test_what_is_vouched_for_is_told_by_a_validating_resolver_only(dns: DnsServer, validating: bool) -> None:
    dns.sign("d.example", unasked=True)
    dns.set("d.example", "MX", "10 a.d.example.")
    dns.set("a.d.example", "CNAME", "out.example.")
    dns.set("b.d.example", "CNAME", "c.d.example.")
    dns.set("c.d.example", "A", "192.0.2.3")
    dns.set("out.example", "A", "192.0.2.1")
    settings = config.Resolver(nameservers=(dns.address,), port=dns.port, timeout=10.0, validating=validating)
    resolver = Resolver(settings)
    for _ in range(2):  # from the server, and from the cache
        assert (await resolver.examine("d.example", "MX")).authentic is validating
        assert (await resolver.examine("nothing.d.example", "MX")).authentic is validating
        assert (await resolver.examine("c.d.example", "MX")).authentic is validating
        alias = await resolver.examine("b.d.example", "A")
        assert (alias.authentic, alias.canonical) == (validating, "c.d.example")
        outside = await resolver.examine("a.d.example", "A")
        assert (outside.authentic, outside.canonical) == (False, "out.example")
        assert not (await resolver.examine("gone.example", "A")).authentic
    dns.fail("bad.d.example", "SERVFAIL")
    with pytest.raises(TemporaryFailure):
        await resolver.examine("bad.d.example", "TLSA")


async def test_a_failure_is_not_kept(dns: DnsServer, resolver: Resolver) -> None:
    dns.set("d.example", "MX", "10 a.example.")
    dns.fail("d.example", "SERVFAIL")
    with pytest.raises(TemporaryFailure):
        await resolver.mx("d.example")
    dns.fail("d.example", None)
    assert await resolver.mx("d.example") == (Mx(10, "a.example"),)


async def test_that_a_name_is_missing_is_kept_as_long_as_its_zone_says(
    dns: DnsServer, resolver: Resolver, ticks: Ticks
) -> None:
    for _ in range(3):
        with pytest.raises(NoSuchDomain):
            await resolver.mx("gone.example")
    assert len(dns.queries) == 1
    dns.set("gone.example", "MX", "10 a.example.")
    ticks.now = 2  # the zone's negative answers hold for one second
    assert await resolver.mx("gone.example") == (Mx(10, "a.example"),)


async def test_equal_questions_at_once_are_asked_once_and_one_askers_leaving_harms_no_other(
    dns: DnsServer, resolver: Resolver
) -> None:
    dns.set("d.example", "MX", "10 a.example.")
    askers = [asyncio.create_task(resolver.mx("d.example")) for _ in range(10)]
    await asyncio.sleep(0)
    askers[0].cancel()
    answers = await asyncio.gather(*askers, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == [(Mx(10, "a.example"),)] * 9
    assert len(dns.queries) == 1


async def test_other_name_servers_are_asked_at_once_after_a_change(dns: DnsServer, resolver: Resolver) -> None:
    dns.set("d.example", "MX", "10 a.example.", ttl=300)
    await resolver.mx("d.example")
    async with DnsServer() as other:
        other.set("d.example", "MX", "10 b.example.")
        resolver.reconfigure(config.Resolver(nameservers=(other.address,), port=other.port))
        assert await resolver.mx("d.example") == (Mx(10, "b.example"),)
