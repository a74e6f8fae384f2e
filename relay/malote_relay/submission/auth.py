"""Signing in: PLAIN (RFC 4616) and LOGIN, and what failures cost.

Passwords have at least 192 random bits, so guessing is hopeless and the guard is there to keep guessers from taking
the relay's time: each failure of a client's address or of an account delays the answer to the next one, and a
session ends after a few. A right password is never delayed by others' failures: nobody can be locked out.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from malote_relay import passwords
from malote_relay.config import Account

_NOBODY = passwords.verifier("nobody", salt=b"\0" * 16)
_FIRST_DELAY = 0.5
_MAX_DELAY = 8.0
_FORGET_SECONDS = 600.0
_MAX_KEPT = 10_000


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


class Guard:
    """Counts failures by key (a client's address, a user name) and says how long the next failure's answer waits."""

    def __init__(self) -> None:
        self._failures: dict[str, tuple[int, float]] = {}

    def failed(self, keys: tuple[str, ...], now: float) -> float:
        """Note a failure at `now` (any steady clock) and give the delay in seconds before it is answered."""
        worst = 0
        for key in keys:
            count, last = self._failures.pop(key, (0, now))
            count = 1 if now - last > _FORGET_SECONDS else count + 1
            self._failures[key] = (count, now)
            worst = max(worst, count)
        while len(self._failures) > _MAX_KEPT:  # the oldest first: a flood of names must not fill the memory
            del self._failures[next(iter(self._failures))]
        return min(_MAX_DELAY, _FIRST_DELAY * 2.0 ** min(worst - 1, 10))
