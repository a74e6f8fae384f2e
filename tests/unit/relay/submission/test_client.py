"""Whether a client comes from where the configuration says."""

from __future__ import annotations

import ipaddress

import pytest

from malote_relay.submission.client import is_in

NETWORKS = [ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::/32")]


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("192.0.2.7", True),
        ("::ffff:192.0.2.7", True),
        ("2001:db8::1%eth0", True),
        ("192.0.3.7", False),
        ("2001:db9::1", False),
        ("", False),
        ("a unix socket", False),
    ],
)
def test_an_address_is_in_a_network_or_not(address: str, inside: bool) -> None:
    assert is_in(address, NETWORKS) is inside
    assert not is_in(address, [])
