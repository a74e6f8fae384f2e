"""Certificates against TLSA records, with certificates made for each case."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import example, given, settings
from hypothesis import strategies as st

from malote_dev.mailworld.certificates import tlsa as record_text
from malote_relay.delivery.tls.certificates import covers, verify
from malote_relay.delivery.tls.results import ResultType, Trouble
from malote_relay.delivery.tls.security import Tlsa
from malote_relay.delivery.tls.tlsa import usable

NAMES = ("mx.d.example", "d.example")
NOW = time.time()
DAY = datetime.timedelta(days=1)


class Issuer:
    """An authority of the tests' own, with every part of its certificate to choose."""

    def __init__(
        self,
        name: str,
        above: Issuer | None = None,
        *,
        ca: bool = True,
        path_length: int | None = None,
        days: int = 30,
        names: Sequence[str] = (),
        extensions: Sequence[tuple[Any, bool]] = (),
        signing: bool = True,
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer, key = (above.name, above.key) if above else (self.name, self.key)
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(issuer)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 60 * DAY)
            .not_valid_after(now + days * DAY)
            .add_extension(x509.BasicConstraints(ca, path_length if ca else None), critical=True)
        )
        if ca:
            usage = dict.fromkeys(
                ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
                 "decipher_only", "digital_signature", "crl_sign"), False,
            )  # fmt: skip
            builder = builder.add_extension(x509.KeyUsage(key_cert_sign=signing, **usage), critical=True)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False
            )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        self.certificate = builder.sign(key, hashes.SHA256())

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def record(self, usage: int, selector: int = 1, matching: int = 1) -> Tlsa:
        text = record_text(self.certificate.public_bytes(Encoding.PEM), usage, selector, matching)
        return Tlsa(usage, selector, matching, bytes.fromhex(text.split()[3]))


def leaf(above: Issuer | None = None, **fields: Any) -> Issuer:
    return Issuer("mx.d.example", above, ca=False, **({"names": ["mx.d.example"]} | fields))


def result(outcome: str | Trouble) -> Any:
    return outcome.result if isinstance(outcome, Trouble) else outcome


ROOT = Issuer("root")
MIDDLE = Issuer("middle", ROOT)
HOST = leaf(MIDDLE)


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
@pytest.mark.parametrize(
    ("who", "usage", "said"), [(HOST, 3, "dane-ee"), (MIDDLE, 2, "dane-ta"), (ROOT, 2, "dane-ta")]
)
def test_every_way_of_naming_a_certificate_is_known(
    who: Issuer, usage: int, said: str, selector: int, matching: int
) -> None:
    chain = [HOST.der, MIDDLE.der, ROOT.der]
    assert verify([who.record(usage, selector, matching)], chain, NAMES, NOW) == said
    other = leaf(Issuer("other"))
    assert result(verify([who.record(usage, selector, matching)], [other.der], NAMES, NOW)) in ResultType


def test_of_the_servers_own_certificate_neither_name_nor_age_is_looked_at() -> None:
    old = leaf(days=-1, names=["elsewhere.example"])
    assert verify([old.record(3)], [old.der], NAMES, NOW) == "dane-ee"


def test_under_a_trust_anchor_name_and_age_count() -> None:
    anchors = [ROOT.record(2)]
    assert (
        result(verify(anchors, [leaf(ROOT, names=["x.example"]).der, ROOT.der], NAMES, NOW))
        == ResultType.HOST_MISMATCH
    )
    assert result(verify(anchors, [leaf(ROOT, days=-1).der, ROOT.der], NAMES, NOW)) == ResultType.EXPIRED
    assert verify(anchors, [leaf(ROOT, names=["*.d.example"]).der, ROOT.der], NAMES, NOW) == "dane-ta"
    assert verify(anchors, [leaf(ROOT, names=["d.example"]).der, ROOT.der], NAMES, NOW) == "dane-ta"


def test_the_common_name_speaks_only_where_there_are_no_others() -> None:
    anchors = [ROOT.record(2)]
    assert verify(anchors, [leaf(ROOT, names=[]).der, ROOT.der], NAMES, NOW) == "dane-ta"


def test_an_anchor_given_in_full_need_not_be_sent() -> None:
    assert verify([MIDDLE.record(2, 0, 0)], [HOST.der], NAMES, NOW) == "dane-ta"
    assert result(verify([MIDDLE.record(2, 0, 1)], [HOST.der], NAMES, NOW)) == ResultType.NOT_TRUSTED


def test_the_chain_may_come_in_any_order() -> None:
    assert verify([ROOT.record(2)], [HOST.der, ROOT.der, MIDDLE.der], NAMES, NOW) == "dane-ta"


