"""Providers as data: by which hosts they are known, and what is refused when the data is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from malote_relay.config import ProviderShaping, Shaping
from malote_relay.delivery.answers.classify import RULES
from malote_relay.delivery.answers.providers import BadProviders, Provider, Providers, known, load
from malote_relay.delivery.destinations.shapes import Shapes


def test_providers_are_known_by_their_hosts_and_by_nothing_else() -> None:
    providers = known()
    assert providers.of("gmail-smtp-in.l.google.com") == "google"
    assert providers.of("ACME-com.mail.protection.outlook.com.") == "microsoft365"
    assert providers.of("hotmail-com.olc.protection.outlook.com") == "outlook"
    assert providers.of("mta5.am0.yahoodns.net") == "yahoo"
    assert providers.of("notgoogle.com") == providers.of("google.com.evil.example") == ""
    assert providers.of_any(["192.0.2.1", "mx.locaweb.com.br"]) == "locaweb"


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("mx.core.locaweb.com.br", "locaweb"),
        ("mx-ha.skymail.net.br", "skymail"),
        ("mx.uol.com.br", "uol"),
        ("mx.uhserver.com", "uol"),
        ("mx.terraempresas.com.br", "terra"),
        ("mx1.hostinger.com", "hostinger"),
        ("mx1.titan.email", "titan"),
        ("mx1.mail.ovh.net", "ovh"),
        ("vps1.ovh.net", ""),
        ("spool.mail.gandi.net", "gandi"),
        ("smtp-in.orange.fr", "orange"),
        ("smtp-in.sfr.fr", "sfr"),
        ("mx01.ionos.de", "united-internet"),
        ("mx.freenet.de", "freenet"),
        ("smtpin.rzone.de", "strato"),
        ("mxext1.mailbox.org", "mailbox-org"),
        ("mta-gw.infomaniak.ch", "infomaniak"),
        ("smtp-in.virgilio.it", "italiaonline"),
        ("mx.poczta.onet.pl", "onet"),
        ("mx11.go2.pl", "wp"),
        ("mx1.seznam.cz", "seznam"),
        ("mx1.telenet-ops.be", "telenet"),
        ("mx1.pub.mailpod12-cph3.one.com", "one"),
        ("in1-smtp.messagingengine.com", "fastmail"),
        ("acme.in.hes.trendmicro.eu", "trendmicro"),
        ("mx01.hornetsecurity.com", "hornetsecurity"),
        ("route1.mx.cloudflare.net", "cloudflare"),
        ("www.cloudflare.net", ""),
    ],
)
def test_hosts_in_brazil_and_europe_are_known(host: str, name: str) -> None:
    assert known().of(host) == name


@pytest.mark.parametrize("name", known().by_name)
def test_every_providers_data_is_sound(name: str) -> None:
    provider = known().by_name[name]
    assert provider.source
    assert provider.suffixes
    limits = [value for value in (provider.connections, provider.messages_per_connection) if value is not None]
    assert all(value > 0 for value in limits)
    assert all(Providers({name: provider}).of(f"mx.{suffix}") == name for suffix in provider.suffixes)
    assert isinstance(provider, Provider)
    together = provider.together.connections
    assert together is None or provider.connections is None or together >= provider.connections


def test_a_provider_is_known_by_the_end_of_its_hosts_names() -> None:
    providers = Providers({"acme": Provider(suffixes=("mx.acme.example",), source="")})
    assert providers.of("mx.acme.example") == "acme"
    assert providers.of("A.MX.acme.example.") == "acme"
    assert providers.of("a.mx.acme.example[192.0.2.1]") == "acme"
    assert providers.of("[192.0.2.1]") == ""
    assert providers.of("amx.acme.example") == ""
    assert providers.of("mx.acme.example.evil.example") == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('suffixes = [".acme.example"]', "provider acme: '.acme.example' is no lower-case host name"),
        ('suffixes = ["acme.example"]\nconnection = 2', "unknown field `connection`"),
        ("suffixes", "Expected '='"),
    ],
)
def test_a_bad_provider_is_refused_with_its_place_and_reason(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "providers.toml"
    file.write_text(f'[acme]\nsource = ""\n{text}\n')
    with pytest.raises(BadProviders) as caught:
        load(file)
    assert str(caught.value).startswith("providers.toml: ")
    assert says in str(caught.value)


def test_rules_and_limits_know_the_same_providers() -> None:
    assert {rule.provider for rule in RULES.rules if rule.provider} <= set(known().by_name)


@pytest.mark.parametrize("name", known().by_name)
def test_whoever_is_known_can_be_limited(name: str) -> None:
    shapes = Shapes(Shaping(providers={name: ProviderShaping(connections=1)}), 10)
    assert shapes.of("shop.example", f"mx.{known().by_name[name].suffixes[0]}").shape.connections == 1
