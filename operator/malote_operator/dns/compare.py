"""What a domain's servers answered against what they should: a state, and in words what to change.

Pure: the strings come from `lookup` or from a test. Records are compared by meaning, tag by tag, because DNS
panels add quotes, spaces and line breaks of their own.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

from malote_operator.api.sendingdomain import RecordState

from . import spf as spf_records
from . import tags

DMARC_POLICIES = ("none", "quarantine", "reject")
"""From the weakest to the strictest (RFC 7489 section 6.3)."""

_MANY_LOOKUPS = 8


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of one record, and a sentence about what is wrong or worth knowing ("" when nothing is)."""

    state: RecordState
    message: str = ""

    @property
    def found(self) -> bool:
        """Whether the record is there and right."""
        return self.state is RecordState.FOUND


def _missing(message: str) -> Verdict:
    return Verdict(RecordState.MISSING, message)


def _mismatch(message: str) -> Verdict:
    return Verdict(RecordState.MISMATCH, message)


def _found(message: str = "") -> Verdict:
    return Verdict(RecordState.FOUND, message)


def spf(texts: Sequence[str], include: str) -> Verdict:
    """The TXT strings at the domain against an SPF record that includes us (RFC 7208)."""
    instead = f"write instead: {spf_records.merged(texts, include)}"
    terms = _one_record(texts, instead)
    if isinstance(terms, Verdict):
        return terms
    end = _end(terms)
    ours = [place for place, term in enumerate(terms) if term.includes(include)]
    if not ours:
        return _mismatch(f"include:{include} is missing; {instead}")
    if ours[0] > end:
        return _mismatch(f"include:{include} stands behind “{terms[end].text}” and is never reached; {instead}")
    if terms[ours[0]].qualifier != "+":
        return _mismatch(f"“{terms[ours[0]].text}” does not let us send; {instead}")
    if end < len(terms) and terms[end].qualifier == "+":
        return _found(f"“{terms[end].text}” lets anybody send in this domain's name: write ~all or -all")
    needed = spf_records.lookups(terms)
    if needed >= _MANY_LOOKUPS:
        return _found(
            f"{needed} of the {spf_records.LOOKUP_LIMIT} DNS look-ups that receivers make are used, those of the"
            " included records not counted: remove includes that are no longer used"
        )
    return _found()


def helo_spf(texts: Sequence[str], wanted: str) -> Verdict:
    """The TXT strings at an EHLO name: what lets anything send will do, since mail's addresses are not known here."""
    terms = _one_record(texts, f"write {wanted}")
    if isinstance(terms, Verdict):
        return terms
    end = _end(terms)
    if end < len(terms) and terms[end].qualifier == "+":
        return _found(f"“{terms[end].text}” lets anybody send in this name: write -all")
    # Where there is an all, redirect= is ignored (RFC 7208 section 6.1).
    redirected = end == len(terms) and any(term.modifier and term.name == "redirect" for term in terms)
    if not redirected and not any(term.qualifier == "+" and not term.modifier for term in terms[:end]):
        whole = " ".join((spf_records.VERSION, *(term.text for term in terms)))
        return _mismatch(f"“{_short(whole)}” lets nobody send: write {wanted}")
    return _found()


def _one_record(texts: Sequence[str], instead: str) -> Verdict | tuple[spf_records.Term, ...]:
    """The terms of the one SPF record among the TXT strings; or why there is none that receivers would use."""
    records = [text for text in texts if spf_records.is_record(text)]
    if not records:
        meant = next((text for text in texts if spf_records.looks_meant(text)), None)
        if meant is not None:
            return _mismatch(f"“{_short(meant)}” is not an SPF record: it must begin with “v=spf1 ”; {instead}")
        return _missing("there is no SPF record")
    if len(records) > 1:
        # Section 4.5: more than one is a permanent error for every receiver.
        return _mismatch(
            f"there are {len(records)} SPF records and receivers accept one only: remove all but one; {instead}"
        )
    terms = spf_records.terms(records[0])
    for term in terms:
        if error := term.error():
            return _mismatch(f"{error}, so that receivers discard the whole record; correct it")
    for name in ("redirect", "exp"):  # section 6
        if sum(term.modifier and term.name == name for term in terms) > 1:
            return _mismatch(f"{name}= stands twice, so that receivers discard the whole record; remove one")
    needed = spf_records.lookups(terms)
    if needed > spf_records.LOOKUP_LIMIT:
        return _mismatch(
            f"the record needs {needed} DNS look-ups and receivers stop after {spf_records.LOOKUP_LIMIT} (RFC 7208"
            " section 4.6.4): remove includes that are no longer used"
        )
    return terms


