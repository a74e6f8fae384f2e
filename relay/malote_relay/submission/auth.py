"""What PLAIN (RFC 4616) and LOGIN bring, and the account that it opens. Pure; what failures cost is in `guard`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from malote_relay import passwords
from malote_relay.config import Account

_NOBODY = passwords.verifier("nobody", salt=b"\0" * 16)


def decoded(text: str | bytes) -> bytes | None:
    """The octets of a base64 response; None when it is not base64 (RFC 4954 section 4)."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def plain(response: bytes) -> tuple[str, str] | None:
    """User name and password from a PLAIN response; None when malformed or when somebody else is to be acted for."""
    try:
        acting_for, username, password = response.decode("utf-8").split("\0")
    except ValueError:
        return None
    if not username or acting_for not in {"", username}:
        return None
    return username, password


def account(accounts: Mapping[str, Account], username: str, password: str) -> Account | None:
    """The account that these credentials open, in time that tells nothing about which part was wrong."""
    found = accounts.get(username)
    right = passwords.matches(password, found.verifier if found else _NOBODY)
    return found if right else None
