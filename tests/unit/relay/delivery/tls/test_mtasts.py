"""MTA-STS records and policies by the grammar of RFC 8461."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malote_relay.delivery.tls.mtasts import MAX_AGE, MAX_BYTES, MIN_AGE, InvalidPolicy, Mode, parse, record_id

GOOD = b"version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n"


@pytest.mark.parametrize(
    ("texts", "id"),
    [
        ([b"v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        ([b"v=STSv1;id=1"], "1"),
        ([b"v=STSv1 ; \tid=1 ; more=x"], "1"),
        ([b"v=spf1 -all", b"v=STSv1; id=1"], "1"),
        ([b"v=STSv1; id=1", b"v=STSv1; id=1"], None),
        ([b"v=STSv1; id=1; id=2"], "1"),
        ([b"v=STSv1; id="], None),
        ([b"v=STSv1; id=" + b"1" * 33], None),
        ([b"v=STSv1; id=a-b"], None),
        ([b"v=STSv1; id = 1"], None),
        ([b"v=STSv1; nonsense; id=1"], None),
        ([b"v=STSv2; id=1"], None),
        ([b"id=1; v=STSv1"], None),
        ([b"V=STSV1; id=1"], None),
        ([b"v=STSv1; id=\xff"], None),
        ([], None),
    ],
)
def test_a_record_counts_when_it_is_the_only_one_and_well_formed(texts: Sequence[bytes], id: str | None) -> None:
    assert record_id(texts) == id


def test_a_policy_is_read() -> None:
    policy = parse(GOOD)
    assert (policy.mode, policy.max_age, policy.mx) == (Mode.ENFORCE, 604_800, ("mail.example.com", "*.example.net"))
    assert parse(GOOD.replace(b"\r\n", b"\n").rstrip()) == policy
    assert parse(GOOD + b"future_field: x y\r\n\r\n") == policy
    assert parse(GOOD + b"mode: none\r\n") == policy


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"STSv1", b"STSv2", "version"),
        (b"version: STSv1\r\n", b"", "version"),
        (b"enforce", b"Enforce", "mode"),
        (b"mode: enforce\r\n", b"", "mode"),
        (b"604800", b"", "max_age"),
        (b"604800", b"-1", "max_age"),
        (b"604800", b"10000000000", "max_age"),
        (b"604800", "٦".encode(), "max_age"),
        (b"mail.example.com", b"", "neither a host name"),
        (b"mail.example.com", b"*", "neither a host name"),
        (b"mail.example.com", b"mail.*.example.com", "neither a host name"),
        (b"mail.example.com", b"*.*.example.com", "neither a host name"),
        (b"mail.example.com", b"a" * 64 + b".example", "neither a host name"),
        (b"mx: mail.example.com\r\nmx: *.example.net\r\n", b"", "no mx"),
        (b"mode: enforce", b"mode enforce", "not a field"),
        (b"mode: enforce", b" mode: enforce", "not a field"),
        (b"enforce", b"\xff", "UTF-8"),
        (b"mode", b"x" * MAX_BYTES + b": y\r\nmode", "octets"),
        (b"mode", b"mx: a.example\r\n" * 200 + b"mode", "more than 200"),
    ],
)
def test_what_strays_from_the_grammar_is_no_policy(old: bytes, new: bytes, said: str) -> None:
    with pytest.raises(InvalidPolicy, match=said):
        parse(GOOD.replace(old, new, 1))


def test_no_policy_needs_no_hosts_and_ages_have_bounds() -> None:
    assert parse(b"version: STSv1\nmode: none\nmax_age: 9999999999").max_age == MAX_AGE
    assert parse(b"version: STSv1\nmode: none\nmax_age: 0").max_age == MIN_AGE


@pytest.mark.parametrize(
    ("host", "admitted"),
    [
        ("mail.example.com", True),
        ("MAIL.Example.Com.", True),
        ("a.mail.example.com", False),
        ("mx1.example.net", True),
        ("a.mx1.example.net", False),
        ("example.net", False),
        (".example.net", False),
        ("evilexample.net", False),
    ],
)
def test_hosts_are_matched_whole_or_by_one_label(host: str, admitted: bool) -> None:
    assert parse(GOOD).admits(host) is admitted


@given(st.binary(max_size=400) | st.lists(st.sampled_from(GOOD.splitlines(keepends=True)), max_size=9).map(b"".join))
def test_anything_is_a_policy_or_said_to_be_none(body: bytes) -> None:
    with contextlib.suppress(InvalidPolicy):
        assert MIN_AGE <= parse(body).max_age <= MAX_AGE


@given(st.lists(st.binary(max_size=100), max_size=3))
def test_any_records_are_one_or_none(texts: list[bytes]) -> None:
    record_id([b"v=STSv1;" + one for one in texts])