def _end(terms: Sequence[spf_records.Term]) -> int:
    """Where the record's all stands, behind which no mechanism is reached; its length if there is none."""
    return next((place for place, term in enumerate(terms) if term.name == "all"), len(terms))


def dkim(texts: Sequence[str], public_key: str) -> Verdict:
    """The TXT strings at the selector against the key (RFC 6376 section 3.6.1)."""
    if not texts:
        return _missing(
            "there is no DKIM record; in a zone file, write the value as quoted strings of up to 255 each"
        )
    if len(texts) > 1:
        # Section 3.6.2.2: results are undefined; receivers may take either.
        return _mismatch(f"there are {len(texts)} TXT records at this name: leave only the one shown")
    try:
        found = tags.parse(texts[0].strip().strip('"'))
    except tags.TagError as error:
        return _mismatch(f"this is not a DKIM record: {error}; publish the value shown")
    if "v" in found and (found["v"] != "DKIM1" or next(iter(found)) != "v"):
        return _mismatch("a DKIM record begins with v=DKIM1; publish the value shown")
    if "p" not in found:
        return _mismatch("the tag p= with the key is missing; publish the value shown")
    published = "".join(found["p"].split()).replace('"', "")
    if not published:
        return _mismatch("the key is revoked (p= is empty); publish the value shown")
    if found.get("k", "rsa") != "rsa":
        return _mismatch(f"k={found['k']} is another kind of key; publish the value shown")
    if not _same_key(published, public_key):
        if public_key.startswith(published):
            return _mismatch(
                f"the key is cut off after {len(published)} of {len(public_key)} characters: the DNS panel takes only"
                " part of it; paste it as quoted strings of up to 255 characters, one behind the other"
            )
        return _mismatch("p= holds another key; publish the value shown")
    if "h" in found and "sha256" not in _list(found["h"]):
        return _mismatch(f"h={found['h']} excludes sha256, which signatures here use; publish the value shown")
    if "s" in found and not {"*", "email"} & _list(found["s"]):
        return _mismatch(f"s={found['s']} excludes mail; publish the value shown")
    if "y" in _list(found.get("t", "")):
        return _found("t=y says that DKIM is only being tried: remove it")
    return _found()


def dkim_cname(chain: Sequence[str], texts: Sequence[str], target: str, public_key: str) -> Verdict:
    """A CNAME at the selector against the target in the platform's zone."""
    if not chain and not texts:
        return _missing("there is no CNAME record")
    if not chain:
        return _mismatch("a TXT record stands where the CNAME belongs: replace it by the CNAME shown")
    if chain[0].rstrip(".").lower() != target.lower():
        doubled = chain[0].lower().startswith(target.lower() + ".")
        hint = "; end the target with a dot, or the DNS panel appends the domain" if doubled else ""
        return _mismatch(f"the CNAME leads to {chain[0]} and not to {target}{hint}")
    behind = dkim(texts, public_key)
    if not behind.found:
        return _mismatch(
            "the CNAME is right, but the platform's zone does not show the key yet: nothing to do for you"
        )
    return _found()


def is_dmarc(text: str) -> bool:
    """Whether a TXT string counts as a DMARC record (RFC 7489 section 6.6.3: others are discarded)."""
    first, _, _ = text.strip().partition(";")
    name, _, value = first.partition("=")
    return name.strip() == "v" and value.strip() == "DMARC1"


