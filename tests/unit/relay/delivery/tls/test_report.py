"""A day's report as RFC 8460 wants it: who asks, what it says, how it travels."""

from __future__ import annotations

import email
import email.policy
import gzip
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from malote_relay.delivery.tls import report
from malote_relay.delivery.tls.mtasts import Mode, StsPolicy
from malote_relay.delivery.tls.results import Applied
from malote_relay.delivery.tls.security import Level, Security, Tlsa
from malote_relay.delivery.tls.tally import Row

DAY = 20_000
STS = msgspec.json.encode(
    Applied.sts("d.example", StsPolicy(Mode.ENFORCE, 86_400, ("mx.d.example", "*.d.example")))
).decode()
NONE = msgspec.json.encode(Applied.none("d.example")).decode()
ROWS = [
    (Row(DAY, "d.example", STS), 5326),
    (Row(DAY, "d.example", STS, "certificate-expired", "mx.d.example", "192.0.2.1", "192.0.2.9", "expired"), 100),
    (Row(DAY, "d.example", STS, "starttls-not-supported"), 3),
    (Row(DAY, "d.example", NONE), 7),
]


@pytest.mark.parametrize(
    ("texts", "uris"),
    [
        ([b"v=TLSRPTv1; rua=mailto:reports@d.example"], ("mailto:reports@d.example",)),
        ([b"v=TLSRPTv1;rua=https://d.example/v1/tlsrpt"], ("https://d.example/v1/tlsrpt",)),
        (
            [b"v=TLSRPTv1; rua=mailto:a@d.example, https://d.example/x ; ext=1;"],
            ("mailto:a@d.example", "https://d.example/x"),
        ),
        ([b"v=TLSRPTv1; rua=mailto:a@d.example,mailto:a@d.example"], ("mailto:a@d.example",)),
        ([b"v=TLSRPTv1; rua=" + b",".join(b"mailto:%d@d.example" % n for n in range(9))],
         tuple(f"mailto:{n}@d.example" for n in range(report.MAX_DESTINATIONS))),
        ([b"v=TLSRPTv1; rua=mailto:a@d.example", b"v=TLSRPTv1; rua=mailto:b@d.example"], ()),
        ([b"v=TLSRPTv2; rua=mailto:a@d.example"], ()),
        ([b"v=TLSRPTv1; rua=http://d.example/"], ()),
        ([b"v=TLSRPTv1; rua=https://user:secret@d.example/"], ()),
        ([b"v=TLSRPTv1; rua=https://d.example:x/"], ()),
        ([b"v=TLSRPTv1; rua=mailto:a%0d%0aBcc:b@d.example"], ()),
        ([b"v=TLSRPTv1; rua=mailto:nobody"], ()),
        ([b"v=TLSRPTv1"], ()),
        ([b"v=spf1 -all"], ()),
        ([], ()),
    ],
)  # fmt: skip
def test_reports_go_to_the_addresses_that_the_record_names(texts: Sequence[bytes], uris: tuple[str, ...]) -> None:
    assert report.destinations(texts) == uris


def test_a_report_goes_to_the_port_of_its_uri() -> None:
    uris = ("https://d.example/", "https://d.example:443/", "https://d.example:8443/", "mailto:a@d.example")
    assert [report.port(uri) for uri in uris] == [443, 443, 8443, None]


def test_escapes_in_an_address_are_undone() -> None:
    assert report.mailbox("mailto:a%21b@d.example?subject=x") == "a!b@d.example"


@given(st.binary(max_size=200))
def test_any_record_is_one_or_none(text: bytes) -> None:
    for uri in report.destinations([b"v=TLSRPTv1;rua=" + text]):
        assert uri.isprintable()
        assert "\n" not in report.mailbox(uri)


def told() -> Any:
    return json.loads(
        report.text(
            "d.example", DAY, ROWS, organization="Acme", contact="tls@acme.example", report_id="id@acme.example"
        )
    )


def test_the_report_counts_by_policy_and_by_what_went_wrong() -> None:
    document = told()
    assert document["organization-name"] == "Acme"
    assert document["date-range"] == {
        "start-datetime": "2024-10-04T00:00:00Z",
        "end-datetime": "2024-10-04T23:59:59Z",
    }
    assert (document["contact-info"], document["report-id"]) == ("tls@acme.example", "id@acme.example")
    sts, nothing = document["policies"]
    assert sts["policy"] == {
        "policy-type": "sts",
        "policy-string": [
            "version: STSv1", "mode: enforce", "mx: mx.d.example", "mx: *.d.example", "max_age: 86400",
        ],
        "policy-domain": "d.example",
        "mx-host": ["mx.d.example", "*.d.example"],
    }  # fmt: skip
    assert sts["summary"] == {"total-successful-session-count": 5326, "total-failure-session-count": 103}
    assert sts["failure-details"] == [
        {
            "result-type": "certificate-expired",
            "sending-mta-ip": "192.0.2.9",
            "receiving-mx-hostname": "mx.d.example",
            "receiving-ip": "192.0.2.1",
            "failure-reason-code": "expired",
            "failed-session-count": 100,
        },
        {"result-type": "starttls-not-supported", "failed-session-count": 3},
    ]
    assert nothing["policy"] == {"policy-type": "no-policy-found", "policy-domain": "d.example"}
    assert nothing["summary"] == {"total-successful-session-count": 7, "total-failure-session-count": 0}
    assert "failure-details" not in nothing


def test_dane_is_told_with_its_records_under_the_name_they_stand_at() -> None:
    found = Security(Level.DANE, tlsa=(Tlsa(3, 1, 1, b"\xab" * 32),), names=("real.e.example", "d.example"))
    applied = Applied.tlsa("mx.d.example", found)
    assert (applied.kind, applied.domain, applied.mx) == ("tlsa", "real.e.example", ("mx.d.example",))
    assert applied.text == ("3 1 1 " + "ab" * 32,)


def test_the_mail_is_what_the_rfc_says_and_carries_the_report() -> None:
    packed = report.packed(b'{"x": 1}')
    raw = report.mail(
        packed,
        domain="d.example",
        day=DAY,
        submitter="out.relay.example",
        recipient="reports@d.example",
        report_id="id@out.relay.example",
        now=DAY * 86_400 + 90_000,
    )
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert raw.isascii()
    document = email.message_from_bytes(raw, policy=email.policy.SMTP)
    assert document.get_content_type() == "multipart/report"
    assert document.get_param("report-type") == "tlsrpt"
    assert document["TLS-Report-Domain"] == "d.example"
    assert document["TLS-Report-Submitter"] == "out.relay.example"
    assert (
        document["Subject"]
        == "Report Domain: d.example Submitter: out.relay.example Report-ID: <id@out.relay.example>"
    )
    assert document["From"] == "noreply-smtp-tls-reporting@out.relay.example"
    words, attached = document.iter_parts()
    assert "d.example" in words.get_content()
    assert attached.get_content_type() == "application/tlsrpt+gzip"
    assert attached.get_filename() == "out.relay.example!d.example!1728000000!1728086399.json.gz"
    assert gzip.decompress(attached.get_content()) == b'{"x": 1}'
