"""DANE over real sockets: signed answers from the DNS server, certificates that fit or do not."""

from __future__ import annotations

from typing import Any

import pytest

from malote_dev.mailworld.behaviour import TlsMode
from malote_dev.mailworld.certificates import CertificateAuthority, tlsa
from malote_dev.mailworld.mx import SinkMx
from malote_relay.store.model import Result


async def signed(world: Any, *records: str, names: tuple[str, ...] = (), issuer: Any = None) -> SinkMx:
    """shop.example in the signed DNS, with these TLSA records; the certificate of its host is an outsider's."""
    world.validating = True
    host: SinkMx = await world.domain("shop.example")
    authority = issuer or CertificateAuthority("An outsider")
    certificate, key = authority.issue(list(names) or [host.hostname])
    host.certificate = (certificate + authority.pem, key)
    world.dns.sign("shop.example")
    own = tlsa(certificate)
    place = f"_{host.port}._tcp.{host.hostname}"
    world.dns.set(place, "TLSA", *(record.replace("OWN", own.split()[3]) for record in records))
    return host


async def test_the_certificate_that_the_dns_names_is_taken_whoever_issued_it_and_for_whom(world: Any) -> None:
    await signed(world, "3 1 1 OWN", names=("elsewhere.example",))
    await world.start()
    outcome = await world.sent()
    assert outcome.result is Result.DELIVERED, outcome
    assert outcome.tls.endswith(" dane-ee")


@pytest.mark.parametrize("name", ["", "shop.example", "elsewhere.example"])
async def test_under_a_trust_anchor_the_name_counts(world: Any, name: str) -> None:
    authority = CertificateAuthority("The anchor")
    host = await signed(world, tlsa(authority.pem, 2), names=(name,) if name else (), issuer=authority)
    await world.start()
    outcome = await world.sent()
    if name == "elsewhere.example":
        assert (outcome.result, outcome.bounce_class) == (Result.DEFERRED, "tls")
        assert f"not for {host.hostname} or shop.example" in outcome.reply
    else:
        assert outcome.tls.endswith(" dane-ta"), outcome


@pytest.mark.parametrize("mode", [None, TlsMode.NONE, TlsMode.BROKEN, TlsMode.UNAVAILABLE])
async def test_another_certificate_or_none_gets_nothing(world: Any, mode: TlsMode | None) -> None:
    host = await signed(world, "3 1 1 " + "ab" * 32)
    if mode is not None:
        host.certificate, host.tls = None, mode
    await world.start()
    outcome = await world.sent()
    assert (outcome.result, outcome.bounce_class, outcome.reply[:9]) == (Result.DEFERRED, "tls", "451 4.7.5")
    assert "dane requires TLS" in outcome.reply
    assert not [step for step in host.commands if step.verb == "MAIL"]


async def test_one_matching_record_is_enough(world: Any) -> None:
    await signed(world, "3 1 1 " + "ab" * 32, "3 1 1 OWN")
    await world.start()
    assert (await world.sent()).tls.endswith(" dane-ee")


async def test_the_next_host_is_asked_when_one_has_the_wrong_certificate(world: Any) -> None:
    host = await signed(world, "3 1 1 " + "ab" * 32)
    other = await world.domain("backup.example")
    world.dns.set("shop.example", "MX", f"10 {host.hostname}.", f"20 {other.hostname}.")
    await world.start()
    outcome = await world.sent()
    assert outcome.result is Result.DELIVERED
    assert outcome.host.startswith(other.hostname)


async def test_records_that_cannot_be_used_require_encryption_of_anyone(world: Any) -> None:
    host = await signed(world, "0 1 1 OWN", names=("elsewhere.example",))
    await world.start()
    assert (await world.sent()).tls.endswith(" dane-unusable")
    host.certificate, host.tls = None, TlsMode.NONE
    world.scheduler._pool.close_idle()
    assert (await world.sent()).bounce_class == "tls"


async def test_records_that_cannot_be_looked_up_keep_mail_back(world: Any) -> None:
    host = await signed(world, "3 1 1 OWN")
    world.dns.fail(f"_tcp.{host.hostname}", "SERVFAIL")
    await world.start()
    outcome = await world.sent()
    assert (outcome.result, outcome.bounce_class) == (Result.DEFERRED, "tls")
    assert f"the TLSA records of {host.hostname}" in outcome.reply
    assert host.connections == 0


@pytest.mark.parametrize("how", ["unsigned", "not validating", "switched off"])
async def test_what_nobody_vouches_for_is_not_believed(world: Any, how: str) -> None:
    await signed(world, "3 1 1 " + "ab" * 32)
    tls = world.trust()
    if how == "unsigned":
        world.dns.sign("shop.example", signed=False)
    elif how == "not validating":
        world.validating = False
        world.dns.sign("shop.example", unasked=True)
    else:
        tls = type(tls)(dane=False, authorities=tls.authorities)
    await world.start(tls=tls)
    assert (await world.sent()).tls.endswith(" opportunistic")


async def test_dane_comes_before_mta_sts(world: Any) -> None:
    await signed(world, "3 1 1 OWN")
    await world.policy("shop.example", "enforce", "other.example")
    await world.start(tls=world.trust())
    assert (await world.sent()).tls.endswith(" dane-ee")


async def test_a_domain_without_mx_has_its_own_records(world: Any) -> None:
    host = await signed(world, "3 1 1 OWN")
    world.dns.set("bare.example", "A", host.address)
    world.dns.set(f"_{host.port}._tcp.bare.example", "TLSA", "3 1 1 " + "ab" * 32)
    world.dns.sign("bare.example")
    await world.start()
    assert (await world.sent("bare.example")).bounce_class == "tls"


async def test_a_session_verified_for_one_host_is_kept_for_it(world: Any) -> None:
    host = await signed(world, "3 1 1 OWN")
    await world.start()
    for _ in range(3):
        assert (await world.sent()).tls.endswith(" dane-ee")
    assert host.connections == 1
