"""Mailboxes and paths as RFC 5321 section 4.1.2 writes them, with the UTF-8 of RFC 6531.

A domain is compared, stored and asked for in one form only: lower-case A-labels (RFC 5890). What is not yet a
U-label, only something that a lenient reader would turn into one (fullwidth letters, an ideographic full stop), is
refused: it would leave as written, and the next reader may turn it into something else.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

MAX_LOCAL_PART = 64
MAX_DOMAIN = 255
MAX_PATH = 256

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]"
_DOT_STRING = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*\Z")
_QUOTED_STRING = re.compile(r'"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*"\Z')
_ESCAPED = re.compile(r"\\(.)")
_TO_ESCAPE = re.compile(r'["\\]')
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})+\Z")
_SOURCE_ROUTE = re.compile(r"@[A-Za-z0-9.\-]+(?:,@[A-Za-z0-9.\-]+)*:")
_UPPER = re.compile("[A-Z]+")
_SPECIALS = frozenset('()<>[]:;@\\,." ')

MISLEADING = re.compile("[\u0080-\u009f\u2028-\u202e\u2066-\u2069]")
"""C1 controls, line separators, and what turns the direction of writing: text with them is not what it looks like."""


class AddressError(ValueError):
    """This is no address that mail can be sent from or to; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A local part as written, without quotes that mean nothing, and a domain in lower-case A-labels."""

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"

    @property
    def ascii(self) -> bool:
        """Whether it can be used without SMTPUTF8."""
        return self.local.isascii()


def domain(text: str) -> str:
    """A fully qualified domain in lower-case A-labels. Raises AddressError."""
    name = text if text.isascii() else _to_a_labels(text)
    name = name.lower()
    if len(name) > MAX_DOMAIN or not _DOMAIN.match(name) or name.rpartition(".")[2].isdigit():
        raise AddressError(f"{text!r} is not a fully qualified domain name")
    return name


@lru_cache(maxsize=1024)  # a tenant has few senders, and each stands in MAIL and in the header
def mailbox(text: str) -> Mailbox:
    """`local@domain`. Raises AddressError."""
    local, at, host = text.rpartition("@")
    if not at or not local:
        raise AddressError(f"{text!r} is not of the form user@domain")
    if host.startswith("["):
        raise AddressError(f"{text!r}: an IP address in place of a domain is not taken here")
    if len(local.encode()) > MAX_LOCAL_PART or len(text.encode()) > MAX_PATH:
        raise AddressError("the address is too long")
    if not _DOT_STRING.match(local) and not _QUOTED_STRING.match(local):
        raise AddressError(f"{local!r} is not a valid part before the @")
    if local[0] == '"':
        local = _unquoted(local)
    if not local.isascii() and _misleads(local):
        raise AddressError(f"{local!r} has characters that others may take for blanks, dots or brackets")
    return Mailbox(local, domain(host))


def _unquoted(local: str) -> str:
    """A quoted local part without quotes and backslashes that it can do without.

    With them it names the same mailbox (RFC 5321 section 4.1.2): who is on a list must not be off it in quotes.
    """
    meant = _ESCAPED.sub(r"\1", local[1:-1])
    return meant if _DOT_STRING.match(meant) else '"' + _TO_ESCAPE.sub(r"\\\g<0>", meant) + '"'


def take_path(text: str) -> tuple[str, str]:
    """Split `<path> parameters` into the path's inside, source routes dropped, and the parameters.

    RFC 5321 section 4.1.1.3 and appendix C: a source route must be understood and should be ignored.
    Raises AddressError.
    """
    text = text.lstrip(" ")
    if not text.startswith("<"):
        raise AddressError("write the address in <angle brackets>")
    end = _closing(text)
    if end < 0:
        raise AddressError("the closing > of the address is missing")
    inside, rest = text[1:end], text[end + 1 :]
    if rest and not rest.startswith(" "):
        raise AddressError("a space is missing after the >")
    route = _SOURCE_ROUTE.match(inside)
    return (inside[route.end() :] if route else inside), rest.strip(" ")


def _closing(text: str) -> int:
    """Where the first ">" is that no quoted string contains; -1 for nowhere."""
    end = text.find(">")
    if '"' not in text[:end]:
        return end
    quoted = escaped = False
    for index, character in enumerate(text):
        if escaped:
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == ">" and not quoted:
            return index
    return -1


def _misleads(local: str) -> bool:
    if MISLEADING.search(local):
        return True
    foreign = "".join(character for character in local if not character.isascii())
    return not _SPECIALS.isdisjoint(unicodedata.normalize("NFKC", foreign))


def _to_a_labels(text: str) -> str:
    # Loaded only when somebody uses such a name: its tables take more memory than the dialogue does.
    import idna  # noqa: PLC0415

    try:
        # ASCII letters mean the same in either case; beyond ASCII only the lower-case form is a U-label.
        return idna.encode(_UPPER.sub(lambda found: found[0].lower(), text), strict=True).decode("ascii")
    except idna.IDNAError as error:
        raise AddressError(f"{text!r} is not a valid international domain name: {error}") from error
