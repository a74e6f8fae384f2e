"""The control plane's certificates and keys: made anew for each run, gone with it."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = datetime.timedelta(days=365)


@dataclass(frozen=True)
class Authority:
    """A certificate authority that signs what one run needs."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, name: str) -> Authority:
        """A new one; its key exists only in memory."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        certificate = (
            _builder(subject, subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage(authority=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @property
    def pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, path: Path, name: str, usage: x509.ObjectIdentifier, hosts: tuple[str, ...] = ()) -> None:
        """Write PATH.crt and PATH.key: a certificate for *usage* (server or client), for *hosts*."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(_name(name), self.certificate.subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False
            )
        certificate = builder.sign(self.key, hashes.SHA256())
        _write(path.with_suffix(".crt"), certificate.public_bytes(serialization.Encoding.PEM))
        _write(path.with_suffix(".key"), private_pem(key))


def write_control_plane_pki(folder: Path) -> bytes:
    """Write ca.crt, apiserver.{crt,key}, kubelet-client.{crt,key}, service-account.{key,pub}; give the CA's PEM."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = Authority.create("malote local control plane")
    names = ("127.0.0.1", "localhost", "kubernetes.default.svc")
    authority.issue(folder / "apiserver", "kube-apiserver", ExtendedKeyUsageOID.SERVER_AUTH, names)
    authority.issue(folder / "kubelet-client", "kube-apiserver-kubelet-client", ExtendedKeyUsageOID.CLIENT_AUTH)
    accounts = ec.generate_private_key(ec.SECP256R1())
    _write(folder / "ca.crt", authority.pem)
    _write(folder / "service-account.key", private_pem(accounts))
    _write(
        folder / "service-account.pub",
        accounts.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )
    return authority.pem


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def key_usage(*, authority: bool) -> x509.KeyUsage:
    """What a certificate's key is for: signing certificates, or only handshakes (RFC 5280 section 4.2.1.3)."""
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as PKCS #8 in PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    path.touch(0o600)
    path.write_bytes(content)