def dmarc(texts: Sequence[str], minimum: str) -> Verdict:
    """The TXT strings at ``_dmarc`` against the weakest record that will do; a stricter policy is accepted."""
    records = [text for text in texts if is_dmarc(text)]
    if not records:
        meant = next((text for text in texts if "dmarc" in text.lower()), None)
        if meant is not None:
            return _mismatch(
                f"“{_short(meant)}” is not a DMARC record: it must begin with v=DMARC1; publish the value shown"
            )
        return _missing("there is no DMARC record")
    if len(records) > 1:
        # Section 6.6.3: with more than one, DMARC is not applied at all.
        return _mismatch(f"there are {len(records)} DMARC records, which counts as none: leave only one")
    try:
        found = tags.parse(records[0])
    except tags.TagError as error:
        return _mismatch(f"the DMARC record cannot be read: {error}; publish the value shown")
    policy = found.get("p", "").lower()
    if policy not in DMARC_POLICIES:
        said = f"p={found['p']} is not a policy" if "p" in found else "the tag p= is missing"
        return _mismatch(f"{said}: write p=none, p=quarantine or p=reject")
    needed = tags.parse(minimum).get("p", "none").lower()
    if DMARC_POLICIES.index(policy) < DMARC_POLICIES.index(needed):
        return _mismatch(f"p={policy} is weaker than the p={needed} asked for; publish the value shown")
    percent = found.get("pct", "100")
    if not percent.isdigit() or int(percent) > 100:
        return _mismatch(f"pct={percent} is not a number from 0 to 100: correct or remove it")
    for tag in ("adkim", "aspf"):
        if found.get(tag, "r").lower() not in {"r", "s"}:
            return _mismatch(f"{tag}={found[tag]} is neither r nor s: correct or remove it")
    return _found()


def mx(records: Sequence[str], endpoint: str) -> Verdict:
    """The MX records at the return path against the relay's host (RFC 5321 section 5.1: the lowest number first)."""
    parsed = sorted(_mx_record(record) for record in records)
    if not parsed:
        return _missing("there is no MX record")
    if any(not host for _, host in parsed):  # RFC 7505
        return _mismatch("the null MX says that this host takes no mail: publish the value shown in its place")
    ours = [preference for preference, host in parsed if host == endpoint.lower()]
    others = [(preference, host) for preference, host in parsed if host != endpoint.lower()]
    if not ours:
        first = others[0][1]
        if first.startswith(endpoint.lower() + "."):
            return _mismatch(
                f"the MX record leads to {first} and not to {endpoint}; end the host with a dot, or the DNS panel"
                " appends the domain"
            )
        return _mismatch(
            f"the MX record leads to {first} and not to {endpoint}: publish the value shown, or, if the host takes"
            " other mail, write another one in spec.returnPath"
        )
    if others and others[0][0] <= ours[0]:
        return _mismatch(
            f"{others[0][1]} gets bounces too, of which the relay never hears: leave only the MX record shown"
        )
    if others:
        return _found(
            f"{others[0][1]} gets the bounces while the relay cannot be reached: remove its MX record if it does not"
            " pass them on"
        )
    return _found()


def host_address(addresses: Sequence[str], wanted: str) -> Verdict:
    """The addresses of an EHLO name against the one that mail leaves from; "": any, since that one is not known."""
    if not addresses:
        return _missing("the name has no A or AAAA record: publish one with the address that mail leaves from")
    if wanted and wanted not in addresses:
        return _mismatch(f"the name leads to {', '.join(addresses[:3])} and not to {wanted}, which mail leaves from")
    return _found()


def host_reverse(names: Sequence[str], wanted: str, address: str) -> Verdict:
    """The names that an address leads back to against the EHLO name: receivers look whether they agree."""
    if not names:
        return _missing(f"{address} has no PTR record: whoever provides the address sets it")
    if wanted.lower() not in names:
        return _mismatch(
            f"{address} leads back to {', '.join(names[:3])} and not to {wanted}: whoever provides the address sets"
            f" it; if mail does not leave from it, take it from the addresses of {wanted}"
        )
    return _found()


def _mx_record(text: str) -> tuple[int, str]:
    preference, _, host = text.partition(" ")
    return int(preference), host.rstrip(".").lower()


def _same_key(published: str, wanted: str) -> bool:
    """Whether two base64 texts hold the same bytes."""
    try:
        return base64.b64decode(published, validate=True) == base64.b64decode(wanted, validate=True)
    except (binascii.Error, ValueError):
        return False


def _list(value: str) -> set[str]:
    return {part.strip().lower() for part in value.split(":")}


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"
