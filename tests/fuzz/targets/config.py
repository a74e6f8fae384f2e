"""The configuration file: read, or refused with words; what was read is written and read again as the same."""

from __future__ import annotations

from tests.fuzz.target import Target

from malote_relay.config import ConfigError, Delivery, Domain, Plan, RelayConfig, decode, encode
from malote_relay.submission.policy import Rules


def check(data: bytes) -> None:
    try:
        config = decode(data)
    except ConfigError as error:
        _is_for_people(str(error))
        return
    assert decode(encode(config)) == config
    Rules(config)


def _is_for_people(words: str) -> None:
    assert words.startswith("relay.json: ")


_SEED = encode(
    RelayConfig(
        tenant="acme",
        hostname="acme.smtp.example",
        plan=Plan(name="p", messages_per_hour=3000),
        delivery=Delivery(helo_name="out.example", allow_networks=("10.0.0.0/8",)),
        domains=(Domain(name="acme.example", sending=True),),
    )
)

TARGET = Target(
    "config",
    check,
    words=(
        b'"tenant":',
        b'"hostname":',
        b'"plan":{',
        b'"delivery":{',
        b'"allowNetworks":[',
        b'"10.0.0.0/8"',
        b'"::1"',
        b"}",
        b"]",
        b"null",
        b"true",
        b"-1",
        b"0",
        b"1e400",
        b"99999999999999999999",
        b'""',
        b'"\\ud800"',
        b'"\\u0000"',
        b",",
        b'"xn--a"',
        b'"listen":{',
        b'"address":',
        b'"limits":{',
        b'"accounts":[',
        b'"verifier":',
        b'"sha256:YQ==:YQ=="',
    ),
    seeds=(_SEED,),
    most=12,
)
