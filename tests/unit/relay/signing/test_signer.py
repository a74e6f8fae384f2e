"""Signatures, as an independent verifier sees them."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import dkim
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from malote_relay.config import ConfigError, Delivery, DkimKey, Domain, Plan, RelayConfig
from malote_relay.signing.keys import SigningKey
from malote_relay.signing.signer import Signer, signature_fields

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey

RSA_KEY = rsa.generate_private_key(65537, 2048)
ED25519_KEY = ed25519.Ed25519PrivateKey.generate()
MESSAGE = (
    b"Received: from laptop (laptop [192.0.2.1]) by relay; Mon, 1 Jun 2026 10:00:00 +0000\r\n"
    b"From: Ana  <ana@acme.example>\r\n"
    b"To: bob@there.example,\r\n\tcarol@there.example\r\n"
    b"Subject: \tA   folded\r\n  subject \r\n"
    b"Date: Mon, 1 Jun 2026 10:00:00 +0000\r\n"
    b"Message-ID: <1@acme.example>\r\n"
    b"List-Unsubscribe: <https://acme.example/u>\r\n"
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    b"\r\n"
    b"Hello  there \t\r\n\r\n  indented\r\n\r\n\r\n"
)


class _VerifyKey:
    """What dkimpy asks of PyNaCl, answered by `cryptography`: the rules of RFC 8463 remain dkimpy's."""

    def __init__(self, public: bytes, encoder: object) -> None:
        self._key = ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(public))

    def verify(self, data: bytes, signature: bytes) -> bytes:
        try:
            self._key.verify(signature, data)
        except InvalidSignature as error:
            raise _BadSignatureError from error
        return data


class _BadSignatureError(Exception):
    pass


@pytest.fixture(autouse=True)
def _ed25519_for_dkimpy(monkeypatch: pytest.MonkeyPatch) -> None:
    nacl = SimpleNamespace(
        signing=SimpleNamespace(VerifyKey=_VerifyKey),
        encoding=SimpleNamespace(Base64Encoder=None),
        exceptions=SimpleNamespace(BadSignatureError=_BadSignatureError, ValueError=ValueError),
    )
    monkeypatch.setattr(dkim, "nacl", nacl, raising=False)


def record(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return b"v=DKIM1; k=ed25519; p=" + base64.b64encode(key.public_key().public_bytes_raw())
    der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(der)


RECORDS = {b"r1._domainkey.acme.example.": record(RSA_KEY), b"e1._domainkey.acme.example.": record(ED25519_KEY)}
KEYS = [SigningKey("r1", RSA_KEY), SigningKey("e1", ED25519_KEY)]


def verifies(message: bytes, *, signature: int = 0) -> bool:
    verifier = dkim.DKIM(message)
    try:
        return bool(verifier.verify(idx=signature, dnsfunc=lambda name, timeout=5: RECORDS[name]))
    except dkim.DKIMException:
        return False


def sign(message: bytes, keys: list[SigningKey] = KEYS) -> bytes:
    return signature_fields("acme.example", keys, message, int(time.time()))


def tags(field: bytes) -> dict[str, str]:
    value = re.sub(r"\s+", "", field.decode().partition(":")[2])
    return dict(tag.partition("=")[::2] for tag in value.split(";"))


def test_both_signatures_are_valid_to_an_independent_verifier() -> None:
    signed = sign(MESSAGE) + MESSAGE
    assert verifies(signed, signature=0)
    assert verifies(signed, signature=1)


def test_the_tags_say_what_was_done() -> None:
    before = int(time.time())
    first, second = [tags(b"DKIM-Signature:" + part) for part in sign(MESSAGE).split(b"DKIM-Signature:")[1:]]
    assert (first["v"], first["a"], first["c"]) == ("1", "rsa-sha256", "relaxed/relaxed")
    assert (first["d"], first["s"]) == ("acme.example", "r1")
    assert (second["a"], second["s"]) == ("ed25519-sha256", "e1")
    assert before <= int(first["t"]) <= time.time()
    assert "l" not in first
    covered = first["h"].split(":")
    assert covered.count("from") == covered.count("to") == covered.count("subject") == 2
    assert covered.count("cc") == covered.count("reply-to") == 1, "nobody may add what is not there"
    assert covered.count("list-unsubscribe") == covered.count("list-unsubscribe-post") == 1
    assert "received" not in covered


def test_the_fields_are_folded_with_crlf() -> None:
    for line in sign(MESSAGE).removesuffix(b"\r\n").split(b"\r\n"):
        assert len(line) <= 78
        assert line.startswith((b"DKIM-Signature: ", b" "))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Hello", b"Hullo"),
        (b"\r\n\r\n  indented", b"\r\n  indented"),
        (b"  indented\r\n", b"  indented\r\nappended\r\n"),
        (b"ana@acme.example>", b"eve@acme.example>"),
        (b"carol@", b"carola@"),
        (b"One-Click", b"Two-Click"),
        (b"Date:", b"Subject: another\r\nDate:"),
        (b"Date:", b"Cc: more@there.example\r\nDate:"),
        (b"Date:", b"From: eve@acme.example\r\nDate:"),
    ],
)
def test_a_changed_message_is_seen(old: bytes, new: bytes) -> None:
    signed = sign(MESSAGE) + MESSAGE
    assert old in MESSAGE
    assert not verifies(signed.replace(old, new))
    assert not verifies(signed.replace(old, new), signature=1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Hello  there \t\r\n", b"Hello there\r\n"),
        (b"indented\r\n\r\n\r\n", b"indented\r\n"),
        (b"Subject: \tA   folded\r\n  subject \r\n", b"subject:A folded subject\r\n"),
        (b"Received:", b"Received: from another\r\nReceived:"),
        (b"From:", b"List-Id: <list.example>\r\nFrom:"),
    ],
)
def test_what_hosts_on_the_way_do_is_forgiven(old: bytes, new: bytes) -> None:
    assert old in MESSAGE
    assert verifies(sign(MESSAGE) + MESSAGE.replace(old, new))


