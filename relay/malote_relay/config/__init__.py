"""What a relay is told: one JSON file, written by the operator (or by hand) and read by the relay.

The schema lives here because both programs import it. A configuration directory looks like this::

    DIR/config/relay.json              this schema
    DIR/keys/SELECTOR.DOMAIN.pem       private DKIM keys (PKCS #8, PEM)
    DIR/credentials/NAME               passwords that fields ending in "File" name
    DIR/tls/tls.crt, DIR/tls/tls.key   the certificate chain and key of the submission listeners

Everything but the listeners' addresses is reloaded while the relay runs. The relay reports
`configuration_hash` of the file it has loaded, so that a writer knows when a change is in force.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from malote_relay.config.accepting import (
    Limits,
    Listen,
    SenderMode,
    SenderVerification,
    SignIn,
    Trace,
    UnknownSender,
)
from malote_relay.config.bounces import Bounces
from malote_relay.config.check import CREDENTIALS_DIRECTORY, KEYS_DIRECTORY, complaint, is_address
from malote_relay.config.feedback import AccountPause, Suppression
from malote_relay.config.fields import ConfigError
from malote_relay.config.model import Rehearsal, RelayConfig
from malote_relay.config.notices import Language, Notices
from malote_relay.config.sending import Delivery, Resolver
from malote_relay.config.shaping import ProviderShaping, Shaping, ShapingLimits, TogetherLimits
from malote_relay.config.tenant import Account, AccountClass, DkimKey, Domain, OverLimitReply, Plan, Submission
from malote_relay.config.transport import OutgoingTls, SmartHost, SmartHostTls, Socks5, TlsReports

__all__ = [
    "CERTIFICATE_FILE",
    "CERTIFICATE_KEY_FILE",
    "CONFIG_FILE",
    "CREDENTIALS_DIRECTORY",
    "KEYS_DIRECTORY",
    "Account",
    "AccountClass",
    "AccountPause",
    "Bounces",
    "ConfigError",
    "Delivery",
    "DkimKey",
    "Domain",
    "Language",
    "Limits",
    "Listen",
    "Notices",
    "OutgoingTls",
    "OverLimitReply",
    "Plan",
    "ProviderShaping",
    "Rehearsal",
    "RelayConfig",
    "Resolver",
    "SenderMode",
    "SenderVerification",
    "Shaping",
    "ShapingLimits",
    "SignIn",
    "SmartHost",
    "SmartHostTls",
    "Socks5",
    "Submission",
    "Suppression",
    "TlsReports",
    "TogetherLimits",
    "Trace",
    "UnknownSender",
    "configuration_hash",
    "decode",
    "encode",
    "is_address",
]

CONFIG_FILE = Path("config/relay.json")
CERTIFICATE_FILE = Path("tls/tls.crt")
CERTIFICATE_KEY_FILE = Path("tls/tls.key")


def encode(config: RelayConfig) -> bytes:
    """The file's text: stable for equal configurations, so that its hash changes only when it does."""
    return msgspec.json.format(msgspec.json.encode(config, order="deterministic"), indent=2) + b"\n"


def decode(text: bytes) -> RelayConfig:
    """Read a configuration. Raises ConfigError naming the field that is wrong."""
    try:
        config = msgspec.json.decode(text, type=RelayConfig)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"relay.json: {error}") from error
    if said := complaint(config):
        raise ConfigError(f"relay.json: {said}")
    return config


def configuration_hash(text: bytes) -> str:
    """What a relay reports as loaded: the SHA-256 of the file's bytes, in hex.

    Key files need no part in it: a selector derives from its key's fingerprint.
    """
    return hashlib.sha256(text).hexdigest()
