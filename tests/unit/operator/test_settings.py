"""What a platform team writes for all relays: taken as the relay takes it, or refused with the relay's own words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from malote_operator import fleet
from malote_operator.settings import SettingsError, load
from malote_relay.config import (
    ConfigError,
    Plan,
    ProviderShaping,
    RelayConfig,
    SmartHost,
    Socks5,
    TogetherLimits,
)

ROOT = Path(__file__).parents[3]


def fields(struct: Any, path: str = "") -> set[str]:
    """Every field of a configuration by its name in JSON, and every section."""
    found = set()
    for field in msgspec.structs.fields(struct):
        name = f"{path}.{field.encode_name}".lstrip(".")
        found.add(name)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found |= fields(field.type, name)
    return found


def test_nothing_said_is_the_relays_own_default() -> None:
    told = fleet.base({})
    bare = RelayConfig(tenant="t", hostname="h", plan=Plan(name="p", messages_per_hour=1), delivery=told.delivery)
    for section in ("submission", "sender_verification", "notices", "bounces", "suppression", "account_pause",
                    "resolver", "listen", "limits", "sign_in", "trace", "rehearsal"):  # fmt: skip
        assert getattr(told, section) == getattr(bare, section)
    defaults = {name: getattr(told.delivery, name) for name in told.delivery.__struct_fields__ if name != "helo_name"}
    assert defaults == {
        name: default
        for field in msgspec.structs.fields(type(told.delivery))
        if (name := field.name) != "helo_name"
        for default in [field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default]
    }


def test_what_is_said_reaches_the_relays_own_schema() -> None:
    told = fleet.base(
        {
            "delivery": {"smartHost": {"host": "smart.example.net"}, "shaping": {"default": {"connections": 3}}},
            "listen": {"processes": 2},
            "resolver": {"validating": True},
        }
    )
    assert told.delivery.smart_host == SmartHost(host="smart.example.net")
    assert told.delivery.shaping.default.connections == 3
    assert told.listen.processes == 2
    assert told.resolver.validating


@pytest.mark.parametrize("field", fleet.DECIDED)
def test_what_the_operator_decides_is_refused_with_where_it_is_said(field: str) -> None:
    section, _, name = field.partition(".")
    with pytest.raises(ConfigError, match=f"^{field} cannot be set here: [a-z ']"):
        fleet.base({section: {name: "x"}} if name else {section: "x"})


def test_every_refused_field_is_one_that_the_relay_knows() -> None:
    assert set(fleet.DECIDED) <= fields(RelayConfig)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("{limits: {maxSessions: 0}}", "Expected `int` >= 1 - at `$.limits.maxSessions`"),
        ("{limits: {maxSesions: 5}}", "unknown field `maxSesions` - at `$.limits`"),
        ("{limit: {}}", "unknown field `limit`"),
        ("{delivery: 5}", "Expected `object`, got `int` - at `$.delivery`"),
        ("{delivery: }", "Expected `object`, got `null` - at `$.delivery`"),
        ("{delivery: {smartHost: {host: 'a b'}}}", "delivery.smartHost.host: 'a b' is neither a host name nor"),
        ("{listen: {proxyNetworks: [10.0.0.0]}, senderVerification: {heloName: '!'}}", "senderVerification.heloName"),
        ("{delivery: {heloName: a.example}}", "delivery.heloName cannot be set here: write egress.heloTemplate"),
        (
            "{delivery: {smartHost: {host: a.example, username: u, passwordFile: p}}}",
            "delivery.smartHost.passwordFile: name the Secret that holds it in relay.credentialsSecret",
        ),
        ("{notices: {keys: [{selector: m1, file: n.pem}]}}", "each relay has a key of its own: its Tenant's status"),
        ("[]", "Expected `object`, got `array` - at `$.relay.config`"),
    ],
)
def test_a_wrong_value_is_told_at_the_operators_start(tmp_path: Path, written: str, says: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"relay:\n  config: {written}\n")
    with pytest.raises(SettingsError) as caught:
        load(file)
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{file}: ")
    assert "relay.json" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("egress: {allowNetworks: [10.0.0.1/8]}", "egress.allowNetworks[0]: 10.0.0.1/8 has host bits set: write a"),
        (
            "egress: {sourceAddress: 192.0.2.256}",
            "egress.sourceAddress: '192.0.2.256' is not an IP address: write one",
        ),
        (
            "egress: {heloTemplate: '{tenant}.out_1.example'}",
            "egress.heloTemplate: 'tenant.out_1.example' is not a host",
        ),
        ("egress: {smtpPort: 70000}", "Expected `int` <= 65535 - at `$.egress.smtpPort`"),
        (
            "endpoint: {hostTemplate: '{tenant}_smtp.example'}",
            "endpoint.hostTemplate: 'tenant_smtp.example' is not a",
        ),
        ("relay: {nameservers: [192.0.2.53, ns.example]}", "relay.nameservers[1]: 'ns.example' is not an IP address"),
        ("dns: {allowNetworks: [10.0.0.1/8]}", "dns.allowNetworks[0]: 10.0.0.1/8 has host bits set: write a network"),
        (
            "dns: {nameservers: [192.0.2.256]}",
            "dns.nameservers[0]: '192.0.2.256' is not an IP address: write that of",
        ),
    ],
)
def test_what_every_relay_would_refuse_is_told_at_the_operators_start_by_the_settings_name(
    tmp_path: Path, written: str, says: str
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"{written}\n")
    with pytest.raises(SettingsError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}: {says}")


def test_passwords_may_be_named_where_a_secret_holds_them(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(
        "relay:\n"
        "  config:\n"
        "    delivery: {socks5: {host: a.example, username: u, passwordFile: p}}\n"
        "  credentialsSecret: passwords\n"
    )
    assert load(file).relay.credentials_secret == "passwords"


def test_the_chart_knows_the_sections_of_the_relays_schema() -> None:
    values = json.loads((ROOT / "charts/malote/values.schema.json").read_text())["properties"]
    sections = {field.encode_name for field in msgspec.structs.fields(RelayConfig)}
    assert set(values["relay"]["properties"]["config"]["properties"]) == sections - set(fleet.DECIDED)


def test_what_the_documents_show_can_be_written() -> None:
    (shaping,) = re.findall(r"^```yaml\n(relay:\n.*?)^```$", (ROOT / "docs/operations.md").read_text(), re.M | re.S)
    assert fleet.base(yaml.safe_load(shaping)["relay"]["config"]).delivery.shaping.providers
    shown = re.findall(r"^  #   (\w+: \{.*\})$", (ROOT / "charts/malote/values.yaml").read_text(), re.M)
    assert len(shown) >= 5
    assert fleet.base({key: value for line in shown for key, value in yaml.safe_load(line).items()})


def listed_in_operations() -> dict[str, str]:
    """The fields of relay.config that operations.md lists, and what it says right behind each."""
    table = (ROOT / "docs/operations.md").read_text().partition("## What all relays are told")[2]
    return {
        f"{section}.{field}": said
        for section, row in re.findall(r"^\| `(\w+)` \| (.*) \|$", table.partition("Passwords")[0], re.M)
        for field, said in re.findall(r"`(\w+)`([^`]*)", row)
    }


def test_operations_lists_every_field_that_can_be_given_and_no_other() -> None:
    known = {field for field in fields(RelayConfig) if not {field, field.partition(".")[0]} & set(fleet.DECIDED)}
    assert {field for field in known if field.count(".") == 1} == set(listed_in_operations())
    deeper = {name for field in known if field.count(".") > 1 for name in [field.rpartition(".")[2]]}
    for struct in (SmartHost, Socks5, ProviderShaping, TogetherLimits):
        deeper |= {field.encode_name for field in msgspec.structs.fields(struct)}
    assert deeper <= set(re.findall(r"\w+", (ROOT / "docs/operations.md").read_text()))


def test_the_defaults_that_operations_shows_are_the_relays() -> None:
    defaults = msgspec.to_builtins(fleet.base({}))
    shown = {
        name: float(number.replace(",", "")) * (2**20 if unit else 1)
        for name, said in listed_in_operations().items()
        for number, unit in re.findall(r"^ \(([\d.,]*\d)( MiB)?", said)
    }
    assert len(shown) > 40
    assert shown == {name: defaults[section][field] for name in shown for section, field in [name.split(".")]}


def test_a_right_one_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("relay:\n  config: {suppression: {bounceDays: 60}}\n")
    assert fleet.base(load(file).relay.config).suppression.bounce_days == 60
