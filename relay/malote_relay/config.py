"""What a relay is told: one JSON file, written by the operator (or by hand) and read by the relay.

The schema lives here because both programs import it. A configuration directory looks like this::

    DIR/config/relay.json              this schema
    DIR/keys/SELECTOR.DOMAIN.pem       private DKIM keys (PKCS #8, PEM)
    DIR/tls/tls.crt, DIR/tls/tls.key   the certificate chain and key of the submission listeners

Everything but the listeners' addresses is reloaded while the relay runs. The relay reports
`configuration_hash` of the file it has loaded, so that a writer knows when a change is in force.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

CONFIG_FILE = Path("config/relay.json")
KEYS_DIRECTORY = Path("keys")
CERTIFICATE_FILE = Path("tls/tls.crt")
CERTIFICATE_KEY_FILE = Path("tls/tls.key")


class ConfigError(ValueError):
    """The configuration cannot be used; the message says where and why. The one in force stays."""


# What numbers may be; `decode` refuses others, naming the field and the bound.
Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]
Port = Annotated[int, Meta(ge=1, le=65_535)]
ListeningPort = Annotated[int, Meta(ge=0, le=65_535)]
Text = Annotated[str, Meta(min_length=1)]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    pass


class AccountClass(enum.StrEnum):
    """What an account sends; Bulk mail must carry one-click List-Unsubscribe (RFC 8058)."""

    TRANSACTIONAL = "Transactional"
    BULK = "Bulk"


class OverLimitReply(enum.StrEnum):
    """How a recipient beyond limit and tolerance is refused: 550 5.7.1 or 451 4.7.1."""

    PERMANENT = "Permanent"
    TEMPORARY = "Temporary"


class SenderMode(enum.StrEnum):
    """How the existence of a sender address is established before its first use."""

    CALLOUT = "Callout"
    LIST = "List"
    OFF = "Off"


class UnknownSender(enum.StrEnum):
    """What happens to a sender whose existence could not be established either way."""

    ACCEPT = "Accept"
    DEFER = "Defer"


class Account(_Struct, frozen=True, kw_only=True):
    """One SMTP account. `verifier` is made by `malote_relay.passwords.verifier`, never the password."""

    name: Text
    username: Text
    verifier: str
    account_class: AccountClass = msgspec.field(name="class", default=AccountClass.TRANSACTIONAL)
    suspended: bool = False


class DkimKey(_Struct, frozen=True, kw_only=True):
    """A private key in `keys/`, used for signing under `selector` (RFC 6376 section 3.1)."""

    selector: str
    file: str


class Domain(_Struct, frozen=True, kw_only=True):
    """A sending domain of the tenant. While `sending` is false, mail from it is refused with `refusal`."""

    name: str
    sending: bool = False
    refusal: str = ""
    keys: tuple[DkimKey, ...] = ()


class Plan(_Struct, frozen=True, kw_only=True):
    """The plan's limits as the relay enforces them; the unit of `messages_per_hour` is an accepted recipient."""

    name: str
    display_name: str = ""
    messages_per_hour: Positive
    tolerance_percent: NotNegative = 20
    over_limit_reply: OverLimitReply = OverLimitReply.PERMANENT
    max_message_bytes: Positive = 26_214_400
    max_recipients: Positive = 100
    report_retention_days: Positive = 90


class Submission(_Struct, frozen=True, kw_only=True):
    """Whether mail is taken at all; `reason` is what a client reads while it is not."""

    open: bool = False
    reason: str = "the tenant is not ready to send"


class SenderVerification(_Struct, frozen=True, kw_only=True):
    """The call-out policy and its limits; times in seconds."""

    mode: SenderMode = SenderMode.CALLOUT
    unknown: UnknownSender = UnknownSender.ACCEPT
    senders: tuple[str, ...] = ()
    timeout: Seconds = 10.0
    present_ttl: NotNegative = 7 * 86_400
    absent_ttl: NotNegative = 300
    unknown_ttl: NotNegative = 600
    probes_per_domain_per_minute: Positive = 60
    source_address: str = ""


class Resolver(_Struct, frozen=True, kw_only=True):
    """The recursive resolvers to ask; none means those of the system (/etc/resolv.conf)."""

    nameservers: tuple[str, ...] = ()
    port: Port = 53
    timeout: Seconds = 10.0


class Delivery(_Struct, frozen=True, kw_only=True):
    """How mail leaves. `allow_networks` are internal networks that destinations may resolve into."""

    frozen: bool = False
    helo_name: str
    source_address: str = ""
    smtp_port: Port = 25
    allow_networks: tuple[str, ...] = ()
    max_connections: Positive = 100
    max_connections_per_destination: Positive = 10
    max_age_seconds: Positive = 5 * 86_400
    first_retry_seconds: Positive = 60
    max_retry_seconds: Positive = 4 * 3_600


class Listen(_Struct, frozen=True, kw_only=True):
    """The listeners. An empty address means every one; port 0 lets the system choose (tests)."""

    address: str = ""
    submission_port: ListeningPort = 2587
    submissions_port: ListeningPort = 2465
    observe_port: ListeningPort = 9090


