"""What is said about records as they are found in the world."""

import base64

import pytest

from malote_operator.api.sendingdomain import RecordState
from malote_operator.dns import compare, expected

OURS = "spf.example.net"
KEY = base64.b64encode(bytes(range(256)) + bytes(38)).decode()
OTHER = base64.b64encode(bytes(294)).decode()
FOUND, MISSING, MISMATCH = RecordState.FOUND, RecordState.MISSING, RecordState.MISMATCH


@pytest.mark.parametrize(
    ("texts", "state", "words"),
    [
        ([], MISSING, "there is no SPF record"),
        (["google-site-verification=1"], MISSING, "there is no SPF record"),
        (["v=spf1 include:spf.example.net ~all"], FOUND, ""),
        (["x", "v=spf1 mx include:spf.example.net -all"], FOUND, ""),
        (["v=spf1 include:SPF.EXAMPLE.NET. -all"], FOUND, ""),
        (["v=spf1 +include:spf.example.net redirect=other.example"], FOUND, ""),
        (["v=spf1 include:spf.example.net"], FOUND, ""),
        (["v=spf1 mx -all"], MISMATCH, "is missing; write instead: v=spf1 mx include:spf.example.net -all"),
        (["v=spf1 -all include:spf.example.net"], MISMATCH, "stands behind “-all” and is never reached"),
        (["v=spf1 ?include:spf.example.net -all"], MISMATCH, "does not let us send"),
        (["v=spf1 mx -all", "v=spf1 include:spf.example.net -all"], MISMATCH, "there are 2 SPF records"),
        (["v=spf1mx -all"], MISMATCH, "must begin with “v=spf1 ”"),
        (['"v=spf1 include:spf.example.net -all"'], MISMATCH, "is not an SPF record"),
        (["spf1 include:spf.example.net -all"], MISMATCH, "is not an SPF record"),
        (["v=spf1 ip:192.0.2.1 include:spf.example.net -all"], MISMATCH, "write ip4: or ip6:"),
        (["v=spf1 ip4:192.0.2 include:spf.example.net -all"], MISMATCH, "is not an address or network"),
        (["v=spf1 ip4:2001:db8::1 include:spf.example.net -all"], MISMATCH, "write ip6:"),
        (["v=spf1 include: include:spf.example.net -all"], MISMATCH, "names nothing behind the colon"),
        (["v=spf1 include:spf.example.net redirect=a.example redirect=b.example"], MISMATCH, "stands twice"),
        (["v=spf1 include:spf.example.net +all"], FOUND, "lets anybody send"),
        (["v=spf1 include:spf.example.net all"], FOUND, "lets anybody send"),
        (["v=spf1 " + " ".join(f"include:{n}.example" for n in range(10)) + " include:spf.example.net -all"],
         MISMATCH, "needs 11 DNS look-ups"),
        (["v=spf1 " + " ".join(f"include:{n}.example" for n in range(7)) + " include:spf.example.net -all"],
         FOUND, "8 of the 10 DNS look-ups"),
    ],
)  # fmt: skip
def test_an_spf_record_is_found_or_what_is_wrong_with_it_is_said(
    texts: list[str], state: RecordState, words: str
) -> None:
    verdict = compare.spf(texts, OURS)
    assert verdict.state is state
    assert words in verdict.message
    assert bool(verdict.message) == bool(words)


