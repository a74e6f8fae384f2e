"""What no type can say: values that would only be found wrong in use. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from malote_relay.config.model import RelayConfig
from malote_relay.config.tenant import DkimKey

KEYS_DIRECTORY: Final = Path("keys")
CREDENTIALS_DIRECTORY: Final = Path("credentials")


def complaint(config: RelayConfig) -> str:
    """The field that is wrong and what to write instead; "" for nothing."""
    return next((said for check in _CHECKS if (said := check(config))), "")


def _names(config: RelayConfig) -> str:
    if not is_host_name(config.hostname):
        return f"hostname: {config.hostname!r} is not a host name: write the name clients connect to"
    helo_name = config.delivery.helo_name
    if not is_host_name(helo_name):
        return (
            f"delivery.heloName: {helo_name!r} is not a host name: write the name that the address mail "
            "leaves from has in the DNS"
        )
    helo_name = config.sender_verification.helo_name
    if helo_name and not is_host_name(helo_name):
        return (
            f"senderVerification.heloName: {helo_name!r} is not a host name: write the name that "
            'senderVerification.sourceAddress has in the DNS, or "" for that of delivery'
        )
    return ""


def _addresses(config: RelayConfig) -> str:
    for field, address in (
        ("delivery.sourceAddress", config.delivery.source_address),
        ("senderVerification.sourceAddress", config.sender_verification.source_address),
        ("listen.address", config.listen.address),
    ):
        if address and not is_address(address):
            return f'{field}: {address!r} is not an IP address: write one of this machine, or "" for any'
    for number, address in enumerate(config.resolver.nameservers):
        if not is_address(address):
            return f"resolver.nameservers[{number}]: {address!r} is not an IP address: a resolver is named by one"
    return (
        network_complaint("delivery.allowNetworks", config.delivery.allow_networks)
        or network_complaint("listen.proxyNetworks", config.listen.proxy_networks)
        or _everybody(
            "listen.proxyNetworks",
            config.listen.proxy_networks,
            "anybody could say to be any client: write the addresses that your proxies connect from",
        )
    )


def _postmaster(config: RelayConfig) -> str:
    postmaster = config.submission.postmaster
    if postmaster and not _PLAIN_MAILBOX.fullmatch(postmaster):
        return f"submission.postmaster: {postmaster!r} is not a mailbox: write user@domain in ASCII"
    return ""


def _transport(config: RelayConfig) -> str:
    delivery = config.delivery
    for field, server in (("delivery.smartHost", delivery.smart_host), ("delivery.socks5", delivery.socks5)):
        if server is None:
            continue
        if not (is_address(server.host) or is_host_name(server.host)):
            return f"{field}.host: {server.host!r} is neither a host name nor an IP address"
        if server.username and (not server.password_file or not _is_plain_file_name(server.password_file)):
            return (
                f"{field}.passwordFile: {server.password_file!r} is not a plain file name in "
                f"{CREDENTIALS_DIRECTORY}/: write the name of the file with the password of {field}.username"
            )
        if server.password_file and not server.username:
            return f"{field}.username is missing: write whose password {server.password_file!r} holds"
    smart = delivery.smart_host
    if smart is not None and smart.host.rstrip(".").lower() in {config.hostname.lower(), delivery.helo_name.lower()}:
        return f"delivery.smartHost.host: {smart.host!r} is this relay itself: write the host that takes its mail"
    if delivery.socks5 is not None and len(delivery.socks5.username.encode()) > _SOCKS_FIELD:
        return f"delivery.socks5.username: more than {_SOCKS_FIELD} octets, which the protocol cannot carry"
    contact = delivery.tls_reports.contact
    if contact and not _CONTACT.fullmatch(contact):
        return f"delivery.tlsReports.contact: {contact!r} is not a mail address: write one like tls@example.com"
    return ""


def _accounts(config: RelayConfig) -> str:
    for number, account in enumerate(config.accounts):
        if not _is_verifier(account.verifier):  # not quoted: it might be a password
            return (
                f"accounts[{number}].verifier ({account.name}) is none: write what malote_relay.passwords.verifier "
                "makes of the password (sha256:SALT:DIGEST)"
            )
    return _twice("accounts", "name", [account.name for account in config.accounts]) or _twice(
        "accounts", "username", [account.username for account in config.accounts]
    )


def _domains(config: RelayConfig) -> str:
    for number, domain in enumerate(config.domains):
        if not _NAME.fullmatch(domain.name):
            return f"domains[{number}].name: {domain.name!r} is not a domain name: write it in ASCII (xn--...)"
        if domain.name != domain.name.lower():
            return f"domains[{number}].name: {domain.name!r} is not in lower case, in which all are compared"
        for key in domain.keys:
            if said := key_complaint(f"domains[{number}].keys", key):
                return said
    return _twice("domains", "name", [domain.name for domain in config.domains])


def _notices(config: RelayConfig) -> str:
    for key in config.notices.keys:
        if said := key_complaint("notices.keys", key):
            return said
    return ""


def _bounces(config: RelayConfig) -> str:
    bounces = config.bounces
    for number, file in enumerate(bounces.secrets):
        if not _is_plain_file_name(file):
            return f"bounces.secrets[{number}]: {file!r} is not a plain file name in {KEYS_DIRECTORY}/"
    for number, domain in enumerate(config.domains):
        if domain.return_path and not is_host_name(domain.return_path):
            return (
                f"domains[{number}].returnPath: {domain.return_path!r} is not a host name: write one whose MX record "
                "leads to this relay's bounce port"
            )
        if domain.return_path and not bounces.secrets:
            return f"domains[{number}].returnPath needs a secret: name its file in bounces.secrets"
    if config.listen.bounce_port is not None and not bounces.secrets:
        return "listen.bouncePort needs a secret: name its file in bounces.secrets"
    for number, address in enumerate(bounces.feedback_addresses):
        local, _, host = address.rpartition("@")
        if not local or not local.isascii() or not is_host_name(host):
            return f"bounces.feedbackAddresses[{number}]: {address!r} is not an address: write user@domain"
    return network_complaint("bounces.feedbackNetworks", bounces.feedback_networks) or _everybody(
        "bounces.feedbackNetworks",
        bounces.feedback_networks,
        "anybody can make up a complaint: write the networks that your mailbox providers report from",
    )


def key_complaint(field: str, key: DkimKey) -> str:
    """What is wrong with a key's names."""
    if not _NAME.fullmatch(key.selector):
        return f"{field}: {key.selector!r} is not a selector: write letters, digits and hyphens"
    if not _is_plain_file_name(key.file):
        return f"{field}: {key.file!r} is not a plain file name in {KEYS_DIRECTORY}/"
    return ""


