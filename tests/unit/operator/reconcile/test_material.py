"""Keys and certificates: strong, consistent, renewed in time."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import ssl

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from malote_operator.reconcile import material
from malote_operator.reconcile.material import Certificate

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
NAMES = ("acme.smtp.example.net", "acme-relay.relays.svc")


@pytest.fixture(scope="module")
def authority() -> Certificate:
    return material.new_authority("Malote", NOW)


def test_a_selector_derives_from_the_public_key() -> None:
    pair = material.new_dkim_pair()
    der = base64.b64decode(pair.public_key)
    assert pair.selector == "m" + hashlib.sha256(der).hexdigest()[:12]
    assert material.dkim_pair(pair.private_pem) == pair
    assert len(der) == 294, "RSA-2048"


def test_an_ec_key_is_no_dkim_key(authority: Certificate) -> None:
    with pytest.raises(ValueError, match="RSA"):
        material.dkim_pair(authority.key)


def test_an_rsa_key_that_a_relay_would_refuse_is_no_dkim_key() -> None:
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(ValueError, match="1024 bits"):
        material.dkim_pair(short)


def test_passwords_have_256_bits_and_differ() -> None:
    made = {material.new_password() for _ in range(50)}
    assert len(made) == 50
    assert all(len(base64.urlsafe_b64decode(one + "=")) == 32 for one in made)


def test_a_certificate_serves_its_names_until_two_thirds_of_its_life(authority: Certificate) -> None:
    issued = material.issue(authority, NAMES, NOW)
    renew = material.renewal_time(issued.certificate)
    assert dt.timedelta(days=59) < renew - NOW < dt.timedelta(days=61)
    ca = authority.certificate
    assert material.serves(issued, ca, NAMES, NOW)
    assert material.serves(issued, ca, NAMES, renew - dt.timedelta(seconds=1))
    assert not material.serves(issued, ca, NAMES, renew)
    assert not material.serves(issued, ca, NAMES[:1], NOW), "other names"
    assert not material.serves(issued, material.new_authority("Other", NOW).certificate, NAMES, NOW)
    other = material.issue(authority, NAMES, NOW)
    assert not material.serves(Certificate(issued.certificate, other.key), ca, NAMES, NOW), "another key"
    assert not material.serves(Certificate(b"", b""), ca, NAMES, NOW)


def test_a_client_that_trusts_the_authority_accepts_the_certificate(authority: Certificate, tmp_path: object) -> None:
    issued = material.issue(authority, NAMES, dt.datetime.now(dt.UTC))
    server_side, client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    client_side.load_verify_locations(cadata=authority.certificate.decode())
    path = f"{tmp_path}/pair.pem"
    with open(path, "wb") as file:
        file.write(issued.certificate + issued.key)
    server_side.load_cert_chain(path)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(to_client, to_server, server_hostname=NAMES[0])
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    done: set[str] = set()
    for _ in range(10):
        for name, side in (("client", client), ("server", server)):
            try:
                side.do_handshake()
                done.add(name)
            except ssl.SSLWantReadError:
                pass
    assert done == {"client", "server"}


def test_an_authority_can_have_the_longest_of_namespaces_names() -> None:
    made = material.new_authority(f"Malote relays in {'n' * 63}", NOW)
    assert material.fits(made)
