"""The platform's settings: one YAML file, which the Helm chart makes from its values.

Everything that differs between platforms and not between tenants is here, with its default.
"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from malote_relay.config import ConfigError, RelayConfig, decode, encode, is_address
from malote_relay.config.check import network_complaint

from . import fleet


class SettingsError(ValueError):
    """The settings file cannot be used; the message names the file and the field."""


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    pass


class Endpoint(_Struct, frozen=True, kw_only=True):
    """What tenants connect to. `host_template` has {tenant} in it."""

    host_template: str = "{tenant}.smtp.example.net"
    submission_port: int = 587
    submissions_port: int = 465


class Dns(_Struct, frozen=True, kw_only=True):
    """The records tenants publish and how they are checked; times in seconds."""

    spf_include: str = "spf.example.net"
    """The host of the `include:` that goes into each tenant's SPF record."""
    dkim_zone: str = ""
    """The platform's zone for DKIM CNAME targets; empty: `publish: CNAME` is not available."""
    dmarc_policy: str = "v=DMARC1; p=none"
    """The DMARC record shown to a domain that has none."""
    nameservers: tuple[str, ...] = ()
    """Recursive resolvers used to find a domain's own servers; none: the system's."""
    port: int = 53
    """The port of those resolvers and of the authoritative servers."""
    allow_networks: tuple[str, ...] = ()
    """Internal networks in which a domain's name servers may stand (tests); elsewhere they are not asked."""
    timeout: float = 5.0
    pending_recheck: float = 3.0
    """How often an unverified domain is looked at while young: whoever pastes records watches for the result.
    The interval grows with the domain's age, see policy.domain."""
    verified_recheck: float = 900.0
    grace_period: float = 72 * 3600.0


class Egress(_Struct, frozen=True, kw_only=True):
    """How relays present themselves. `helo_template` has {tenant} in it; see malote_relay.config.Delivery."""

    helo_template: str = "{tenant}.out.example.net"
    source_address: str = ""
    smtp_port: int = 25
    allow_networks: tuple[str, ...] = ()


class Image(_Struct, frozen=True, kw_only=True):
    """The image of relays (it is the operator's own)."""

    reference: str = "malote:0.1.0"
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()


class TlsMode(enum.StrEnum):
    """Where the relays' certificates come from."""

    OPERATOR = "Operator"
    """Issued by a CA of the operator's own, whose certificate is in ConfigMap malote-ca."""
    SECRET = "Secret"  # noqa: S105
    """One Secret of the platform's (a wildcard certificate) in the relay namespace."""
    CERT_MANAGER = "CertManager"
    """A cert-manager Certificate per tenant."""


class Tls(_Struct, frozen=True, kw_only=True):
    """The relays' certificates; `secret_name` for mode Secret, `issuer_*` for CertManager."""

    mode: TlsMode = TlsMode.OPERATOR
    secret_name: str = ""
    issuer_name: str = ""
    issuer_kind: str = "ClusterIssuer"


class Relay(_Struct, frozen=True, kw_only=True):
    """Relay pods. `resources` are defaults for plans that name none.

    `config` is what all relays are told alike, a part of relay.json (see `fleet`). `credentials_secret` and
    `keys_secret` name Secrets in the relay namespace, whose keys every relay finds as files in `credentials/`, and
    in `keys/` beside the tenant's own.
    """

    resources: dict[str, Any] = msgspec.field(
        default_factory=lambda: {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "512Mi"}}
    )
    storage_class_name: str = ""
    nameservers: tuple[str, ...] = ()
    dns_port: int = 53
    config: dict[str, Any] = {}
    credentials_secret: str = ""
    keys_secret: str = ""
    service_type: str = "ClusterIP"
    service_annotations: dict[str, str] = {}
    node_selector: dict[str, str] = {}
    termination_grace_seconds: int = 60


class Bounces(_Struct, frozen=True, kw_only=True):
    """Taking bounces in, for SendingDomains with a `returnPath`: on `port` of each tenant's Service."""

    enabled: bool = False
    port: int = 25
    grace_period: float = 3600.0
    """How long mail goes on leaving with a return path that has lost a record, in seconds. Not the days that a domain
    has: mail is refused for a return path that has none, and the sender's own reverse-path is there to go back to."""


class Rehearsal(_Struct, frozen=True, kw_only=True):
    """For demonstrations and tests: how far the relays' clocks run ahead."""

    clock_offset_seconds: int = 0


