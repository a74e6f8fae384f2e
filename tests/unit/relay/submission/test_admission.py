"""How many sessions and connections a client may have, and who a client is."""

from __future__ import annotations

import pytest

from malote_relay.config import Limits
from malote_relay.submission import replies
from malote_relay.submission.admission import MAX_CLIENTS, Admission
from malote_relay.submission.client import network
from malote_relay.submission.crowd import Crowd


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_one_client_is_an_ipv4_address_or_an_ipv6_network(address: str, client: str) -> None:
    assert network(address) == client


def test_sessions_are_limited_in_all_and_per_client() -> None:
    admission, limits = Admission(Crowd()), Limits(max_sessions=3, max_sessions_per_client=2)
    assert admission.enter("a", limits) is None
    assert admission.enter("a", limits) is None
    assert admission.enter("a", limits) is replies.TOO_MANY_SESSIONS_HERE
    admission.leave("a")
    assert admission.enter("b", limits) is None
    assert admission.enter("c", limits) is replies.TOO_MANY_SESSIONS
    for client in "aabc":
        admission.leave(client)
    assert admission._crowd.total == 0
    assert not admission._crowd._by_client


def test_strangers_cannot_take_all_places_from_clients_that_have_signed_in_before() -> None:
    """Else ten addresses that connect and say nothing would keep everybody out."""
    admission, limits = Admission(Crowd()), Limits(max_sessions=10)
    assert admission.enter("app", limits) is None
    admission.signed_in("app")
    admission.leave("app")
    assert [admission.enter(f"stranger{number}", limits) for number in range(8)] == [None] * 8
    assert admission.enter("stranger8", limits) is replies.TOO_MANY_SESSIONS
    admission.leave("stranger8")
    assert [admission.enter("app", limits) for _ in range(3)] == [None, None, replies.TOO_MANY_SESSIONS]


def test_no_more_clients_are_remembered_than_there_may_be() -> None:
    admission = Admission(Crowd())
    for number in range(MAX_CLIENTS + 10):
        admission.signed_in(str(number))
    assert len(admission._known) == MAX_CLIENTS


def test_connections_that_never_sign_in_are_limited_by_the_minute() -> None:
    now = [30.0]
    admission = Admission(Crowd(), lambda: now[0])
    limits = Limits(max_connections_without_sign_in_per_minute=3)

    def connect(client: str, *, signs_in: bool = False) -> object:
        refusal = admission.enter(client, limits)
        if signs_in:
            admission.signed_in(client)
        admission.leave(client)
        return refusal

    assert [connect("app", signs_in=True) for _ in range(50)] == [None] * 50
    assert [connect("bot") for _ in range(4)] == [None] * 3 + [replies.TOO_MANY_CONNECTIONS]
    assert connect("app", signs_in=True) is None
    now[0] = 60.0
    assert connect("bot") is None


def test_a_flood_of_clients_does_not_fill_the_memory() -> None:
    admission = Admission(Crowd(), lambda: 0.0)
    for number in range(MAX_CLIENTS + 100):
        admission.enter(f"client{number}", Limits())
        admission.leave(f"client{number}")
    assert len(admission._strangers) <= MAX_CLIENTS
