"""Merging our include into whatever SPF record a domain has (RFC 7208)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malote_operator.dns import compare, spf

OURS = "spf.example.net"


@pytest.mark.parametrize(
    ("existing", "merged"),
    [
        ([], "v=spf1 include:spf.example.net ~all"),
        (["google-site-verification=x"], "v=spf1 include:spf.example.net ~all"),
        (["v=spf1 -all"], "v=spf1 include:spf.example.net -all"),
        (
            ["v=spf1 mx include:_spf.other.example ~all"],
            "v=spf1 mx include:_spf.other.example include:spf.example.net ~all",
        ),
        (["v=spf1 mx redirect=_spf.other.example"], "v=spf1 mx include:spf.example.net redirect=_spf.other.example"),
        (["v=spf1 redirect=_spf.other.example"], "v=spf1 include:spf.example.net redirect=_spf.other.example"),
        (["v=spf1 exp=why.example mx ?all"], "v=spf1 exp=why.example mx include:spf.example.net ?all"),
        (["v=spf1 mx"], "v=spf1 mx include:spf.example.net"),
        (["v=spf1"], "v=spf1 include:spf.example.net"),
        (["V=SPF1 Include:SPF.Example.Net. -all"], "v=spf1 Include:SPF.Example.Net. -all"),
        (["v=spf1 -all include:spf.example.net"], "v=spf1 include:spf.example.net -all"),
        (["v=spf1 ~include:spf.example.net -all"], "v=spf1 include:spf.example.net -all"),
        (["v=spf1 a -all", "v=spf1 a mx ~all"], "v=spf1 a mx include:spf.example.net -all"),
        (["v=spf1 a -all", "v=spf1 include:spf.example.net ~all"], "v=spf1 a include:spf.example.net -all"),
    ],
)
def test_our_include_joins_the_record_that_stands_there(existing: list[str], merged: str) -> None:
    assert spf.merged(existing, OURS) == merged


terms = st.lists(
    st.sampled_from(
        ["a", "mx", "-ip4:192.0.2.0/24", "ip6:2001:db8::/32", "include:other.example", "include:spf.example.net",
         "?include:spf.example.net", "all", "-all", "~all", "redirect=other.example", "exp=why.example",
         "exists:%{i}.x.example"]
    ),
    max_size=8,
)  # fmt: skip


@given(terms)
def test_what_is_shown_is_accepted_when_pasted_unless_the_record_was_broken_before(parts: list[str]) -> None:
    existing = " ".join(["v=spf1", *parts])
    shown = spf.merged([existing], OURS)
    broken = parts.count("redirect=other.example") > 1 or parts.count("exp=why.example") > 1
    assert compare.spf([shown], OURS).found != broken
    assert spf.merged([shown], OURS) == shown


@given(terms)
def test_merging_keeps_every_other_term_in_its_order(parts: list[str]) -> None:
    def others(record: str) -> list[str]:
        return [text for text in record.split() if not text.endswith("include:spf.example.net")]

    existing = " ".join(["v=spf1", *parts])
    assert others(spf.merged([existing], OURS)) == others(existing)
