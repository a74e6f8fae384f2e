"""The verifier against mail signed by dkimpy: it must see what is right, and what is wrong in every way."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cache

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from malote_dev.mailworld.dns import DnsServer
from malote_dev.mailworld.verify import DnsAt, Verdict, organizational_domain, verify

MESSAGE = (
    b"From: Ana <ana@{}>\r\nTo: bob@dest.example\r\nSubject: Order 17\r\n"
    b"Date: Mon, 02 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@acme.example>\r\n\r\nHello Bob,\r\n\r\nbye\r\n"
)


@dataclass(frozen=True)
class Key:
    pem: bytes
    record: str


@cache
def key(number: int) -> Key:
    private = rsa.generate_private_key(65537, 2048)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return Key(pem, "v=DKIM1; k=rsa; p=" + "".join(public.decode().splitlines()[1:-1]))


def message(domain: str = "acme.example") -> bytes:
    return MESSAGE.replace(b"{}", domain.encode())


def signed(content: bytes, domain: str = "acme.example", number: int = 0) -> bytes:
    return bytes(dkim.sign(content, b"s1", domain.encode(), key(number).pem)) + content


@pytest.fixture
async def world() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        for domain in ("acme.example", "my-shop.example"):
            server.add_zone(domain)
            server.set(domain, "TXT", "v=spf1 include:spf.relay.example ~all")
            server.set(f"s1._domainkey.{domain}", "TXT", key(0).record)
            server.set(f"_dmarc.{domain}", "TXT", "v=DMARC1; p=reject; ")
        server.set("spf.relay.example", "TXT", "v=spf1 ip4:127.0.0.5 -all")
        yield server


async def check(
    world: DnsServer, content: bytes, *, client_ip: str = "127.0.0.5", mail_from: str = "ana@acme.example"
) -> Verdict:
    return await verify(content, client_ip, "out.relay.example", mail_from, world)


async def test_a_signed_message_from_a_listed_address_passes_everything(world: DnsServer) -> None:
    verdict = await check(world, signed(message()))
    assert verdict.all_pass, verdict
    assert (verdict.dkim_domain, verdict.dkim_selector) == ("acme.example", "s1")
    assert (verdict.dmarc, verdict.dmarc_policy, verdict.header_from) == ("pass", "reject", "acme.example")


async def test_a_domain_with_a_hyphen_is_not_cut_at_it(world: DnsServer) -> None:
    content = signed(message("my-shop.example"), "my-shop.example")
    assert (await check(world, content, mail_from="ana@my-shop.example")).all_pass


async def test_a_changed_body_breaks_the_signature_but_spf_still_carries_dmarc(world: DnsServer) -> None:
    verdict = await check(world, signed(message()).replace(b"Hello Bob", b"Hello Eve"))
    assert verdict.dkim == "fail"
    assert "body hash mismatch" in verdict.signatures[0].reason
    assert not verdict.dkim_aligned
    assert verdict.spf_aligned
    assert verdict.dmarc == "pass"
    assert not verdict.all_pass


async def test_a_changed_subject_breaks_the_signature(world: DnsServer) -> None:
    assert (await check(world, signed(message()).replace(b"Order 17", b"Order 18"))).dkim == "fail"


async def test_another_published_key_does_not_verify(world: DnsServer) -> None:
    world.set("s1._domainkey.acme.example", "TXT", key(1).record)
    assert (await check(world, signed(message()))).dkim == "fail"


async def test_a_missing_key_does_not_verify_and_the_reason_says_so(world: DnsServer) -> None:
    world.delete("s1._domainkey.acme.example", "TXT")
    verdict = await check(world, signed(message()))
    assert verdict.dkim == "fail"
    assert "missing public key" in verdict.signatures[0].reason


def test_domains_below_a_top_level_that_no_list_knows_are_strangers() -> None:
    assert organizational_domain("out.relay.example") == "relay.example"
    assert organizational_domain("a.b.co.uk") == "b.co.uk"
    assert organizational_domain("example") == "example"


async def test_an_unreachable_key_is_a_temporary_error(world: DnsServer) -> None:
    world.fail("_domainkey.acme.example", "SERVFAIL")
    assert (await check(world, signed(message()))).dkim == "temperror"


async def test_an_unsigned_message_has_no_dkim_result(world: DnsServer) -> None:
    verdict = await check(world, message())
    assert (verdict.dkim, verdict.signatures) == ("none", ())


async def test_a_passing_signature_counts_beside_a_broken_one(world: DnsServer) -> None:
    content = signed(message())
    broken = bytes(dkim.sign(content, b"other", b"acme.example", key(1).pem)) + content
    verdict = await check(world, broken)
    assert [signature.result for signature in verdict.signatures] == ["fail", "pass"]
    assert verdict.all_pass


async def test_an_address_that_is_not_listed_softfails(world: DnsServer) -> None:
    verdict = await check(world, signed(message()), client_ip="127.0.0.6")
    assert verdict.spf == "softfail"
    assert not verdict.spf_aligned
    assert verdict.dmarc == "pass"  # by DKIM
    assert not verdict.all_pass


async def test_spf_without_an_answer_is_a_temporary_error(world: DnsServer) -> None:
    world.fail("spf.relay.example", "SERVFAIL")
    assert (await check(world, signed(message()))).spf == "temperror"


async def test_the_null_sender_is_judged_by_the_helo_name(world: DnsServer) -> None:
    world.set("out.relay.example", "TXT", "v=spf1 ip4:127.0.0.5 -all")
    verdict = await check(world, signed(message()), mail_from="")
    assert verdict.spf == "pass"
    assert not verdict.spf_aligned
    assert verdict.dmarc == "pass"


async def test_identifiers_of_another_domain_do_not_align(world: DnsServer) -> None:
    content = signed(message("victim.example"))
    world.set("_dmarc.victim.example", "TXT", "v=DMARC1; p=reject")
    verdict = await check(world, content)
    assert (verdict.dkim, verdict.spf) == ("pass", "pass")
    assert not verdict.dkim_aligned
    assert not verdict.spf_aligned
    assert (verdict.dmarc, verdict.dmarc_policy) == ("fail", "reject")


async def test_strict_alignment_wants_the_exact_domain(world: DnsServer) -> None:
    world.set("news.acme.example", "TXT", "v=spf1 ip4:127.0.0.5 -all")
    content = signed(message())
    assert (await check(world, content, mail_from="ana@news.acme.example")).spf_aligned
    world.set("_dmarc.acme.example", "TXT", "v=DMARC1; p=reject; aspf=s; adkim=s")
    verdict = await check(world, content, mail_from="ana@news.acme.example")
    assert not verdict.spf_aligned
    assert verdict.dkim_aligned


async def test_no_dmarc_record_and_two_of_them_are_the_same(world: DnsServer) -> None:
    world.set("_dmarc.acme.example", "TXT", "v=DMARC1; p=none", "v=DMARC1; p=reject")
    assert (await check(world, signed(message()))).dmarc == "none"
    world.delete("_dmarc.acme.example", "TXT")
    assert (await check(world, signed(message()))).dmarc == "none"


async def test_a_message_with_two_from_addresses_is_not_judged(world: DnsServer) -> None:
    content = signed(message().replace(b"From: ", b"From: eve@evil.example, "))
    assert (await check(world, content)).dmarc == "permerror"


async def test_every_look_up_goes_to_the_server_that_was_named(
    world: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await check(world, signed(message()))
    assert {query.name for query in world.queries} == {
        "acme.example",
        "spf.relay.example",
        "s1._domainkey.acme.example",
        "_dmarc.acme.example",
    }
    other = DnsAt("127.0.0.1", 1)  # nobody answers there: nothing may come from anywhere else
    monkeypatch.setattr("malote_dev.mailworld.verify.LOOKUP_SECONDS", 0.2)
    verdict = await verify(signed(message()), "127.0.0.5", "out.relay.example", "ana@acme.example", other)
    assert (verdict.dkim, verdict.spf, verdict.dmarc) == ("temperror", "temperror", "temperror")
