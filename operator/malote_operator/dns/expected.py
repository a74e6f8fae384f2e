"""The records to publish for a domain, ready to paste.

The value of an SPF record depends on what stands there already (ours is merged in), and a DMARC record that is
good enough is shown as it is; the DKIM value is the only one that belongs to this domain alone.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from . import compare, spf

STRING_LIMIT = 255
"""The longest character-string of a TXT record (RFC 1035 section 3.3)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A record to publish."""

    type: str
    name: str
    value: str


def spf_record(domain: str, include: str, existing: Sequence[str] = ()) -> Wanted:
    """The domain's SPF record with ``include:`` of ours, made from what stands there (RFC 7208)."""
    return Wanted("TXT", domain, spf.merged(existing, include))


def helo_spf(helo_name: str) -> Wanted:
    """The SPF record of an EHLO name, which SPF looks at where the reverse-path is null (RFC 7208 section 2.4).

    Its own A and AAAA records may send: the name must have those of the addresses that mail leaves from anyway.
    """
    return Wanted("TXT", helo_name, f"{spf.VERSION} a -all")


def host_address(helo_name: str, source_address: str) -> Wanted:
    """The address record of an EHLO name (RFC 5321 section 4.1.4); without a value if mail's source is not public."""
    try:
        source = ipaddress.ip_address(source_address)
    except ValueError:  # none is configured, or one that the relay refuses, which Ready tells
        return Wanted("A", helo_name, "")
    return Wanted("AAAA" if source.version == 6 else "A", helo_name, str(source) if source.is_global else "")


def reverse_name(address: str) -> str:
    """Where the PTR records of an address are (RFC 1035 section 3.5, RFC 3596 section 2.5)."""
    return ipaddress.ip_address(address).reverse_pointer


def host_reverse(helo_name: str, reverse: str) -> Wanted:
    """The PTR record that leads from an address back to the EHLO name."""
    return Wanted("PTR", reverse, helo_name)


def dkim_name(domain: str, selector: str) -> str:
    """Where receivers look for the key of that selector (RFC 6376 section 3.6.2.1)."""
    return f"{selector}._domainkey.{domain}"


def dkim_value(public_key: str) -> str:
    """The key record's text (RFC 6376 section 3.6.1), for an RSA key given as the base64 of its DER."""
    return f"v=DKIM1; k=rsa; p={public_key}"


def dkim_txt(domain: str, selector: str, public_key: str) -> Wanted:
    """The key published by the tenant."""
    return Wanted("TXT", dkim_name(domain, selector), dkim_value(public_key))


def dkim_cname(domain: str, selector: str, uid: str, zone: str) -> Wanted:
    """A pointer into the platform's zone, where the key can be changed without the tenant.

    The target contains a token of this one SendingDomain (its uid is random), so that a record left over
    from an earlier holder of the domain proves nothing.
    """
    token = hashlib.sha256(uid.encode()).hexdigest()[:16]
    return Wanted("CNAME", dkim_name(domain, selector), f"{selector}.{token}.{zone}")


def dmarc_record(domain: str, policy: str, existing: Sequence[str] = ()) -> Wanted:
    """The existing DMARC record where it will do, else the platform's proposal (RFC 7489 section 6.1)."""
    good = [text for text in existing if compare.is_dmarc(text)]
    keep = len(good) == 1 and compare.dmarc(existing, policy).found
    return Wanted("TXT", f"_dmarc.{domain}", good[0] if keep else policy)


def return_path_mx(host: str, endpoint: str) -> Wanted:
    """Bounces to the return path come to the relay's own host (RFC 5321 section 5.1)."""
    return Wanted("MX", host, f"10 {endpoint}")


def zone_strings(value: str) -> tuple[str, ...]:
    """The value cut into the strings that a zone file needs; whoever reads the record joins them without a space."""
    return tuple(value[start : start + STRING_LIMIT] for start in range(0, len(value), STRING_LIMIT))
