"""What cannot work is refused when it is read, in words that name the field and say what to write."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from malote_relay import passwords
from malote_relay.config import Account, ConfigError, Delivery, DkimKey, Domain, Plan, RelayConfig, decode, encode

GOOD = RelayConfig(
    tenant="acme",
    hostname="acme.smtp.example",
    plan=Plan(name="smtp-1", messages_per_hour=100),
    delivery=Delivery(helo_name="out.acme.example", source_address="192.0.2.1", allow_networks=("10.0.0.0/8",)),
    accounts=(Account(name="app", username="app@acme", verifier=passwords.verifier("secret")),),
    domains=(Domain(name="acme.example", sending=True, keys=(DkimKey(selector="m1", file="m1.acme.example.pem"),)),),
)


def refusal(path: str, value: Any) -> str:
    """What is said of the good configuration with one value replaced."""
    tree = msgspec.json.decode(encode(GOOD))
    place: Any = tree
    *way, last = (int(step) if step.isdigit() else step for step in path.split("."))
    for step in way:
        place = place[step] if isinstance(step, int) else place.setdefault(step, {})
    place[last] = value
    with pytest.raises(ConfigError) as raised:
        decode(msgspec.json.encode(tree))
    return str(raised.value)


def test_what_is_written_is_read() -> None:
    assert decode(encode(GOOD)) == GOOD


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("limits.commandTimeout", -1),
        ("limits.dataTimeout", 0),
        ("limits.maxSessions", 0),
        ("limits.minFreeBytes", -1),
        ("plan.messagesPerHour", 0),
        ("plan.maxMessageBytes", -5),
        ("plan.reportRetentionDays", 0),
        ("plan.tolerancePercent", -1),
        ("delivery.maxConnections", 0),
        ("delivery.firstRetrySeconds", 0),
        ("delivery.maxAgeSeconds", -1),
        ("delivery.smtpPort", 70_000),
        ("resolver.timeout", 0),
        ("resolver.port", 0),
        ("senderVerification.timeout", -0.5),
        ("senderVerification.presentTtl", -1),
        ("listen.observePort", -1),
        ("notices.delayAfterSeconds", -1),
        ("notices.perSenderPerHour", 0),
        ("suppression.bounceDays", 0),
        ("suppression.inactiveAfter", 0),
        ("accountPause.windowHours", 169),
        ("accountPause.bouncePercent", 0),
        ("accountPause.complaintPercent", 101),
    ],
)
def test_a_number_out_of_bounds_is_named_with_its_bound(path: str, value: float) -> None:
    said = refusal(path, value)
    assert said.endswith(f"`$.{path}`")
    assert "=" in said or ">" in said


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("hostname", "", "hostname: '' is not a host name: write the name clients connect to"),
        ("hostname", "a b.example", "hostname: 'a b.example' is not a host name"),
        ("delivery.heloName", "", "delivery.heloName: '' is not a host name: write the name that the address"),
        ("delivery.heloName", "x.example\r\nMAIL FROM:<>", "delivery.heloName: "),
        ("delivery.heloName", "x.example\n", "delivery.heloName: "),
        ("delivery.heloName", "a_b.example", "delivery.heloName: "),
        (
            "delivery.sourceAddress",
            "nonsense",
            "delivery.sourceAddress: 'nonsense' is not an IP address: write one of",
        ),
        (
            "senderVerification.sourceAddress",
            "1.2.3",
            "senderVerification.sourceAddress: '1.2.3' is not an IP address",
        ),
        (
            "senderVerification.heloName",
            "a_b",
            "senderVerification.heloName: 'a_b' is not a host name: write the name that",
        ),
        (
            "listen.proxyNetworks",
            ["10.0.0.0/8", "10.0.0.1/8"],
            "listen.proxyNetworks[1]: 10.0.0.1/8 has host bits set: write a network",
        ),
        (
            "listen.proxyNetworks",
            ["10.0.0.0/8", "0.0.0.0/0"],
            "listen.proxyNetworks[1]: 0.0.0.0/0 is everybody, and anybody could say to be any client",
        ),
        ("submission.postmaster", "ana", "submission.postmaster: 'ana' is not a mailbox: write user@domain in ASCII"),
        ("submission.postmaster", "a..b@x.example", "submission.postmaster: 'a..b@x.example' is not a mailbox"),
        ("submission.postmaster", "ana@[192.0.2.1]", "submission.postmaster: "),
        ("signIn.window", 0, "Expected `float` > 0.0 - at `$.signIn.window`"),
        ("limits.signInTimeout", 0, "at `$.limits.signInTimeout`"),
        ("listen.address", "localhost", "listen.address: 'localhost' is not an IP address"),
        ("resolver.nameservers", ["127.0.0.1", "ns"], "resolver.nameservers[1]: 'ns' is not an IP address"),
        (
            "delivery.allowNetworks",
            ["10.0.0.1/8"],
            "delivery.allowNetworks[0]: 10.0.0.1/8 has host bits set: write a",
        ),
        (
            "delivery.smartHost",
            {"host": "a b"},
            "delivery.smartHost.host: 'a b' is neither a host name nor an IP address",
        ),
        (
            "delivery.smartHost",
            {"host": "out.acme.example"},
            "'out.acme.example' is this relay itself: write the host",
        ),
        ("delivery.smartHost", {"host": "h.example", "tls": "None"}, "delivery.smartHost.tls"),
        (
            "delivery.smartHost",
            {"host": "h.example", "username": "u"},
            "delivery.smartHost.passwordFile: '' is not a plain file name in credentials/: write the name",
        ),
        (
            "delivery.smartHost",
            {"host": "h.example", "username": "u", "passwordFile": "../keys/x"},
            "delivery.smartHost.passwordFile: '../keys/x' is not a plain file name",
        ),
        (
            "delivery.socks5",
            {"host": "192.0.2.1", "passwordFile": "p"},
            "delivery.socks5.username is missing: write whose password 'p' holds",
        ),
        ("delivery.socks5", {"host": "h", "username": "é" * 128, "passwordFile": "p"}, "more than 255 octets"),
        ("delivery.tlsReports", {"contact": "nobody"}, "delivery.tlsReports.contact: 'nobody' is not a mail address"),
        ("domains.0.name", "ácme.example", "domains[0].name: 'ácme.example' is not a domain name: write it in ASCII"),
        ("domains.0.name", "Acme.example", "domains[0].name: 'Acme.example' is not in lower case"),
        ("domains.0.keys.0.selector", "a b", "domains[0].keys: 'a b' is not a selector"),
        ("domains.0.keys.0.file", "../x.pem", "domains[0].keys: '../x.pem' is not a plain file name in keys/"),
        ("domains.0.keys.0.file", "", "domains[0].keys: '' is not a plain file name in keys/"),
        ("notices.keys", [{"selector": "n1", "file": "/etc/x"}], "notices.keys: '/etc/x' is not a plain file name"),
        ("bounces.secrets", ["../x"], "bounces.secrets[0]: '../x' is not a plain file name in keys/"),
        (
            "bounces.feedbackAddresses",
            ["fbl"],
            "bounces.feedbackAddresses[0]: 'fbl' is not an address: write user@domain",
        ),
        (
            "bounces.feedbackNetworks",
            ["192.0.2.0/24", "192.0.2.1/24"],
            "bounces.feedbackNetworks[1]: 192.0.2.1/24 has host bits set: write a network",
        ),
        (
            "bounces.feedbackNetworks",
            ["::/0"],
            "bounces.feedbackNetworks[0]: ::/0 is everybody, and anybody can make up a complaint: write the networks",
        ),
        ("domains.0.returnPath", "a_b.example", "domains[0].returnPath: 'a_b.example' is not a host name"),
        (
            "domains.0.returnPath",
            "b.acme.example",
            "domains[0].returnPath needs a secret: name its file in bounces.sec",
        ),
        ("listen.bouncePort", 2525, "listen.bouncePort needs a secret: name its file in bounces.secrets"),
        ("listen.bouncePort", 70_000, "`$.listen.bouncePort`"),
        ("notices.language", "de", "`$.notices.language`"),
        ("tenant", "", "length >= 1 - at `$.tenant`"),
    ],
)
def test_what_would_fail_in_use_is_refused_with_what_to_write(path: str, value: Any, said: str) -> None:
    assert said in refusal(path, value)


@pytest.mark.parametrize(
    "verifier",
    [
        "",
        "nonsense",
        "sha256:c2FsdA==",
        "sha256:c2FsdA==:dG9vIHNob3J0",
        "md5:" + passwords.verifier("x")[7:],
        "a:b:c",
    ],
)
def test_a_verifier_in_no_known_form_is_refused_without_being_shown(verifier: str) -> None:
    said = refusal("accounts.0.verifier", verifier)
    assert said.startswith(
        "relay.json: accounts[0].verifier (app) is none: write what malote_relay.passwords.verifier"
    )
    assert not verifier or verifier not in said


def test_two_of_a_name_are_refused_and_not_one_of_them_taken() -> None:
    """The later one would count: a suspended account, or a domain that may not send, would be none."""
    account, domain = GOOD.accounts[0], GOOD.domains[0]
    other = msgspec.structs.replace(account, name="other")
    for twice, said in (
        ({"accounts": (account, other)}, f"accounts[1].username: '{account.username}' is there before"),
        ({"accounts": (account, msgspec.structs.replace(account, username="other"))}, "accounts[1].name: "),
        ({"domains": (domain, domain)}, f"domains[1].name: '{domain.name}' is there before"),
    ):
        with pytest.raises(ConfigError) as error:
            decode(encode(msgspec.structs.replace(GOOD, **twice)))
        assert said in str(error.value)


@pytest.mark.parametrize("password", ["", "secret", "é" * 100])
def test_every_verifier_that_is_made_is_taken(password: str) -> None:
    account = msgspec.structs.replace(GOOD.accounts[0], verifier=passwords.verifier(password))
    config = msgspec.structs.replace(GOOD, accounts=(account,))
    assert decode(encode(config)) == config
