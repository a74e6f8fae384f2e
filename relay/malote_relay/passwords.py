"""Verifiers of account passwords: what the configuration holds instead of the password.

Passwords are generated with at least 192 random bits, so that a salted SHA-256 withstands guessing and a
slow hash would only make AUTH a way to exhaust the relay.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

_SCHEME = "sha256"


def verifier(password: str, *, salt: bytes | None = None) -> str:
    """The text to keep for `password`: ``sha256:SALT:DIGEST``, both base64."""
    salt = secrets.token_bytes(16) if salt is None else salt
    return ":".join((_SCHEME, base64.b64encode(salt).decode(), base64.b64encode(_digest(salt, password)).decode()))


def matches(password: str, kept: str) -> bool:
    """Whether `password` is the one `kept` was made from, in time that does not depend on the answer."""
    scheme, salt, digest = kept.split(":")
    if scheme != _SCHEME:
        raise ValueError(f"unknown verifier scheme {scheme!r}: write one made by malote_relay.passwords.verifier")
    return hmac.compare_digest(base64.b64decode(digest), _digest(base64.b64decode(salt), password))


def _digest(salt: bytes, password: str) -> bytes:
    return hashlib.sha256(salt + password.encode()).digest()
