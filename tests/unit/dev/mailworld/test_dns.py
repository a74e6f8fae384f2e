"""The made-up Internet's DNS answers as the real one would, over real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import pytest

from malote_dev.mailworld.dns import DnsServer


@pytest.fixture
async def world() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        server.add_zone("acme.example")
        yield server


async def ask(
    world: DnsServer, name: str, rdtype: str, *, tcp: bool = False, edns: int | bool = False, payload: int = 1232
) -> dns.message.Message:
    query = dns.message.make_query(name, rdtype, use_edns=edns, payload=payload)
    transport = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    return await transport(query, world.address, port=world.port, timeout=30)


def values(response: dns.message.Message) -> list[str]:
    return sorted(rdata.to_text() for rrset in response.answer for rdata in rrset)


@pytest.mark.parametrize("tcp", [False, True])
async def test_a_record_is_answered_with_authority_over_udp_and_tcp(world: DnsServer, tcp: bool) -> None:
    world.set("www.acme.example", "A", "127.0.0.9", "127.0.0.10", ttl=7)
    response = await ask(world, "www.acme.example", "A", tcp=tcp)
    assert response.rcode() == dns.rcode.NOERROR
    assert values(response) == ["127.0.0.10", "127.0.0.9"]
    assert response.answer[0].ttl == 7
    assert response.flags & dns.flags.AA
    assert response.flags & dns.flags.RA


async def test_a_zone_names_its_server_whose_address_is_this_one(world: DnsServer) -> None:
    assert values(await ask(world, "acme.example", "NS")) == ["ns.acme.example."]
    assert values(await ask(world, "ns.acme.example", "A")) == [world.address]


async def test_a_missing_name_and_a_missing_type_differ_and_both_carry_the_zones_soa(world: DnsServer) -> None:
    world.set("www.acme.example", "A", "127.0.0.9")
    missing_name = await ask(world, "no.acme.example", "A")
    missing_type = await ask(world, "www.acme.example", "MX")
    assert missing_name.rcode() == dns.rcode.NXDOMAIN
    assert missing_type.rcode() == dns.rcode.NOERROR
    for response in (missing_name, missing_type):
        assert not response.answer
        assert [(rrset.name.to_text(), rrset.rdtype) for rrset in response.authority] == [
            ("acme.example.", dns.rdatatype.SOA)
        ]


async def test_a_name_outside_every_zone_does_not_exist(world: DnsServer) -> None:
    response = await ask(world, "elsewhere.invalid", "MX")
    assert response.rcode() == dns.rcode.NXDOMAIN
    assert response.authority[0].name == dns.name.root


async def test_a_name_that_only_has_names_below_it_exists(world: DnsServer) -> None:
    world.set("s._domainkey.acme.example", "TXT", "v=DKIM1; p=")
    assert (await ask(world, "_domainkey.acme.example", "TXT")).rcode() == dns.rcode.NOERROR
    world.delete("s._domainkey.acme.example", "TXT")
    assert (await ask(world, "_domainkey.acme.example", "TXT")).rcode() == dns.rcode.NXDOMAIN


async def test_an_alias_is_followed_into_another_zone(world: DnsServer) -> None:
    world.add_zone("provider.example")
    world.set("s._domainkey.acme.example", "CNAME", "key.provider.example")
    world.set("key.provider.example", "TXT", "v=DKIM1; p=abc")
    response = await ask(world, "s._domainkey.acme.example", "TXT")
    assert values(response) == ['"v=DKIM1; p=abc"', "key.provider.example."]
    assert values(await ask(world, "s._domainkey.acme.example", "CNAME")) == ["key.provider.example."]


async def test_an_alias_to_nowhere_is_nxdomain_and_a_loop_is_servfail(world: DnsServer) -> None:
    world.set("a.acme.example", "CNAME", "gone.acme.example")
    assert (await ask(world, "a.acme.example", "A")).rcode() == dns.rcode.NXDOMAIN
    world.set("b.acme.example", "CNAME", "c.acme.example")
    world.set("c.acme.example", "CNAME", "b.acme.example")
    assert (await ask(world, "b.acme.example", "A")).rcode() == dns.rcode.SERVFAIL


async def test_a_wildcard_answers_for_what_does_not_exist_only(world: DnsServer) -> None:
    world.set("*.acme.example", "TXT", "wild")
    world.set("tame.acme.example", "A", "127.0.0.9")
    response = await ask(world, "Any.acme.example", "TXT")
    assert values(response) == ['"wild"']
    assert response.answer[0].name.to_text() == "Any.acme.example."
    assert values(await ask(world, "tame.acme.example", "TXT")) == []
    assert (await ask(world, "below.tame.acme.example", "TXT")).rcode() == dns.rcode.NXDOMAIN


async def test_mx_answers_bring_the_hosts_addresses_along(world: DnsServer) -> None:
    world.set("acme.example", "MX", "10 mx1.acme.example.", "20 mx2.acme.example")
    world.set("mx1.acme.example", "A", "127.0.0.9")
    response = await ask(world, "acme.example", "MX")
    assert values(response) == ["10 mx1.acme.example.", "20 mx2.acme.example."]
    assert [rdata.to_text() for rrset in response.additional for rdata in rrset] == ["127.0.0.9"]


async def test_the_null_mx_and_a_long_text_are_published_as_written(world: DnsServer) -> None:
    world.set("acme.example", "MX", "0 .")
    assert values(await ask(world, "acme.example", "MX")) == ["0 ."]
    text = 'v=DKIM1; p="\\' + "x" * 600
    world.set("s._domainkey.acme.example", "TXT", text)
    rdata = (await ask(world, "s._domainkey.acme.example", "TXT", edns=0)).answer[0][0]
    assert [len(part) for part in rdata.strings] == [255, 255, len(text) - 510]
    assert b"".join(rdata.strings).decode() == text
    assert world.get("s._domainkey.acme.example", "TXT") == (text,)


async def test_an_answer_too_long_for_udp_is_cut_and_complete_over_tcp(world: DnsServer) -> None:
    world.set("big.acme.example", "TXT", *(f"{number:03}" + "x" * 200 for number in range(4)))
    cut = await ask(world, "big.acme.example", "TXT")
    assert cut.flags & dns.flags.TC
    assert not cut.answer
    assert len(values(await ask(world, "big.acme.example", "TXT", tcp=True))) == 4
    with_edns = await ask(world, "big.acme.example", "TXT", edns=0)
    assert not with_edns.flags & dns.flags.TC
    assert with_edns.edns == 0
    assert len(values(with_edns)) == 4


async def test_an_unknown_edns_version_is_badvers(world: DnsServer) -> None:
    assert (await ask(world, "acme.example", "SOA", edns=1)).rcode() == dns.rcode.BADVERS


@pytest.mark.parametrize("code", ["SERVFAIL", "REFUSED"])
async def test_a_failure_holds_for_a_name_and_all_below_until_it_is_lifted(world: DnsServer, code: str) -> None:
    world.set("_dmarc.acme.example", "TXT", "v=DMARC1; p=none")
    world.fail("acme.example", code)
    for name in ("acme.example", "_dmarc.acme.example", "no.acme.example"):
        assert dns.rcode.to_text((await ask(world, name, "TXT")).rcode()) == code
    assert (await ask(world, "example", "TXT")).rcode() == dns.rcode.NOERROR
    world.fail("acme.example", None)
    assert values(await ask(world, "_dmarc.acme.example", "TXT")) == ['"v=DMARC1; p=none"']


async def test_an_alias_into_a_failing_domain_fails(world: DnsServer) -> None:
    world.set("a.acme.example", "CNAME", "key.provider.example")
    world.fail("provider.example", "SERVFAIL")
    response = await ask(world, "a.acme.example", "TXT")
    assert response.rcode() == dns.rcode.SERVFAIL
    assert not response.answer


async def test_a_server_told_to_time_out_says_nothing(world: DnsServer) -> None:
    world.fail("acme.example", "TIMEOUT")
    query = dns.message.make_query("acme.example", "SOA")
    with pytest.raises(dns.exception.Timeout):
        await dns.asyncquery.udp(query, world.address, port=world.port, timeout=0.2)


async def test_what_was_asked_is_kept(world: DnsServer) -> None:
    await ask(world, "Acme.Example", "MX", tcp=True)
    (query,) = world.queries
    assert (query.name, query.rdtype, query.transport, query.client) == ("acme.example", "MX", "tcp", "127.0.0.1")


async def test_rubbish_gets_a_format_error_and_the_server_lives_on(world: DnsServer) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        for rubbish in (b"", b"short", b"\x12\x34" + b"\x00" * 3 + b"\x01" + b"\x00" * 6 + b"\xff" * 20):
            await loop.sock_sendto(client, rubbish, (world.address, world.port))
        reply = await asyncio.wait_for(loop.sock_recv(client, 512), 30)
    assert reply[:2] == b"\x12\x34"
    assert reply[3] & 0x0F == dns.rcode.FORMERR
    assert values(await ask(world, "ns.acme.example", "A")) == [world.address]


async def test_zone_transfers_are_refused(world: DnsServer) -> None:
    assert (await ask(world, "acme.example", "AXFR", tcp=True)).rcode() == dns.rcode.REFUSED


async def test_a_wrong_value_is_refused_with_its_name(world: DnsServer) -> None:
    with pytest.raises(ValueError, match=r"www\.acme\.example A 'not an address'"):
        world.set("www.acme.example", "A", "not an address")


async def test_two_records_are_replaced_by_one(world: DnsServer) -> None:
    world.set("acme.example", "TXT", "one", "two")
    world.set("acme.example", "TXT", "three")
    assert values(await ask(world, "acme.example", "TXT")) == ['"three"']
    world.set("acme.example", "TXT")
    assert values(await ask(world, "acme.example", "TXT")) == []
