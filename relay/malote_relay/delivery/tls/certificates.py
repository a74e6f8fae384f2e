"""A server's certificates against TLSA records: RFC 6698, RFC 7671 section 5, RFC 7672 section 3. Pure.

With DANE-EE(3) nothing else about the server's certificate is looked at; with DANE-TA(2) the way from it to the one
that the record names must be sound, and the name right. Loaded when first needed: reading certificates takes room.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from malote_relay.delivery.tls.results import ResultType, Trouble
from malote_relay.delivery.tls.security import Tlsa
from malote_relay.delivery.tls.tlsa import DANE_EE, DANE_TA, FULL, MAX_RECORDS

_MAX_DEPTH = 8
T = TypeVar("T", bound=x509.ExtensionType)
_UNDERSTOOD = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName)


def verify(records: Sequence[Tlsa], chain: Sequence[bytes], names: Sequence[str], now: float) -> str | Trouble:
    """Which usage the server's `chain` (DER, its own first) satisfies: "dane-ee" or "dane-ta"; else why none.

    `names` are those that a certificate under a trust anchor may be for.
    """
    if not chain:
        return Trouble(ResultType.VALIDATION_FAILURE, "it sent no certificate")
    try:
        leaf = x509.load_der_x509_certificate(chain[0])
        if any(record.usage == DANE_EE and _matches(record, leaf) for record in records):
            return "dane-ee"
        anchors = [record for record in records if record.usage == DANE_TA]
        if not anchors:
            return Trouble(ResultType.VALIDATION_FAILURE, "its certificate matches none of its TLSA records")
        others = [x509.load_der_x509_certificate(one) for one in chain[1 : MAX_RECORDS + 1]]
        return _under_an_anchor(anchors, leaf, others, names, datetime.fromtimestamp(now, UTC))
    except Exception as error:  # the library has many words for what a remote may put into a certificate
        return Trouble(ResultType.VALIDATION_FAILURE, f"its certificate cannot be read: {error}")


def _matches(record: Tlsa, certificate: x509.Certificate) -> bool:
    if record.selector == 0:
        subject = certificate.public_bytes(Encoding.DER)
    else:
        subject = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    match record.matching:
        case 1:
            subject = hashlib.sha256(subject).digest()
        case 2:
            subject = hashlib.sha512(subject).digest()
    return subject == record.data


def _under_an_anchor(
    anchors: Sequence[Tlsa],
    leaf: x509.Certificate,
    others: list[x509.Certificate],
    names: Sequence[str],
    now: datetime,
) -> str | Trouble:
    for record in anchors:
        if record.selector == 0 and record.matching == FULL:
            # The record is the anchor itself: the server need not send it (RFC 7671 section 5.2.1).
            others.append(x509.load_der_x509_certificate(record.data))
    if not _leads_to(anchors, leaf, others, now, 0):
        if not _in_time(leaf, now):
            return Trouble(ResultType.EXPIRED, "its certificate has expired or is not valid yet")
        return Trouble(ResultType.NOT_TRUSTED, "its certificate leads to none of its TLSA records")
    usages = _extension(leaf, x509.ExtendedKeyUsage)
    if usages is not None and ExtendedKeyUsageOID.SERVER_AUTH not in usages:
        return Trouble(ResultType.NOT_TRUSTED, "its certificate is not for a server")
    if not any(_is_for(leaf, name) for name in names):
        return Trouble(ResultType.HOST_MISMATCH, f"its certificate is not for {' or '.join(names)}")
    return "dane-ta"


def _leads_to(
    anchors: Sequence[Tlsa], subject: x509.Certificate, others: Sequence[x509.Certificate], now: datetime, depth: int
) -> bool:
    """Whether a chain of issuers goes up from `subject` to a certificate that a record names, and is sound."""
    if depth >= _MAX_DEPTH or not _in_time(subject, now) or _has_unknown_demands(subject):
        return False
    for issuer in others:
        if issuer == subject or not _may_issue(issuer, depth) or not _issued(issuer, subject):
            continue
        if any(_matches(record, issuer) for record in anchors):
            if _in_time(issuer, now) and not _has_unknown_demands(issuer):
                return True
        elif _leads_to(anchors, issuer, [one for one in others if one != issuer], now, depth + 1):
            return True
    return False


def _issued(issuer: x509.Certificate, subject: x509.Certificate) -> bool:
    try:
        subject.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _may_issue(issuer: x509.Certificate, below: int) -> bool:
    """Whether it is an authority, and one that may have so many more between itself and the server's certificate."""
    constraints = _extension(issuer, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        return False
    if constraints.path_length is not None and constraints.path_length < below:
        return False
    usage = _extension(issuer, x509.KeyUsage)
    return usage is None or usage.key_cert_sign


def _has_unknown_demands(certificate: x509.Certificate) -> bool:
    """Critical extensions that we do not understand make a certificate unusable (RFC 5280 section 4.2)."""
    return any(one.critical and not isinstance(one.value, _UNDERSTOOD) for one in certificate.extensions)


def _in_time(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _extension(certificate: x509.Certificate, kind: type[T]) -> T | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _is_for(certificate: x509.Certificate, name: str) -> bool:
    alternatives = _extension(certificate, x509.SubjectAlternativeName)
    found = alternatives.get_values_for_type(x509.DNSName) if alternatives is not None else []
    if not found:
        # RFC 7672 section 3.2.3 lets the common name speak where there are no others.
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        found = [str(one.value) for one in common]
    return any(covers(pattern, name) for pattern in found)


def covers(pattern: str, name: str) -> bool:
    """Whether a certificate's name covers a host's: equal, or "*" in place of the whole first label (RFC 6125)."""
    pattern, name = pattern.rstrip(".").lower(), name.rstrip(".").lower()
    if pattern.startswith("*."):
        first, dot, rest = name.partition(".")
        return bool(first and dot) and "." in rest and rest == pattern[2:]
    return bool(pattern) and pattern == name