def test_several_fields_of_one_name_are_covered_from_the_lowest_up() -> None:
    message = b"References: <1@x>\r\n" + b"References: <2@x>\r\n" + MESSAGE
    assert tags(sign(message, KEYS[:1]))["h"].split(":").count("references") == 2
    assert verifies(sign(message) + message)


@pytest.mark.parametrize("message", [b"From: a@acme.example\r\n\r\n", b"From: a@acme.example\r\n\r\n\r\n\r\n"])
def test_an_empty_body_is_signed(message: bytes) -> None:
    assert verifies(sign(message) + message)


async def test_a_file_is_signed_as_the_same_bytes_are(tmp_path: Path) -> None:
    message = (
        MESSAGE.replace(b"\r\n\r\n", b"\r\nX-Long: " + b"long " * 60_000 + b"\r\n\r\n", 1) + b"line \r\n" * 200_000
    )
    path = tmp_path / "message"
    path.write_bytes(message)
    signer = Signer({"acme.example": KEYS}, clock=lambda: 1_700_000_000.0)
    assert await signer.sign("acme.example", path) == await signer.sign("acme.example", message)
    assert verifies(await signer.sign("acme.example", path) + message)


async def test_a_domain_without_a_key_cannot_be_signed_for() -> None:
    signer = Signer({"acme.example": KEYS, "new.example": []})
    for domain in ("new.example", "other.example"):
        with pytest.raises(KeyError):
            await signer.sign(domain, MESSAGE)


_names = st.sampled_from([b"Subject", b"TO", b"cc", b"X-Any", b"List-Id", b"Sender"])
_words = st.text(alphabet="aA é\t,<>@;=\"'", max_size=30).map(lambda text: text.encode())
_folds = st.lists(_words, min_size=1, max_size=4).map(lambda parts: b"\r\n ".join(b"x" + part for part in parts))
_lines = st.lists(st.sampled_from([b"", b".", b" ", b"a\tb  c ", b"From x", b"\xc3\xa9", b"-" * 900]), max_size=20)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    fields=st.lists(st.tuples(_names, _folds), max_size=6),
    lines=_lines,
)
def test_any_message_verifies(fields: list[tuple[bytes, bytes]], lines: list[bytes]) -> None:
    header = b"".join(name + b": " + value + b"\r\n" for name, value in [(b"From", b"a@acme.example"), *fields])
    message = header + b"\r\n" + b"".join(line + b"\r\n" for line in lines)
    signed = sign(message) + message
    assert verifies(signed)
    assert verifies(signed, signature=1)


def pem(key: PrivateKey, password: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def config(keys: list[DkimKey], *, sending: bool = True) -> RelayConfig:
    return RelayConfig(
        tenant="acme",
        hostname="acme.smtp.example",
        plan=Plan(name="p", messages_per_hour=10),
        delivery=Delivery(helo_name="out.example"),
        domains=(Domain(name="acme.example", sending=sending, keys=tuple(keys)),),
    )


async def test_keys_are_loaded_as_the_configuration_names_them(tmp_path: Path) -> None:
    (tmp_path / "r1.acme.example.pem").write_bytes(pem(RSA_KEY))
    (tmp_path / "e1.acme.example.pem").write_bytes(pem(ED25519_KEY))
    named = [DkimKey(selector=name, file=f"{name}.acme.example.pem") for name in ("r1", "e1")]
    signed = await Signer.load(config(named), tmp_path).sign("acme.example", MESSAGE) + MESSAGE
    assert verifies(signed, signature=0)
    assert verifies(signed, signature=1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        (lambda: b"not a key", "no private key in PEM form"),
        (lambda: pem(RSA_KEY, b"secret"), "encrypted"),
        (
            lambda: pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)),
            "of selector m1 has 1024 bits, too few for RSA: make one of 2048",
        ),
        (lambda: pem(ec.generate_private_key(ec.SECP256R1())), "RSA and Ed25519"),
        (lambda: RSA_KEY.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo), "no private key"),
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_used_is_said_with_its_file(
    tmp_path: Path, content: Callable[[], bytes] | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "k.pem").write_bytes(content())
    with pytest.raises(ConfigError, match=said) as caught:
        Signer.load(config([DkimKey(selector="m1", file="k.pem")]), tmp_path)
    assert str(tmp_path / "k.pem") in str(caught.value)


def test_a_domain_that_may_send_needs_a_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"acme\.example may send but has no DKIM key"):
        Signer.load(config([]), tmp_path)
    Signer.load(config([], sending=False), tmp_path)
