"""The PROXY protocol, versions 1 and 2: a proxy's first octets say for whom it connects. Pure.

As HAProxy's proxy-protocol.txt has it. A header is believed only where the configuration says that a proxy connects
from, and there it must be present: whether to expect one is never guessed from what comes. It is read octet by octet
as far as it goes and no further, since TLS may begin right behind it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
MAX_V1: Final = 107
"""Section 2.1, CRLF included."""

MAX_V2: Final = 16 + 2048
"""Section 2.2 lets a header be 64 KB long; what proxies add to their 52 octets for IPv6 is far below this."""

_SHORTEST: Final = len(b"PROXY UNKNOWN\r\n")
_V1: Final = re.compile(rb"PROXY (?:UNKNOWN(?: [ -~]*)?|(TCP[46]) (\S+) (\S+) ([0-9]{1,5}) ([0-9]{1,5}))\r\n\Z")
_STREAM_4, _STREAM_6 = 0x11, 0x21
_KNOWN: Final = frozenset((0x00, _STREAM_4, 0x12, _STREAM_6, 0x22, 0x31, 0x32))


class ProxyError(ValueError):
    """This is no PROXY header, or not one that can be taken; the message says why."""


def missing(start: bytes) -> int:
    """How many octets still belong to the header for sure, 0 when it is complete. Raises ProxyError."""
    if SIGNATURE.startswith(start[: len(SIGNATURE)]):
        return _missing_v2(start)
    if not b"PROXY ".startswith(start[:6]):
        raise ProxyError("it does not begin with a PROXY header")
    if start.endswith(b"\r\n"):
        return 0
    if len(start) >= MAX_V1 or b"\n" in start:
        raise ProxyError("the PROXY header does not end as it must")
    return max(1, _SHORTEST - len(start))


def source(header: bytes) -> str | None:
    """The client's address in a complete header; None when it is the proxy itself that speaks. Raises ProxyError."""
    return _source_v2(header) if header.startswith(SIGNATURE) else _source_v1(header)


def _missing_v2(start: bytes) -> int:
    if len(start) < 16:
        # Version 1 is the shorter one: until it is known which it is no more than that is read.
        return (_SHORTEST if len(start) < _SHORTEST else 16) - len(start)
    length = 16 + int.from_bytes(start[14:16], "big")
    if length > MAX_V2:
        raise ProxyError(f"the PROXY header has {length} octets: {MAX_V2} are taken")
    return length - len(start)


def _source_v1(header: bytes) -> str | None:
    match = _V1.match(header)
    if match is None:
        raise ProxyError("the PROXY header is malformed")
    kind, origin, target, *ports = match.groups()
    if kind is None:
        return None
    if any(int(port) > 65_535 for port in ports):
        raise ProxyError("the PROXY header has a port above 65535")
    try:
        addresses = [ipaddress.ip_address(text.decode("ascii")) for text in (origin, target)]
    except ValueError as error:
        raise ProxyError(f"the PROXY header has no address where one must be: {error}") from None
    if any(address.version != int(kind[3:]) for address in addresses):
        raise ProxyError("the PROXY header has an address of another family than it says")
    return str(addresses[0])


def _source_v2(header: bytes) -> str | None:
    version, command, family = header[12] >> 4, header[12] & 0xF, header[13]
    if version != 2 or command not in {0, 1}:
        raise ProxyError("the PROXY header is of a version or command that is not known")
    if command == 0:  # LOCAL: a health check
        return None
    if family not in _KNOWN:
        raise ProxyError("the PROXY header is of an address family that is not known")
    size = {_STREAM_4: 4, _STREAM_6: 16}.get(family)
    if size is None:
        return None
    if len(header) < 16 + 2 * size + 4:
        raise ProxyError("the PROXY header is too short for its addresses")
    return str(ipaddress.ip_address(header[16 : 16 + size]))
