"""Secret material: RSA keys for DKIM, a certificate authority and certificates. Made once, never twice.

RSA-2048 for DKIM (RFC 8301 section 3.2; longer keys do not fit into one DNS string and some verifiers refuse
them). Certificates use P-256, which every client with TLS 1.2 knows and which costs a relay little.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

RSA_BITS = 2048
PASSWORD_BYTES = 32
CERTIFICATE_LIFE = dt.timedelta(days=90)
AUTHORITY_LIFE = dt.timedelta(days=3650)
RENEW_AFTER = 2 / 3
"""The share of a certificate's life after which it is renewed."""

_CLOCK_SKEW = dt.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class DkimPair:
    """A DKIM key: `private_pem` is PKCS #8, `public_key` the base64 of the SubjectPublicKeyInfo's DER."""

    selector: str
    private_pem: bytes
    public_key: str


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


def new_password() -> str:
    """A password of 256 random bits."""
    return secrets.token_urlsafe(PASSWORD_BYTES)


def new_dkim_pair() -> DkimPair:
    """Make a key; takes some 40 ms of CPU (up to ten times that), so call it in a thread."""
    return dkim_pair(
        rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def dkim_pair(private_pem: bytes) -> DkimPair:
    """The pair of a private key. Raises ValueError if that is no RSA key, or one that relays refuse as too short."""
    key = serialization.load_pem_private_key(private_pem, password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("not an RSA key")
    if key.key_size < RSA_BITS:
        raise ValueError(f"an RSA key of {key.key_size} bits, which is too short")
    der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    # The selector follows from the key: another key can never be published under an old selector.
    return DkimPair("m" + hashlib.sha256(der).hexdigest()[:12], private_pem, base64.b64encode(der).decode())


def new_authority(name: str, now: dt.datetime) -> Certificate:
    """A certificate authority of its own for this installation."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _called(name)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Certificate(certificate.public_bytes(serialization.Encoding.PEM), _private(key))


def issue(authority: Certificate, names: Sequence[str], now: dt.datetime) -> Certificate:
    """A server certificate for `names`, the first of them most prominent (RFC 6125: only the SANs count)."""
    issuer_key = serialization.load_pem_private_key(authority.key, password=None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise ValueError("the authority's key is not an EC key")
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _called(names[0])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(min(now + CERTIFICATE_LIFE, issuer.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return Certificate(certificate.public_bytes(serialization.Encoding.PEM), _private(key))


def renewal_time(certificate: bytes) -> dt.datetime:
    """When a certificate has lived two thirds of its life. Raises ValueError if it is none."""
    parsed = x509.load_pem_x509_certificate(certificate)
    life = parsed.not_valid_after_utc - parsed.not_valid_before_utc
    return parsed.not_valid_before_utc + life * RENEW_AFTER


def serves(certificate: Certificate, trusted: bytes, names: Sequence[str], now: dt.datetime) -> bool:
    """Whether one of the trusted authorities issued it, for exactly `names`, and it is not due for renewal."""
    try:
        parsed = x509.load_pem_x509_certificate(certificate.certificate)
        present = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if not fits(certificate) or not any(
            _issued_by(parsed, authority) for authority in x509.load_pem_x509_certificates(trusted)
        ):
            return False
        return present.get_values_for_type(x509.DNSName) == list(names) and now < renewal_time(
            certificate.certificate
        )
    except Exception:  # cryptography names many errors; whichever it is, this certificate will not do
        return False


def fits(certificate: Certificate) -> bool:
    """Whether the private key is the certificate's."""
    try:
        key = serialization.load_pem_private_key(certificate.key, password=None)
        parsed = x509.load_pem_x509_certificate(certificate.certificate)
        return _public(key.public_key()) == _public(parsed.public_key())
    except Exception:  # as above: whichever it is, they are no pair
        return False


def valid(certificates: bytes, now: dt.datetime) -> tuple[bytes, ...]:
    """Those of concatenated PEM certificates that have not ended, each once, in their order; () for other text."""
    try:
        parsed = x509.load_pem_x509_certificates(certificates)
    except ValueError:
        return ()
    texts = (one.public_bytes(serialization.Encoding.PEM) for one in parsed if now < one.not_valid_after_utc)
    return tuple(dict.fromkeys(texts))


def _called(name: str) -> x509.Name:
    """The common name is cut to X.520's 64 characters; no client looks at it."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # as above
        return False
    return True


def _public(key: object) -> bytes:
    return key.public_bytes(  # type: ignore[attr-defined,no-any-return]  # every public key type has it
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )
