"""The PROXY protocol: read to the octet, believed only when sound."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malote_relay.submission.proxy import MAX_V1, MAX_V2, SIGNATURE, ProxyError, missing, source


def v2(command: int, family: int, rest: bytes, length: int | None = None) -> bytes:
    size = len(rest) if length is None else length
    return SIGNATURE + bytes((command, family)) + size.to_bytes(2, "big") + rest


FOUR = ipaddress.ip_address("192.0.2.1").packed + ipaddress.ip_address("198.51.100.9").packed + b"\x11\x22\x02\x4b"
SIX = ipaddress.ip_address("2001:db8::1").packed + ipaddress.ip_address("2001:db8::2").packed + b"\x11\x22\x02\x4b"
GOOD = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.9 40000 587\r\n", "192.0.2.1"),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 40000 587\r\n", "2001:db8::1"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ff:ff 1 2 3 whatever\r\n", None),
    (v2(0x21, 0x11, FOUR), "192.0.2.1"),
    (v2(0x21, 0x11, FOUR + b"\x04\x00\x03\x00\x00\x00"), "192.0.2.1"),
    (v2(0x21, 0x21, SIX), "2001:db8::1"),
    (v2(0x20, 0x00, b""), None),
    (v2(0x20, 0x11, FOUR), None),
    (v2(0x21, 0x00, b""), None),
    (v2(0x21, 0x31, b"/run/x".ljust(216, b"\0")), None),
]


def read(octets: bytes) -> tuple[bytes, bytes]:
    """As the listener does: the header, and what was not read."""
    taken = b""
    while count := missing(taken):
        piece = octets[len(taken) : len(taken) + count]
        if not piece:
            raise ProxyError("it breaks off")
        taken += piece
    return taken, octets[len(taken) :]


@pytest.mark.parametrize(("header", "address"), GOOD)
@pytest.mark.parametrize("behind", [b"", b"EHLO client.example\r\n", b"\x16\x03\x01\x02\x00", b"\r\n\r\n"])
def test_the_header_is_read_to_its_last_octet_and_no_further(
    header: bytes, address: str | None, behind: bytes
) -> None:
    assert read(header + behind) == (header, behind)
    assert source(header) == address


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO client.example\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\r\nPROXY",
        b"PROXY\r\n",
        b"PROXY TCP4\r\n",
        b"proxy TCP4 192.0.2.1 198.51.100.9 40000 587\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.9 40000\r\n",
        b"PROXY TCP4  192.0.2.1 198.51.100.9 40000 587\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.9 40000 587 \r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.9 40000 587\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.9 70000 587\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.9 -1 587\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 40000 587\r\n",
        b"PROXY TCP6 192.0.2.1 198.51.100.9 40000 587\r\n",
        b"PROXY TCP4 192.0.2.999 198.51.100.9 40000 587\r\n",
        b"PROXY UDP4 192.0.2.1 198.51.100.9 40000 587\r\n",
        b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n",
        SIGNATURE[:11] + b"x" + b"\x21\x11\x00\x0c" + FOUR,
        v2(0x11, 0x11, FOUR),
        v2(0x22, 0x11, FOUR),
        v2(0x21, 0x13, FOUR),
        v2(0x21, 0x41, FOUR),
        v2(0x21, 0x11, FOUR[:11]),
        v2(0x21, 0x21, FOUR),
        v2(0x21, 0x11, FOUR, 60_000),
        v2(0x21, 0x11, FOUR, 13),
    ],
)
def test_what_is_no_sound_header_is_refused(octets: bytes) -> None:
    with pytest.raises(ProxyError):
        source(read(octets)[0])


def test_headers_are_bounded() -> None:
    longest = b"PROXY UNKNOWN " + b"x" * (MAX_V1 - 16) + b"\r\n"
    assert len(longest) == MAX_V1
    assert read(longest)[0] == longest
    with pytest.raises(ProxyError):
        read(longest[:-2] + b"x\r\n")
    assert len(read(v2(0x20, 0, b"\0" * (MAX_V2 - 16)))[0]) == MAX_V2
    with pytest.raises(ProxyError):
        read(v2(0x20, 0, b"\0" * (MAX_V2 - 15)))


@given(st.binary(max_size=200), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]))
def test_every_beginning_is_a_header_or_refused(octets: bytes, start: bytes) -> None:
    try:
        header, rest = read(start + octets)
        found = source(header)
    except ProxyError:
        return
    assert header + rest == start + octets
    assert len(header) <= MAX_V2
    assert found is None or ipaddress.ip_address(found)
