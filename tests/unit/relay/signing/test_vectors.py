"""The example of RFC 8463 appendix A: what it signs and hashes, this code signs and hashes alike, to the byte."""

from __future__ import annotations

import base64
import re

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from malote_relay.signing import canonical
from malote_relay.signing.keys import SigningKey

ED25519_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(
    base64.b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
)
RSA_KEY = serialization.load_pem_private_key(
    b"""-----BEGIN RSA PRIVATE KEY-----
MIICXQIBAAKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQi
Y/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqM
KrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB
AoGAH0cxOhFZDgzXWhDhnAJDw5s4roOXN4OhjiXa8W7Y3rhX3FJqmJSPuC8N9vQm
6SVbaLAE4SG5mLMueHlh4KXffEpuLEiNp9Ss3O4YfLiQpbRqE7Tm5SxKjvvQoZZe
zHorimOaChRL2it47iuWxzxSiRMv4c+j70GiWdxXnxe4UoECQQDzJB/0U58W7RZy
6enGVj2kWF732CoWFZWzi1FicudrBFoy63QwcowpoCazKtvZGMNlPWnC7x/6o8Gc
uSe0ga2xAkEA8C7PipPm1/1fTRQvj1o/dDmZp243044ZNyxjg+/OPN0oWCbXIGxy
WvmZbXriOWoSALJTjExEgraHEgnXssuk7QJBALl5ICsYMu6hMxO73gnfNayNgPxd
WFV6Z7ULnKyV7HSVYF0hgYOHjeYe9gaMtiJYoo0zGN+L3AAtNP9huqkWlzECQE1a
licIeVlo1e+qJ6Mgqr0Q7Aa7falZ448ccbSFYEPD6oFxiOl9Y9se9iYHZKKfIcst
o7DUw1/hz2Ck4N5JrgUCQQCyKveNvjzkkd8HjYs0SwM0fPjK16//5qDZ2UiDGnOe
uEzxBDAr518Z8VFbR41in3W4Y3yCDgQlLlcETrS+zYcL
-----END RSA PRIVATE KEY-----
""",
    password=None,
)
assert isinstance(RSA_KEY, rsa.RSAPrivateKey)
KEYS = [SigningKey("brisbane", ED25519_KEY), SigningKey("test", RSA_KEY)]

SIGNED = b"""DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.

""".replace(b"\n", b"\r\n")

HEADER, _, BODY = SIGNED.partition(b"\r\n\r\n")
FIELDS = canonical.split_fields(HEADER)
SIGNATURES = [value for name, value in FIELDS if name == b"DKIM-Signature"]


def tag(signature: bytes, name: bytes) -> bytes:
    found = re.search(rb"(?:^|;)\s*" + name + rb"=([^;]*)", signature)
    assert found is not None
    return re.sub(rb"\s+", b"", found[1])


def signed_text(signature: bytes) -> bytes:
    """What the signature signs (RFC 6376 section 3.7), by the canonical forms of this code."""
    left = [field for field in FIELDS if field[0] != b"DKIM-Signature"]
    text = b""
    for name in tag(signature, b"h").split(b":"):
        found = next((field for field in reversed(left) if field[0].lower() == name), None)
        if found:
            left.remove(found)
            text += canonical.header_field(*found)
    without = re.sub(rb"(\bb=)[^;]*$", rb"\1", signature)
    return text + b"dkim-signature:" + canonical.field_value(without)


def test_the_body_hash_of_the_example() -> None:
    for signature in SIGNATURES:
        assert base64.b64encode(canonical.body_hash(BODY)) == tag(signature, b"bh")


@pytest.mark.parametrize("number", [0, 1], ids=["ed25519", "rsa"])
def test_the_signature_of_the_example_is_reproduced(number: int) -> None:
    """Both algorithms are deterministic: the same key and text give the same octets."""
    signature, key = SIGNATURES[number], KEYS[number]
    assert key.algorithm == tag(signature, b"a")
    assert base64.b64encode(key.sign(signed_text(signature))) == tag(signature, b"b")


def test_a_letter_more_would_be_another_signature() -> None:
    assert base64.b64encode(KEYS[0].sign(signed_text(SIGNATURES[0]) + b"x")) != tag(SIGNATURES[0], b"b")