@pytest.mark.parametrize(
    ("text", "state", "words"),
    [
        (f"v=DKIM1; k=rsa; p={KEY}", FOUND, ""),
        (f"v=DKIM1;k=rsa;p={KEY};", FOUND, ""),
        (f"p={KEY}", FOUND, ""),
        (f"v=DKIM1 ; p={KEY[:100]} {KEY[100:]} ; n=note", FOUND, ""),
        (f'"v=DKIM1; k=rsa; p={KEY}"', FOUND, ""),
        (f'v=DKIM1; k=rsa; p={KEY[:200]}" "{KEY[200:]}', FOUND, ""),
        (f"v=DKIM1; h=sha1:sha256; s=email; p={KEY}", FOUND, ""),
        (f"v=DKIM1; t=y:s; p={KEY}", FOUND, "t=y says that DKIM is only being tried"),
        (f"v=DKIM1; k=rsa; p={OTHER}", MISMATCH, "p= holds another key"),
        (f"v=DKIM1; k=rsa; p={KEY[:232]}", MISMATCH, "cut off after 232 of"),
        (f"v=DKIM1; k=rsa; p={KEY[:-4]}", MISMATCH, "cut off"),
        ("v=DKIM1; k=rsa; p=", MISMATCH, "revoked"),
        ("v=DKIM1; k=rsa", MISMATCH, "p= with the key is missing"),
        (f"v=DKIM1; k=ed25519; p={KEY}", MISMATCH, "another kind of key"),
        (f"v=DKIM2; p={KEY}", MISMATCH, "begins with v=DKIM1"),
        (f"k=rsa; v=DKIM1; p={KEY}", MISMATCH, "begins with v=DKIM1"),
        (f"v=DKIM1; p={KEY}; p={KEY}", MISMATCH, "p= stands twice"),
        (f"v=DKIM1; h=sha1; p={KEY}", MISMATCH, "excludes sha256"),
        (f"v=DKIM1; s=other; p={KEY}", MISMATCH, "excludes mail"),
        ("v=DKIM1; k=rsa; p=***", MISMATCH, "another key"),
        ("hello world", MISMATCH, "not a DKIM record"),
    ],
)
def test_a_dkim_record_is_found_or_what_is_wrong_with_it_is_said(text: str, state: RecordState, words: str) -> None:
    verdict = compare.dkim([text], KEY)
    assert verdict.state is state
    assert words in verdict.message
    assert bool(verdict.message) == bool(words)


def test_no_dkim_record_is_missing_and_two_are_a_mismatch_even_if_one_is_right() -> None:
    right = expected.dkim_value(KEY)
    assert compare.dkim([], KEY).state is MISSING
    assert compare.dkim([right, "v=DKIM1; p="], KEY).state is MISMATCH


@pytest.mark.parametrize(
    ("chain", "texts", "state", "words"),
    [
        ([], [], MISSING, "no CNAME"),
        (["m1.t.dkim.example.net"], [f"v=DKIM1; p={KEY}"], FOUND, ""),
        (["M1.T.DKIM.Example.Net"], [f"v=DKIM1; p={KEY}"], FOUND, ""),
        (["m1.t.dkim.example.net"], [], MISMATCH, "nothing to do for you"),
        (["m1.old.dkim.example.net"], [f"v=DKIM1; p={KEY}"], MISMATCH, "and not to m1.t.dkim.example.net"),
        (["m1.t.dkim.example.net.acme.example"], [], MISMATCH, "end the target with a dot"),
        ([], [f"v=DKIM1; p={KEY}"], MISMATCH, "a TXT record stands where the CNAME belongs"),
    ],
)
def test_a_dkim_record_by_cname_must_lead_to_the_platforms_name(
    chain: list[str], texts: list[str], state: RecordState, words: str
) -> None:
    verdict = compare.dkim_cname(chain, texts, "m1.t.dkim.example.net", KEY)
    assert verdict.state is state
    assert words in verdict.message