@pytest.mark.parametrize(
    "middle",
    [
        Issuer("middle", ROOT, ca=False),
        Issuer("middle", ROOT, days=-1),
        Issuer("middle", ROOT, signing=False),
        Issuer("middle", Issuer("root")),
        Issuer("middle", ROOT, extensions=[(x509.NameConstraints([x509.DNSName("other.example")], None), True)]),
        Issuer("middle", Issuer("short", ROOT, path_length=0)),
    ],
    ids=["no authority", "expired", "may not sign", "of another root", "unknown demand", "too long"],
)
def test_a_way_to_the_anchor_that_is_not_sound_is_none(middle: Issuer) -> None:
    chain = [leaf(middle).der, middle.der, ROOT.der]
    assert result(verify([ROOT.record(2)], chain, NAMES, NOW)) == ResultType.NOT_TRUSTED


def test_a_path_length_is_counted_between_the_authority_and_the_server() -> None:
    short = Issuer("short", ROOT, path_length=0)
    assert verify([ROOT.record(2)], [leaf(short).der, short.der, ROOT.der], NAMES, NOW) == "dane-ta"
    middle = Issuer("middle", short)
    chain = [leaf(middle).der, middle.der, short.der, ROOT.der]
    assert result(verify([ROOT.record(2)], chain, NAMES, NOW)) == ResultType.NOT_TRUSTED


def test_a_certificate_for_something_else_is_not_a_servers() -> None:
    other = leaf(ROOT, extensions=[(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)])
    assert result(verify([ROOT.record(2)], [other.der, ROOT.der], NAMES, NOW)) == ResultType.NOT_TRUSTED


def test_a_servers_certificate_is_no_anchor_of_its_own() -> None:
    own = leaf()
    assert isinstance(verify([own.record(2)], [own.der], NAMES, NOW), Trouble)


@pytest.mark.parametrize("chain", [[], [b"nonsense"], [HOST.der[:-1]], [HOST.der, b"nonsense"]])
def test_what_cannot_be_read_is_a_trouble(chain: list[bytes]) -> None:
    assert isinstance(verify([ROOT.record(2), MIDDLE.record(3)], chain, NAMES, NOW), Trouble)
    assert isinstance(verify([Tlsa(2, 0, 0, b"nonsense")], [HOST.der], NAMES, NOW), Trouble)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@settings(max_examples=50, deadline=None)
@given(st.integers(0, len(HOST.certificate.tbs_certificate_bytes) - 1), st.integers(1, 255))
@example(7, 1)  # its version
def test_a_certificate_with_any_octet_changed_of_what_is_signed_is_another(place: int, change: int) -> None:
    der = bytearray(HOST.der)
    der[HOST.der.index(HOST.certificate.tbs_certificate_bytes) + place] ^= change
    assert isinstance(
        verify([HOST.record(3, 0, 1), ROOT.record(2)], [bytes(der), MIDDLE.der, ROOT.der], NAMES, NOW), Trouble
    )


@pytest.mark.parametrize(
    "record",
    [
        Tlsa(0, 1, 1, bytes(32)),
        Tlsa(1, 1, 1, bytes(32)),
        Tlsa(255, 1, 1, bytes(32)),
        Tlsa(3, 2, 1, bytes(32)),
        Tlsa(3, 1, 3, bytes(32)),
        Tlsa(3, 1, 1, bytes(31)),
        Tlsa(3, 1, 2, bytes(32)),
        Tlsa(3, 0, 0, b""),
    ],
)
def test_what_makes_no_sense_for_mail_cannot_be_used(record: Tlsa) -> None:
    good = HOST.record(3)
    assert usable([record]) == ()
    assert usable([record, good]) == (good,)


def test_of_two_digests_the_stronger_counts() -> None:
    weak, strong, full = HOST.record(3, 1, 1), HOST.record(3, 1, 2), HOST.record(3, 1, 0)
    assert usable([weak, strong, full, ROOT.record(2)]) == (ROOT.record(2), full, strong)


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("mx.d.example", "MX.d.example.", True),
        ("*.d.example", "mx.d.example", True),
        ("*.d.example", "a.mx.d.example", False),
        ("*.d.example", "d.example", False),
        ("m*.d.example", "mx.d.example", False),
        ("*.example", "d.example", False),
        ("*", "example", False),
        ("", "", False),
    ],
)
def test_a_wildcard_covers_one_label(pattern: str, name: str, covered: bool) -> None:
    assert covers(pattern, name) is covered