def _shaping(config: RelayConfig) -> str:
    for name in config.delivery.shaping.destinations:
        if not _NAME.fullmatch(name) or name != name.lower():
            return (
                f"delivery.shaping.destinations: {name!r} is not a domain or a host name: write it in lower case and "
                "ASCII (xn--...), without a dot at its ends"
            )
    return ""


def _is_plain_file_name(file: str) -> bool:
    return bool(file) and "/" not in file and not file.startswith(".")


def network_complaint(field: str, networks: Sequence[str]) -> str:
    """What is wrong with one of a field's networks."""
    for number, network in enumerate(networks):
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            return f"{field}[{number}]: {error}: write a network like 10.0.0.0/8"
    return ""


def _twice(field: str, part: str, values: Sequence[str]) -> str:
    """Which of several values that must differ is one of those before it."""
    seen: set[str] = set()
    for number, value in enumerate(values):
        if value in seen:
            return f"{field}[{number}].{part}: {value!r} is there before: each needs one of its own"
        seen.add(value)
    return ""


def _everybody(field: str, networks: Sequence[str], why: str) -> str:
    """What is wrong with one of a field's networks that everybody is in."""
    for number, network in enumerate(networks):
        if not ipaddress.ip_network(network).prefixlen:
            return f"{field}[{number}]: {network} is everybody, and {why}"
    return ""


_CHECKS: Final[tuple[Callable[[RelayConfig], str], ...]] = (
    _names,
    _addresses,
    _transport,
    _accounts,
    _domains,
    _postmaster,
    _notices,
    _bounces,
    _shaping,
)


_NAME: Final = re.compile(r"(?!.{254})[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*")
"""Labels of letters, digits and hyphens (RFC 1123 section 2.1); underscores are found in domains and selectors."""


_LABEL: Final = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_PLAIN_MAILBOX: Final = re.compile(
    r"(?=[^@]{1,64}@[^@]{4,150}\Z)[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*"
    rf"@(?:{_LABEL}\.)+[A-Za-z][A-Za-z0-9-]{{0,60}}[A-Za-z0-9]"
)
_SOCKS_FIELD: Final = 255
_CONTACT: Final = re.compile(r"[\x21-\x3f\x41-\x7e]{1,64}@[A-Za-z0-9.-]{1,253}")


def is_host_name(name: str) -> bool:
    """Whether it is a name that a host may have."""
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