@pytest.mark.parametrize(
    ("texts", "minimum", "state", "words"),
    [
        ([], "p=none", MISSING, "there is no DMARC record"),
        (["something"], "p=none", MISSING, "there is no DMARC record"),
        (["v=DMARC1; p=none"], "p=none", FOUND, ""),
        (["v=DMARC1;p=none;"], "p=none", FOUND, ""),
        (["v=DMARC1; p=reject; rua=mailto:d@acme.example; adkim=s; aspf=s; pct=50"], "p=none", FOUND, ""),
        (["v=DMARC1; p=Quarantine; unknown=x"], "p=none", FOUND, ""),
        (["x", "v = DMARC1; p=none"], "p=none", FOUND, ""),
        (["v=DMARC1; p=none"], "p=quarantine", MISMATCH, "weaker than the p=quarantine"),
        (["v=DMARC1; p=reject"], "p=quarantine", FOUND, ""),
        (["v=DMARC1; p=none", "v=DMARC1; p=reject"], "p=none", MISMATCH, "there are 2 DMARC records"),
        (["v=DMARC1"], "p=none", MISMATCH, "p= is missing"),
        (["v=DMARC1; p=block"], "p=none", MISMATCH, "p=block is not a policy"),
        (["v=DMARC1; p=none; pct=150"], "p=none", MISMATCH, "pct=150"),
        (["v=DMARC1; p=none; adkim=strict"], "p=none", MISMATCH, "neither r nor s"),
        (["v=DMARC1; p=none; p=reject"], "p=none", MISMATCH, "stands twice"),
        (["v=DMARC1; p=none; oops"], "p=none", MISMATCH, "not of the form name=value"),
        (["v=dmarc1; p=none"], "p=none", MISMATCH, "must begin with v=DMARC1"),
        (["DMARC1; p=none"], "p=none", MISMATCH, "must begin with v=DMARC1"),
    ],
)
def test_a_dmarc_record_is_found_or_what_is_wrong_with_it_is_said(
    texts: list[str], minimum: str, state: RecordState, words: str
) -> None:
    verdict = compare.dmarc(texts, f"v=DMARC1; {minimum}")
    assert verdict.state is state
    assert words in verdict.message
    assert bool(verdict.message) == bool(words)


@pytest.mark.parametrize(
    ("records", "state", "words"),
    [
        ([], MISSING, "there is no MX record"),
        (["10 acme.smtp.example.net"], FOUND, ""),
        (["0 ACME.smtp.example.net."], FOUND, ""),
        (["20 mx.example", "10 acme.smtp.example.net"], FOUND, "mx.example gets the bounces while the relay cannot"),
        (["9 acme.smtp.example.net", "10 mx.example"], FOUND, "remove its MX record if it does not"),
        (["10 mx.example", "10 acme.smtp.example.net"], MISMATCH, "mx.example gets bounces too"),
        (["5 mx.example", "10 acme.smtp.example.net"], MISMATCH, "leave only the MX record shown"),
        (
            ["10 mx.example"],
            MISMATCH,
            "leads to mx.example and not to acme.smtp.example.net: publish the value shown",
        ),
        (["10 mx.example"], MISMATCH, "write another one in spec.returnPath"),
        (["10 acme.smtp.example.net.acme.example"], MISMATCH, "end the host with a dot"),
        (["0 ."], MISMATCH, "the null MX"),
        (["0 .", "10 acme.smtp.example.net"], MISMATCH, "the null MX"),
    ],
)
def test_the_mx_records_of_a_return_path(records: list[str], state: RecordState, words: str) -> None:
    verdict = compare.mx(records, "acme.smtp.example.net")
    assert verdict.state is state
    assert words in verdict.message
    assert bool(verdict.message) == bool(words)


def test_an_existing_dmarc_record_that_will_do_is_shown_as_it_is() -> None:
    strict = "v=DMARC1; p=reject; rua=mailto:d@acme.example"
    assert expected.dmarc_record("acme.example", "v=DMARC1; p=none", [strict]).value == strict
    assert expected.dmarc_record("acme.example", "v=DMARC1; p=none", ["v=DMARC1"]).value == "v=DMARC1; p=none"
    assert expected.dmarc_record("acme.example", "v=DMARC1; p=none", [strict, strict]).value == "v=DMARC1; p=none"


def test_a_cname_target_belongs_to_one_sending_domain_alone() -> None:
    one = expected.dkim_cname("acme.example", "m1", "uid-1", "dkim.example.net")
    two = expected.dkim_cname("acme.example", "m1", "uid-2", "dkim.example.net")
    assert one.name == two.name == "m1._domainkey.acme.example"
    assert one.value != two.value
    assert one.value.startswith("m1.")
    assert one.value.endswith(".dkim.example.net")


def test_a_long_value_is_cut_into_strings_of_255_that_join_to_it_again() -> None:
    value = expected.dkim_value(KEY * 2)
    strings = expected.zone_strings(value)
    assert "".join(strings) == value
    assert all(len(string) <= 255 for string in strings)
