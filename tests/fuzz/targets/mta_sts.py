"""MTA-STS policies and records (RFC 8461): read, or refused with words; and what they admit is what they name."""

from __future__ import annotations

from tests.fuzz.target import Target

from malote_relay.delivery.tls.mtasts import MAX_AGE, MIN_AGE, InvalidPolicy, Mode, parse, record_id


def check(data: bytes) -> None:
    texts = data.split(b"|")
    found = record_id(texts)
    assert found is None or (found.isascii() and found.isalnum() and len(found) <= 32)
    try:
        policy = parse(data)
    except InvalidPolicy as error:
        _is_for_people(str(error))
        return
    assert MIN_AGE <= policy.max_age <= MAX_AGE
    assert policy.mx or policy.mode is Mode.NONE
    assert parse(data.replace(b"\r\n", b"\n")) == policy
    for one in policy.mx:
        if one.startswith("*."):
            assert policy.admits("a" + one[1:])
            assert policy.admits(one[2:]) == (one[2:] in policy.mx or f"*.{one[2:].partition('.')[2]}" in policy.mx)
        else:
            assert policy.admits(one)
            assert policy.admits(one.upper() + ".")
    assert not policy.admits("")
    assert not policy.admits("elsewhere.invalid") or any(one.endswith("invalid") for one in policy.mx)


def _is_for_people(words: str) -> None:
    assert words


TARGET = Target(
    "mta_sts",
    check,
    words=(
        b"version: STSv1\r\n",
        b"mode: enforce\r\n",
        b"mode: testing\n",
        b"mode: none\n",
        b"mx: mx.example\r\n",
        b"mx: *.example.net\r\n",
        b"max_age: 86400\r\n",
        b"max_age: 99999999999\n",
        b"v=STSv1;",
        b"id=2026;",
        b"|",
        b"*.",
        b":",
    ),
    seeds=(
        b"version: STSv1\r\nmode: enforce\r\nmx: mx.example\r\nmx: *.example.net\r\nmax_age: 604800\r\n",
        b"v=STSv1; id=20260901;",
    ),
)
