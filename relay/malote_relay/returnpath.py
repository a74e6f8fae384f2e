"""Return paths of the relay's own (VERP): each recipient's copy leaves with a reverse-path that names both.

A bounce that comes back to it then tells by its envelope alone which message to whom it is about, whatever its text
looks like. The local part is `b-TOKEN-MAC` in base32, which survives being turned to lower or upper case:

    TOKEN   the day on which the message was accepted, its id, and a mark of the recipient
    MAC     HMAC-SHA256 of those and of the domain, cut to 80 bits

Nobody who has not seen a return path can make one, and it ends with its time (as in BATV). Both its parts are the
same at every attempt, so that a server which greylists by the reverse-path meets the same one again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from malote_relay.config import ConfigError, RelayConfig
from malote_relay.store.names import domain_of

_DAY: Final = 86_400
_SHORTEST_SECRET: Final = 16
_MARK: Final = 5
_ID: Final = re.compile(r"[0-9a-f]{22}")
_TOKEN_OCTETS: Final = 2 + 11 + _MARK
_MAC_OCTETS: Final = 10
_LOCAL: Final = r"b-([a-z2-7]{29})-([a-z2-7]{16})"
_ADDRESS: Final = re.compile(_LOCAL + r"@([a-z0-9.-]{1,253})")
_ANYWHERE: Final = re.compile(rb"\b" + _LOCAL.encode() + rb"@[a-z0-9.-]{1,253}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Token:
    """What a return path names: a message by its id, and a recipient by a mark (`mark_of`)."""

    message: str
    mark: bytes


class NotOurs(ValueError):
    """This is no return path of ours, or no longer; the message says why."""


class ReturnPaths:
    """Makes and reads return paths by one configuration. Immutable: a new configuration makes a new one."""

    def __init__(self, secrets: Sequence[bytes], domains: Mapping[str, str], valid_days: int) -> None:
        """`domains` are the return paths' domains by those of the reverse-paths they stand in for."""
        self._secrets = tuple(secrets)
        self._domains = {name.lower(): domain.lower() for name, domain in domains.items()} if secrets else {}
        self._valid_days = valid_days

    @classmethod
    def load(cls, config: RelayConfig, keys_directory: Path) -> Self:
        """Read the secrets. Raises ConfigError naming the file and what is wrong."""
        secrets = [_secret(keys_directory / file) for file in config.bounces.secrets]
        domains = {domain.name: domain.return_path for domain in config.domains if domain.return_path}
        return cls(secrets, domains, config.bounces.valid_days)

    def applies(self, reverse_path: str, message: str) -> bool:
        """Whether the message leaves with return paths of ours, each recipient alone in a transaction."""
        return bool(self._domains) and domain_of(reverse_path) in self._domains and _ID.fullmatch(message) is not None

    def make(self, reverse_path: str, message: str, recipient: str, received_at: float) -> str:
        """The reverse-path to send with in place of the given one."""
        if not self.applies(reverse_path, message):
            return reverse_path
        domain = self._domains[domain_of(reverse_path)]
        day = int(received_at // _DAY) & 0xFFFF
        token = day.to_bytes(2, "big") + bytes.fromhex(message) + mark_of(recipient)
        return f"b-{_base32(token)}-{_base32(_mac(self._secrets[0], token, domain))}@{domain}"

    def read(self, address: str, now: float) -> Token:
        """What a return path names. Raises NotOurs."""
        found = _ADDRESS.fullmatch(address.lower())
        if found is None:
            raise NotOurs("there is no such mailbox here")
        token, mac = _octets(found[1]), _octets(found[2])
        if len(token) != _TOKEN_OCTETS or len(mac) != _MAC_OCTETS:
            raise NotOurs("there is no such mailbox here")
        # All are compared, so that the time taken tells nothing.
        if not any([hmac.compare_digest(mac, _mac(secret, token, found[3])) for secret in self._secrets]):
            raise NotOurs("there is no such mailbox here")
        age = (int(now // _DAY) - int.from_bytes(token[:2], "big")) & 0xFFFF
        if self._valid_days < age < 0xFFFF:  # one day ahead is a clock that was set back
            raise NotOurs("this return path has expired")
        return Token(token[2:13].hex(), token[13:])

    def found_in(self, content: bytes, now: float, limit: int = 20) -> list[Token]:
        """Those that stand anywhere in a text; of `limit` at most that look like one, the true ones."""
        tokens: dict[Token, None] = {}
        for number, found in enumerate(_ANYWHERE.finditer(content)):
            if number >= limit:
                break
            try:
                tokens[self.read(found[0].decode("ascii"), now)] = None
            except NotOurs:
                continue
        return list(tokens)


NONE: Final = ReturnPaths((), {}, 1)
"""Every reverse-path stays as it is."""

Current = Callable[[], ReturnPaths]
"""Gives those in force."""


def mark_of(recipient: str) -> bytes:
    """What tells the recipients of one message apart."""
    return hashlib.sha256(recipient.lower().encode("utf-8", "surrogatepass")).digest()[:_MARK]


def _mac(secret: bytes, token: bytes, domain: str) -> bytes:
    return hmac.digest(secret, b"malote return path\0" + token + domain.encode(), "sha256")[:_MAC_OCTETS]


def _base32(octets: bytes) -> str:
    return base64.b32encode(octets).decode("ascii").rstrip("=").lower()


def _octets(text: str) -> bytes:
    try:
        return base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    except binascii.Error:
        return b""


def _secret(file: Path) -> bytes:
    try:
        secret = file.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"{file}: the secret for return paths cannot be read: {error.strerror}") from error
    if len(secret) < _SHORTEST_SECRET:
        raise ConfigError(
            f"{file}: the secret for return paths is too short: write {_SHORTEST_SECRET} octets or more"
        )
    return secret
