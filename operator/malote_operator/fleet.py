"""What all relays are told alike: the setting `relay.config`, a part of relay.json in the relay's own schema.

What the operator decides, by other settings or by what Plans, Tenants and SendingDomains say, is refused here with
the place where it is said, so that each value has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from malote_relay.config import ConfigError, RelayConfig, decode

_BY_THE_POD: Final = "the pod's ports are fixed"

DECIDED: Final[Mapping[str, str]] = {
    "tenant": "it is each Tenant's name",
    "hostname": "write endpoint.hostTemplate",
    "plan": "write it in the Plans",
    "accounts": "write them in the Tenants",
    "domains": "write them as SendingDomains",
    "rehearsal": "write rehearsal",
    "submission.open": "the operator decides it",
    "submission.reason": "the operator decides it",
    "senderVerification.mode": "write it in the Tenants",
    "senderVerification.unknown": "write it in the Tenants",
    "senderVerification.senders": "write them in the Tenants",
    "notices.language": "write contact.language in the Tenants",
    "notices.keys": "each relay has a key of its own: its Tenant's status.egress shows the record to publish",
    "delivery.frozen": "write suspend in a Tenant",
    "delivery.heloName": "write egress.heloTemplate",
    "delivery.sourceAddress": "write egress.sourceAddress",
    "delivery.smtpPort": "write egress.smtpPort",
    "delivery.allowNetworks": "write egress.allowNetworks",
    "resolver.nameservers": "write relay.nameservers",
    "resolver.port": "write relay.dnsPort",
    "bounces.secrets": "write bounces.enabled: each tenant gets a secret of its own",
    "listen.bouncePort": "write bounces.enabled",
    "listen.address": _BY_THE_POD,
    "listen.submissionPort": _BY_THE_POD,
    "listen.submissionsPort": _BY_THE_POD,
    "listen.observePort": _BY_THE_POD,
}
"""What is refused in `relay.config`, and where it is said instead."""


def base(config: Mapping[str, Any]) -> RelayConfig:
    """A relay's configuration with these values and everything else at its default; what is DECIDED is made up.

    Raises ConfigError in the relay's own words.
    """
    for field, instead in DECIDED.items():
        if _said(config, field):
            raise ConfigError(f"{field} cannot be set here: {instead}")
    whole = dict(config)
    whole |= {"tenant": "any", "hostname": "relay.invalid", "plan": {"name": "any", "messagesPerHour": 1}}
    delivery = config.get("delivery", {})
    whole["delivery"] = {**delivery, "heloName": "out.invalid"} if isinstance(delivery, Mapping) else delivery
    try:
        return decode(msgspec.json.encode(whole))
    except ConfigError as error:
        raise ConfigError(str(error).removeprefix("relay.json: ")) from error


def _said(config: Mapping[str, Any], field: str) -> bool:
    section, _, name = field.partition(".")
    if not name:
        return section in config
    inner = config.get(section)
    return isinstance(inner, Mapping) and name in inner
