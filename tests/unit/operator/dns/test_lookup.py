"""Asking the domain's own servers, over real sockets, in a made-up Internet."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from malote_dev.mailworld.dns import DnsServer
from malote_operator.dns.lookup import Lookup
from malote_operator.dns.model import Answer, Outcome, Question
from malote_operator.settings import Dns

ADDRESS = "127.53.6.1"


@pytest.fixture
async def world() -> AsyncIterator[DnsServer]:
    async with DnsServer(ADDRESS) as server:
        server.add_zone("acme.example")
        yield server


def lookup(world: DnsServer, *, allow: tuple[str, ...] = ("127.0.0.0/8",), timeout: float = 10.0) -> Lookup:
    return Lookup(Dns(nameservers=(world.address,), port=world.port, allow_networks=allow, timeout=timeout))


def there(answer: Answer | None) -> Answer:
    assert answer is not None
    return answer


async def test_the_three_records_are_found_with_their_strings_joined(world: DnsServer) -> None:
    key = "v=DKIM1; k=rsa; p=" + "A" * 400
    world.set("acme.example", "TXT", "v=spf1 include:spf.example.net -all", "other")
    world.set("m1._domainkey.acme.example", "TXT", key)
    world.set("_dmarc.acme.example", "TXT", "v=DMARC1; p=none")
    seen = await lookup(world).observe(Question("acme.example", "m1"))
    assert set(there(seen.spf).texts) == {"v=spf1 include:spf.example.net -all", "other"}
    assert seen.dkim is not None
    assert seen.dkim.texts == (key,)
    assert seen.dkim.name == "m1._domainkey.acme.example"
    assert there(seen.dmarc).texts == ("v=DMARC1; p=none",)
    assert {there(seen.spf).outcome, seen.dkim.outcome, there(seen.dmarc).outcome} == {Outcome.ANSWERED}


async def test_names_and_types_that_do_not_exist_are_absent(world: DnsServer) -> None:
    seen = await lookup(world).observe(Question("acme.example", "m1"))
    assert seen.dkim is not None
    assert {there(seen.spf).outcome, seen.dkim.outcome, there(seen.dmarc).outcome} == {Outcome.ABSENT}
    nowhere = await lookup(world).observe(Question("nowhere.example"))
    assert there(nowhere.spf).outcome is there(nowhere.dmarc).outcome is Outcome.ABSENT
    assert nowhere.dkim is None


async def test_a_record_that_appears_is_seen_at_the_next_look(world: DnsServer) -> None:
    looking = lookup(world)
    assert there((await looking.observe(Question("acme.example"))).spf).outcome is Outcome.ABSENT
    world.set("acme.example", "TXT", "v=spf1 -all", ttl=3600)
    assert there((await looking.observe(Question("acme.example"))).spf).texts == ("v=spf1 -all",)
    world.set("acme.example", "TXT", "v=spf1 ~all", ttl=3600)
    assert there((await looking.observe(Question("acme.example"))).spf).texts == ("v=spf1 ~all",)


@pytest.mark.parametrize("how", ["SERVFAIL", "REFUSED", "TIMEOUT"])
async def test_a_failure_is_not_absence_and_the_other_records_are_still_seen(world: DnsServer, how: str) -> None:
    world.set("acme.example", "TXT", "v=spf1 -all")
    world.fail("_dmarc.acme.example", how)
    seen = await lookup(world, timeout=2.0 if how == "TIMEOUT" else 10.0).observe(Question("acme.example"))
    assert there(seen.dmarc).outcome is Outcome.FAILED
    assert there(seen.dmarc).error
    assert there(seen.spf).outcome is Outcome.ANSWERED


@pytest.mark.parametrize("how", ["SERVFAIL", "REFUSED", "TIMEOUT"])
async def test_when_only_the_domains_own_server_fails_it_is_named_with_what_it_said(
    world: DnsServer, how: str
) -> None:
    async with DnsServer("127.53.6.2", world.port) as own:
        own.add_zone("acme.example")
        own.set("acme.example", "TXT", "v=spf1 -all")
        own.fail("_dmarc.acme.example", how)
        world.set("ns.acme.example", "A", own.address)
        seen = await lookup(world, timeout=2.0 if how == "TIMEOUT" else 10.0).observe(Question("acme.example"))
    assert there(seen.spf).texts == ("v=spf1 -all",)
    assert there(seen.dmarc).outcome is Outcome.FAILED
    assert own.address in there(seen.dmarc).error
    assert {"TIMEOUT": "timed out"}.get(how, how) in there(seen.dmarc).error


async def test_looking_up_ends_in_bounded_time_when_nobody_answers(world: DnsServer) -> None:
    world.fail(".", "TIMEOUT")
    async with asyncio.timeout(60):
        seen = await lookup(world, timeout=0.3).observe(Question("acme.example", "m1"))
    assert seen.dkim is not None
    assert {there(seen.spf).outcome, seen.dkim.outcome, there(seen.dmarc).outcome} == {Outcome.FAILED}


async def test_name_servers_at_internal_addresses_are_not_asked_unless_allowed(world: DnsServer) -> None:
    world.set("acme.example", "TXT", "v=spf1 -all")
    seen = await lookup(world, allow=()).observe(Question("acme.example"))
    assert there(seen.spf).outcome is Outcome.FAILED
    assert "internal addresses" in there(seen.spf).error
    assert not any(query.rdtype == "TXT" for query in world.queries)


async def test_the_servers_of_the_closest_zone_are_asked_not_the_resolver(world: DnsServer) -> None:
    async with DnsServer("127.53.6.2", world.port) as child:
        child.add_zone("sub.acme.example")
        child.set("sub.acme.example", "TXT", "v=spf1 a -all")
        world.set("sub.acme.example", "NS", "ns.sub.acme.example.")
        world.set("ns.sub.acme.example", "A", child.address)
        world.set("sub.acme.example", "TXT", "stale")
        seen = await lookup(world).observe(Question("sub.acme.example"))
        assert there(seen.spf).texts == ("v=spf1 a -all",)


async def test_a_server_that_fails_gives_way_to_the_next(world: DnsServer) -> None:
    world.set("acme.example", "NS", "dead.acme.example.", "ns.acme.example.")
    world.set("dead.acme.example", "A", "127.53.6.77")
    world.set("acme.example", "TXT", "v=spf1 -all")
    seen = await lookup(world).observe(Question("acme.example"))
    assert there(seen.spf).texts == ("v=spf1 -all",)


async def test_cnames_are_followed_into_other_zones_and_told(world: DnsServer) -> None:
    world.add_zone("dkim.example.net")
    world.set("m1._domainkey.acme.example", "CNAME", "m1.t.dkim.example.net.")
    world.set("m1.t.dkim.example.net", "TXT", "v=DKIM1; p=QQ==")
    seen = await lookup(world).observe(Question("acme.example", "m1"))
    assert seen.dkim is not None
    assert seen.dkim.cname == ("m1.t.dkim.example.net",)
    assert seen.dkim.texts == ("v=DKIM1; p=QQ==",)
    world.delete("m1.t.dkim.example.net")
    seen = await lookup(world).observe(Question("acme.example", "m1"))
    assert seen.dkim is not None
    assert (seen.dkim.cname, seen.dkim.texts) == (("m1.t.dkim.example.net",), ())


async def test_a_return_paths_mx_and_spf_records_are_asked_for_only_where_there_is_one(world: DnsServer) -> None:
    host = "bounces.acme.example"
    seen = await lookup(world).observe(Question("acme.example", "m1"))
    assert (seen.return_path_mx, seen.return_path_spf) == (None, None)
    assert not any(query.name == host for query in world.queries)
    absent = await lookup(world).observe(Question("acme.example", "m1", host))
    assert absent.return_path_mx is not None
    assert absent.return_path_mx.outcome is Outcome.ABSENT
    world.set(host, "MX", "10 Acme.SMTP.example.net.", "20 mx.example.")
    world.set(host, "TXT", "v=spf1 -all")
    found = await lookup(world).observe(Question("acme.example", "m1", host))
    assert found.return_path_mx is not None
    assert found.return_path_spf is not None
    assert (found.return_path_mx.name, found.return_path_spf.name) == (host, host)
    assert set(found.return_path_mx.texts) == {"10 acme.smtp.example.net", "20 mx.example"}
    assert found.return_path_spf.texts == ("v=spf1 -all",)
    world.set(host, "MX", "0 .")
    null = await lookup(world).observe(Question("acme.example", "m1", host))
    assert null.return_path_mx is not None
    assert null.return_path_mx.texts == ("0 .",)


async def test_a_return_path_may_be_a_cname_to_a_name_of_the_platforms(world: DnsServer) -> None:
    world.add_zone("platform.example")
    world.set("bounces.acme.example", "CNAME", "acme.bounces.platform.example.")
    world.set("acme.bounces.platform.example", "MX", "10 acme.smtp.platform.example.")
    world.set("acme.bounces.platform.example", "TXT", "v=spf1 include:spf.platform.example -all")
    seen = await lookup(world).observe(Question("acme.example", return_path="bounces.acme.example"))
    assert seen.return_path_mx is not None
    assert seen.return_path_spf is not None
    assert seen.return_path_mx.texts == ("10 acme.smtp.platform.example",)
    assert seen.return_path_spf.texts == ("v=spf1 include:spf.platform.example -all",)


async def test_a_circle_of_cnames_ends_as_a_failure(world: DnsServer) -> None:
    world.set("_dmarc.acme.example", "CNAME", "a.acme.example.")
    world.set("a.acme.example", "CNAME", "_dmarc.acme.example.")
    seen = await lookup(world).observe(Question("acme.example"))
    assert there(seen.dmarc).outcome is Outcome.FAILED


async def test_a_host_has_addresses_of_both_families_and_each_leads_back(world: DnsServer) -> None:
    world.set("acme.example", "A", "192.0.2.9", "192.0.2.25")
    world.set("acme.example", "AAAA", "2001:db8::25")
    world.set("25.2.0.192.in-addr.arpa", "CNAME", "25.sub.acme.example.")  # RFC 2317
    world.set("25.sub.acme.example", "PTR", "Out.Acme.Example.")
    world.set(f"5.2{'.0' * 22}.8.b.d.0.1.0.0.2.ip6.arpa", "PTR", "b.example.", "a.example.")
    seen = await lookup(world).observe(Question("acme.example", "m1", host=True))
    assert there(seen.host).texts == ("192.0.2.25", "192.0.2.9", "2001:db8::25")
    assert [one.texts for one in seen.reverse] == [("out.acme.example",), (), ("a.example", "b.example")]
    assert [one.outcome for one in seen.reverse] == [Outcome.ANSWERED, Outcome.ABSENT, Outcome.ANSWERED]
    assert seen.reverse[0].name == "25.2.0.192.in-addr.arpa"


async def test_a_host_without_addresses_has_none_and_servers_that_fail_leave_them_unknown(
    world: DnsServer,
) -> None:
    none = await lookup(world).observe(Question("acme.example", "m1", host=True))
    assert (there(none.host).outcome, none.reverse) == (Outcome.ABSENT, ())
    world.fail("acme.example", "SERVFAIL")
    failed = await lookup(world).observe(Question("acme.example", "m1", host=True))
    assert (there(failed.host).outcome, failed.reverse) == (Outcome.FAILED, ())


async def test_only_what_is_wanted_is_asked_for(world: DnsServer) -> None:
    world.fail("_dmarc.acme.example", "SERVFAIL")
    seen = await lookup(world).observe(Question("acme.example", "m1", dmarc=False))
    assert seen.dmarc is None
    assert [one.outcome for one in seen.answers] == [Outcome.ABSENT] * 2
    bare = await lookup(world).observe(Question("acme.example", "m1", spf=False, dmarc=False))
    assert [one.name for one in bare.answers] == ["m1._domainkey.acme.example"]