class Limits(_Struct, frozen=True, kw_only=True):
    """What one client, and all together, may take of the relay; times in seconds."""

    max_sessions: Positive = 500
    max_sessions_per_client: Positive = 50
    command_timeout: Seconds = 300.0
    data_timeout: Seconds = 600.0
    max_body_bytes_in_flight: Positive = 512 * 1024 * 1024
    min_free_bytes: NotNegative = 64 * 1024 * 1024
    max_auth_failures_per_session: Positive = 3


class Rehearsal(_Struct, frozen=True, kw_only=True):
    """For demonstrations and tests only: seconds by which the relay's clock runs ahead."""

    clock_offset_seconds: int = 0


class RelayConfig(_Struct, frozen=True, kw_only=True):
    """The whole configuration of one tenant's relay. `hostname` is what its greeting and EHLO say."""

    tenant: Text
    hostname: str
    plan: Plan
    delivery: Delivery
    submission: Submission = Submission()
    accounts: tuple[Account, ...] = ()
    domains: tuple[Domain, ...] = ()
    sender_verification: SenderVerification = SenderVerification()
    resolver: Resolver = Resolver()
    listen: Listen = Listen()
    limits: Limits = Limits()
    rehearsal: Rehearsal = Rehearsal()


def encode(config: RelayConfig) -> bytes:
    """The file's text: stable for equal configurations, so that its hash changes only when it does."""
    return msgspec.json.format(msgspec.json.encode(config, order="deterministic"), indent=2) + b"\n"


def decode(text: bytes) -> RelayConfig:
    """Read a configuration. Raises ConfigError naming the field that is wrong."""
    try:
        config = msgspec.json.decode(text, type=RelayConfig)
    except msgspec.DecodeError as error:
        raise ConfigError(f"relay.json: {error}") from error
    if complaint := _complaint(config):
        raise ConfigError(f"relay.json: {complaint}")
    return config


def _complaint(config: RelayConfig) -> str:
    """What would only be found wrong in use, when it is too late: the field, and what to write; "" for nothing."""
    delivery, listen, verification = config.delivery, config.listen, config.sender_verification
    if not _is_host_name(config.hostname):
        return f"hostname: {config.hostname!r} is not a host name: write the name clients connect to"
    if not _is_host_name(delivery.helo_name):
        return (
            f"delivery.heloName: {delivery.helo_name!r} is not a host name: write the name that the address mail "
            "leaves from has in the DNS"
        )
    for field, address in (
        ("delivery.sourceAddress", delivery.source_address),
        ("senderVerification.sourceAddress", verification.source_address),
        ("listen.address", listen.address),
    ):
        if address and not is_address(address):
            return f'{field}: {address!r} is not an IP address: write one of this machine, or "" for any'
    for number, address in enumerate(config.resolver.nameservers):
        if not is_address(address):
            return f"resolver.nameservers[{number}]: {address!r} is not an IP address: a resolver is named by one"
    for number, network in enumerate(delivery.allow_networks):
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            return f"delivery.allowNetworks[{number}]: {error}: write a network like 10.0.0.0/8"
    for number, account in enumerate(config.accounts):
        if not _is_verifier(account.verifier):  # not quoted: it might be a password
            return (
                f"accounts[{number}].verifier ({account.name}) is none: write what malote_relay.passwords.verifier "
                "makes of the password (sha256:SALT:DIGEST)"
            )
    for number, domain in enumerate(config.domains):
        if not _NAME.fullmatch(domain.name):
            return f"domains[{number}].name: {domain.name!r} is not a domain name: write it in ASCII (xn--...)"
        for key in domain.keys:
            if not _NAME.fullmatch(key.selector):
                return (
                    f"domains[{number}].keys: {key.selector!r} is not a selector: write letters, digits and hyphens"
                )
            if "/" in key.file or key.file.startswith(".") or not key.file:
                return f"domains[{number}].keys: {key.file!r} is not a plain file name in {KEYS_DIRECTORY}/"
    return ""


_NAME: Final = re.compile(r"(?!.{254})[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*")
"""Labels of letters, digits and hyphens (RFC 1123 section 2.1); underscores are found in domains and selectors."""


def _is_host_name(name: str) -> bool:
    return "_" not in name and _NAME.fullmatch(name) is not None


def is_address(text: str) -> bool:
    """Whether it is an IP address of either family."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_verifier(text: str) -> bool:
    """Whether it is in the form that `malote_relay.passwords` writes and reads."""
    scheme, *parts = text.split(":")
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in parts)
    except (ValueError, binascii.Error):
        return False
    return scheme == "sha256" and bool(salt) and len(digest) == hashlib.sha256().digest_size


def configuration_hash(text: bytes) -> str:
    """What a relay reports as loaded: the SHA-256 of the file's bytes, in hex.

    Key files need no part in it: a selector derives from its key's fingerprint.
    """
    return hashlib.sha256(text).hexdigest()
