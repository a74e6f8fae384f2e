"""Certificates of the made-up Internet's hosts: good ones, and each way in which a certificate can be bad.

One authority issues them all; who wants to believe them takes its certificate as a CA file. Keys are ECDSA
P-256, made anew for each run.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import ssl
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from malote_dev.pki import key_usage, private_pem

_DAY = datetime.timedelta(days=1)


class CertificateAuthority:
    """An authority of the made-up Internet; `pem` is its certificate."""

    def __init__(self, name: str = "Made-up Internet CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _common_name(name)
        now = _now()
        self._certificate = (
            _builder(self._name, self._name, self._key.public_key(), now - _DAY, now + 365 * _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(key_usage(authority=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, names: Sequence[str], *, expired: bool = False, self_signed: bool = False) -> tuple[bytes, bytes]:
        """A certificate for these host names or addresses and its key, both PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _common_name(names[0])
        until = _now() - _DAY if expired else _now() + 90 * _DAY
        issuer, issuer_key = (subject, key) if self_signed else (self._name, self._key)
        certificate = (
            _builder(subject, issuer, key.public_key(), until - 90 * _DAY, until)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
            )
            .add_extension(key_usage(authority=False), critical=True)
            .sign(issuer_key, hashes.SHA256())
        )
        return (
            certificate.public_bytes(serialization.Encoding.PEM),
            private_pem(key),
        )

    def server_context(
        self, names: Sequence[str], *, expired: bool = False, self_signed: bool = False
    ) -> ssl.SSLContext:
        """A server's TLS context with such a certificate."""
        return context_of(*self.issue(names, expired=expired, self_signed=self_signed))


def context_of(chain: bytes, key: bytes) -> ssl.SSLContext:
    """A server's TLS context that sends this chain (PEM, its own certificate first)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:  # the ssl module reads certificates from files only
        path = Path(folder, "host.pem")
        path.touch(mode=0o600)
        path.write_bytes(chain + key)
        context.load_cert_chain(path)
    return context


def tlsa(certificate: bytes, usage: int = 3, selector: int = 1, matching: int = 1) -> str:
    """The TLSA record (RFC 6698) that names this certificate (PEM)."""
    parsed = x509.load_pem_x509_certificate(certificate)
    subject = parsed.public_bytes(serialization.Encoding.DER)
    if selector:
        subject = parsed.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    if matching:
        subject = hashlib.new({1: "sha256", 2: "sha512"}[matching], subject).digest()
    return f"{usage} {selector} {matching} {subject.hex()}"


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    not_before: datetime.datetime,
    not_after: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
