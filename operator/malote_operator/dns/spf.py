"""SPF records as lists of terms (RFC 7208): enough to merge an include into one and to say what is wrong.

An SPF record is one TXT string, ``v=spf1`` and then terms. *Mechanisms* are tried from left to right until one
matches (section 4.6.2); ``all`` always matches, so that nothing behind it is ever looked at (section 5.1).
*Modifiers* (``name=value``) may stand anywhere (section 6). A domain has at most one record (section 4.5).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

VERSION = "v=spf1"
LOOKUP_LIMIT = 10
"""Terms that need DNS, in all records together (section 4.6.4)."""

_MECHANISMS = frozenset({"all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists"})
_LOOK_UP = frozenset({"include", "a", "mx", "ptr", "exists", "redirect"})
_QUALIFIERS = "+-~?"


@dataclass(frozen=True, slots=True)
class Term:
    """One term: `text` as it stands, `name` in lower case, `value` behind ``:``, ``=`` or ``/``."""

    text: str
    name: str
    value: str
    qualifier: str = "+"
    modifier: bool = False

    def includes(self, host: str) -> bool:
        """Whether this is an ``include`` of that host, whatever its qualifier."""
        return self.name == "include" and not self.modifier and self.value.rstrip(".").lower() == host.lower()

    def error(self) -> str:
        """What makes receivers give up on the whole record (permerror) because of this term, or ""."""
        if self.modifier:
            return ""  # unknown modifiers are ignored (section 6)
        if self.name not in _MECHANISMS:
            hint = {"ip": "write ip4: or ip6:", "ipv4": "write ip4:", "ipv6": "write ip6:"}.get(self.name)
            return f"“{self.text}” is not an SPF mechanism" + (f" ({hint})" if hint else "")
        if self.name in {"include", "exists", "ip4", "ip6"} and not self.value:
            return f"“{self.text}” names nothing behind the colon"
        if self.name in {"ip4", "ip6"}:
            try:
                network = ipaddress.ip_network(self.value, strict=False)
            except ValueError:
                return f"“{self.text}” is not an address or network"
            if network.version != int(self.name[2]):
                return f"“{self.text}” is an IPv{network.version} network: write ip{network.version}:"
        return ""


def is_record(text: str) -> bool:
    """Whether a TXT string is an SPF record: the version and then a space or the end (section 4.5)."""
    return text.lower() == VERSION or text.lower().startswith(VERSION + " ")


def looks_meant(text: str) -> bool:
    """Whether a TXT string that is not an SPF record was probably meant as one."""
    start = text.lower().lstrip(" \"'“”").replace(" ", "")
    return not is_record(text) and (start.startswith(("v=spf", "spf1", "v:spf1")))


def terms(record: str) -> tuple[Term, ...]:
    """The terms behind the version."""
    return tuple(_term(text) for text in record.split()[1:])


def lookups(parsed: Sequence[Term]) -> int:
    """How many of the record's own terms need DNS, those of included records not counted."""
    return sum(term.name in _LOOK_UP for term in parsed)


def merged(existing: Sequence[str], include: str) -> str:
    """The one record to publish: the existing one with ``include:`` merged in.

    Its order, its ``all`` or ``redirect`` stay as they are. Where several records stand (which is an error), the
    mechanisms of the later ones join the first.
    """
    records = [text for text in existing if is_record(text)]
    if not records:
        return f"{VERSION} include:{include} ~all"
    first = list(terms(records[0]))
    present = {term.text.lower() for term in first}
    extra = [
        term
        for record in records[1:]
        for term in terms(record)
        if not term.modifier and term.name != "all" and term.text.lower() not in present
    ]
    end = next((place for place, term in enumerate(first) if term.name == "all"), None)
    reached = (first if end is None else first[:end]) + extra
    met = next((term for term in reached if term.includes(include)), None)
    if met is not None and met.qualifier == "+":
        ours: list[Term] = []
    else:
        ours = [_term(f"include:{include}")]
        first = [term for term in first if not term.includes(include)]
        extra = [term for term in extra if not term.includes(include)]
    mechanisms = [place for place, term in enumerate(first) if not term.modifier and term.name != "all"]
    place = next((n for n, term in enumerate(first) if term.name == "all"), mechanisms[-1] + 1 if mechanisms else 0)
    return " ".join([VERSION, *(term.text for term in [*first[:place], *extra, *ours, *first[place:]])])


def _term(text: str) -> Term:
    name, equals, value = text.partition("=")
    if equals and name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        return Term(text, name.lower(), value, modifier=True)
    qualifier, rest = (text[0], text[1:]) if text[0] in _QUALIFIERS else ("+", text)
    cut = min((place for place in (rest.find(":"), rest.find("/")) if place >= 0), default=len(rest))
    value = rest[cut + 1 :] if rest[cut : cut + 1] == ":" else rest[cut:]
    return Term(text, rest[:cut].lower(), value, qualifier)
