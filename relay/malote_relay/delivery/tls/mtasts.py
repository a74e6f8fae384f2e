"""MTA-STS policies as text: RFC 8461 sections 3.1, 3.2 and 4.1. Pure.

A domain says in a TXT record that it has a policy, and which version; the policy itself is a file on a web server of
the domain's. What either says is not believed where it strays from the grammar.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass

MAX_BYTES = 64 * 1024
MAX_AGE = 31_557_600
"""Seconds: a year, the longest that a policy may ask to be kept."""

MIN_AGE = 300
"""Seconds a policy is kept at least, whatever it asks: or each message would ask for it."""

_MAX_MX = 200
_FIELD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_ID = re.compile(r"[A-Za-z0-9]{1,32}")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_PATTERN = re.compile(rf"(?=.{{1,253}}\Z)(?:\*\.)?{_LABEL}(?:\.{_LABEL})*\.?")


class Mode(enum.StrEnum):
    """What is to be done with a host that does not keep the policy: nothing is sent, it is told, nothing."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


class InvalidPolicy(ValueError):
    """It is no policy; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class StsPolicy:
    """What a domain asks for. `mx` are host names, or "*." and a domain: any one label before it."""

    mode: Mode
    max_age: int
    mx: tuple[str, ...] = ()

    def admits(self, host: str) -> bool:
        """Whether `host` is one of the domain's (section 4.1)."""
        name = host.rstrip(".").lower()
        first, _, above = name.partition(".")
        return any(bool(first) and above == one[2:] if one.startswith("*.") else name == one for one in self.mx)


def record_id(texts: Iterable[bytes]) -> str | None:
    """The policy's version from the TXT records at `_mta-sts.DOMAIN`; None: there is no one valid record."""
    records = [one for one in texts if re.match(rb"v=STSv1[ \t]*;", one)]
    if len(records) != 1:
        return None
    try:
        text = records[0].decode("ascii")
    except UnicodeDecodeError:
        return None
    found = ""
    for number, field in enumerate(text.split(";")):
        name, equals, value = field.strip(" \t").partition("=")
        if not (name or equals):
            continue  # the final semicolon
        if not equals or not _FIELD.fullmatch(name) or (number > 0 and name == "v"):
            return None
        if name == "id" and not found:
            found = value
    return found if _ID.fullmatch(found) else None


def parse(body: bytes) -> StsPolicy:
    """Read a policy. Raises InvalidPolicy."""
    if len(body) > MAX_BYTES:
        raise InvalidPolicy(f"it has more than {MAX_BYTES} octets")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidPolicy("it is not text in UTF-8") from error
    fields: dict[str, str] = {}
    mx: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        if not line.strip(" \t"):
            continue
        key, colon, value = line.partition(":")
        value = value.strip(" \t")
        if not colon or not _FIELD.fullmatch(key):
            raise InvalidPolicy(f"{line[:80]!r} is not a field such as mode: enforce")
        if key == "mx":
            mx.append(_pattern(value))
        else:
            fields.setdefault(key, value)  # of those that may stand once, the first counts (section 3.2)
    if fields.get("version") != "STSv1":
        raise InvalidPolicy("its version is not STSv1")
    try:
        mode = Mode(fields.get("mode", ""))
    except ValueError as error:
        raise InvalidPolicy(f"its mode is {fields.get('mode', '')[:40]!r}") from error
    age = fields.get("max_age", "")
    if not re.fullmatch(r"[0-9]{1,10}", age):
        raise InvalidPolicy(f"its max_age is {age[:40]!r}")
    if mode is not Mode.NONE and not mx:
        raise InvalidPolicy("it names no mx")
    if len(mx) > _MAX_MX:
        raise InvalidPolicy(f"it names more than {_MAX_MX} mx")
    return StsPolicy(mode, min(MAX_AGE, max(MIN_AGE, int(age))), tuple(mx))


def _pattern(value: str) -> str:
    if not _PATTERN.fullmatch(value):
        raise InvalidPolicy(f"its mx {value[:80]!r} is neither a host name nor *. and a domain")
    return value.rstrip(".").lower()