class MailSecurity(enum.StrEnum):
    """How the connection to the platform's mail host is protected."""

    STARTTLS = "STARTTLS"
    TLS = "TLS"
    NONE = "None"
    """For a host on the same machine, or for tests."""


class Notices(_Struct, frozen=True, kw_only=True):
    """The platform's own mail host, by which notices to tenants leave (the welcome mail); no host: none are sent.

    The password is in a file, so that the settings hold no secret. It is read for each mail.
    """

    host: str = ""
    port: int = 587
    security: MailSecurity = MailSecurity.STARTTLS
    username: str = ""
    password_file: str = ""
    from_address: str = ""
    """Whom the mail is from: an address, or `Name <address>`."""


class Settings(_Struct, frozen=True, kw_only=True):
    """All of the platform's settings."""

    relay_namespace: str = "malote-relays"
    image: Image = Image()
    endpoint: Endpoint = Endpoint()
    dns: Dns = Dns()
    egress: Egress = Egress()
    tls: Tls = Tls()
    relay: Relay = Relay()
    notices: Notices = Notices()
    bounces: Bounces = Bounces()
    workers: int = 16
    resync_seconds: float = 600.0
    rehearsal: Rehearsal = Rehearsal()


def load(path: Path) -> Settings:
    """Read the settings file. Raises SettingsError naming what is wrong."""
    try:
        settings = msgspec.yaml.decode(path.read_bytes(), type=Settings)
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    try:
        everywhere = fleet.base(settings.relay.config)
    except ConfigError as error:
        raise SettingsError(f"{path}: relay.config: {error}") from error
    if said := _without_files(settings.relay, everywhere):
        raise SettingsError(f"{path}: relay.config: {said}")
    if said := _refused_by_relays(settings, everywhere) or _unusable_dns(settings.dns):
        raise SettingsError(f"{path}: {said}")
    if settings.notices.host and "@" not in settings.notices.from_address:
        raise SettingsError(f"{path}: notices.fromAddress: write the address that notices come from")
    return settings


def _without_files(given: Relay, everywhere: RelayConfig) -> str:
    """What all relays would look for in vain, and would therefore refuse any change until it is there."""
    for field, server in (("smartHost", everywhere.delivery.smart_host), ("socks5", everywhere.delivery.socks5)):
        if server is not None and server.password_file and not given.credentials_secret:
            return f"delivery.{field}.passwordFile: name the Secret that holds it in relay.credentialsSecret"
    return ""


_WRITTEN_AS = {
    "hostname": "endpoint.hostTemplate",
    "delivery.heloName": "egress.heloTemplate",
    "delivery.sourceAddress": "egress.sourceAddress",
    "delivery.smtpPort": "egress.smtpPort",
    "delivery.allowNetworks": "egress.allowNetworks",
    "resolver.nameservers": "relay.nameservers",
    "resolver.port": "relay.dnsPort",
}
"""The settings that become fields of every relay's configuration, by the relay's names."""


def _refused_by_relays(settings: Settings, everywhere: RelayConfig) -> str:
    """What every relay would refuse its configuration for, by the settings' own names; "" for nothing."""
    egress = settings.egress
    whole = replace(
        everywhere,
        hostname=settings.endpoint.host_template.replace("{tenant}", "tenant"),
        delivery=replace(
            everywhere.delivery,
            helo_name=egress.helo_template.replace("{tenant}", "tenant"),
            source_address=egress.source_address,
            smtp_port=egress.smtp_port,
            allow_networks=egress.allow_networks,
        ),
        resolver=replace(everywhere.resolver, nameservers=settings.relay.nameservers, port=settings.relay.dns_port),
    )
    try:
        decode(encode(whole))
    except ConfigError as error:
        said = str(error).removeprefix("relay.json: ")
        for field, written in _WRITTEN_AS.items():
            if said.startswith(field) or said.endswith(f"`$.{field}`"):
                return said.replace(field, written, 1)
        return said
    return ""


def _unusable_dns(given: Dns) -> str:
    """The address or network by which the operator could not look records up; "" for none."""
    for number, address in enumerate(given.nameservers):
        if not is_address(address):
            return f"dns.nameservers[{number}]: {address!r} is not an IP address: write that of a recursive resolver"
    return network_complaint("dns.allowNetworks", given.allow_networks)
