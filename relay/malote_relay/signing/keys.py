"""Private DKIM keys, read from PEM files: RSA (RFC 6376) or Ed25519 (RFC 8463)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from malote_relay.config import ConfigError

_SHORTEST_RSA: Final = 2048  # RFC 8301 section 3.2: signers SHOULD; shorter ones are refused here and there


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key with the selector it is published under."""

    selector: str
    private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

    @property
    def algorithm(self) -> bytes:
        """The tag a=."""
        return b"rsa-sha256" if isinstance(self.private, rsa.RSAPrivateKey) else b"ed25519-sha256"

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`. The RSA work happens without the interpreter's lock."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return self.private.sign(hashlib.sha256(data).digest())  # RFC 8463 section 3: the hash is what is signed


def load(selector: str, path: Path) -> SigningKey:
    """Read a key. Raises ConfigError naming the file and what is wrong with it, as for an RSA key below 2048 bits."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: the DKIM key of selector {selector} cannot be read: {error.strerror}") from error
    try:
        private = load_pem_private_key(text, password=None)
    except TypeError as error:
        raise ConfigError(f"{path}: the DKIM key is encrypted: write it without a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: this is no private key in PEM form (PKCS #8)") from error
    if isinstance(private, rsa.RSAPrivateKey):
        if private.key_size < _SHORTEST_RSA:
            raise ConfigError(
                f"{path}: the DKIM key of selector {selector} has {private.key_size} bits, too few for RSA: make one "
                f"of {_SHORTEST_RSA} and publish it under a selector of its own"
            )
        return SigningKey(selector, private)
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return SigningKey(selector, private)
    raise ConfigError(f"{path}: DKIM knows RSA and Ed25519 keys, not {type(private).__name__}")
