"""Which addresses are tried, for how long, and which families come last."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Callable
from typing import Any, cast

import pytest

from malote_relay.delivery.destinations.dialling import IN_A_ROW, PLAIN_SECONDS, Dialler
from malote_relay.delivery.dialogue.connection import Session
from malote_relay.delivery.dialogue.wire import SessionFailed
from malote_relay.delivery.peer import Identity, Login, Peer, Proxy, Timeouts
from malote_relay.delivery.reach import SHUNNED_SECONDS, Families
from malote_relay.delivery.reply import Failure
from malote_relay.delivery.route import MailHost, Route
from malote_relay.delivery.tls.handshake import Handshake, Handshakes
from malote_relay.delivery.tls.results import ResultType, Trouble
from malote_relay.delivery.tls.security import Level, Security

SIX, FOUR = "2001:db8::1", "192.0.2.1"


class Network:
    """Opens sessions that exist only on paper."""

    def __init__(self) -> None:
        self.now = 0.0
        self.tried: list[tuple[str, float]] = []
        self.handshakes: list[Handshake | None] = []
        self.dead: dict[str, OSError] = {}
        self.broken: set[Level] = set()
        self.how = Trouble(ResultType.EXPIRED, "expired", lasting=True)
        self.reply = ""
        self.told: list[ResultType | None] = []
        self.met: list[str] = []
        self.identity = Identity("relay.example")
        self.identities: list[Identity] = []
        self.meanwhile: Callable[[], None] = lambda: None

    async def open(self, peer: Peer, identity: Identity, timeouts: Timeouts, handshake: Handshake | None) -> Session:
        address = str(peer.address)
        self.identities.append(identity)
        self.meanwhile()
        self.tried.append((address, timeouts.connect))
        self.handshakes.append(handshake)
        if (cause := self.dead.get(address)) is not None:
            if isinstance(cause, TimeoutError):
                self.now += timeouts.connect
            raise SessionFailed(Failure("451 4.4.1 no connection", "connection")) from cause
        if handshake is not None and handshake.security.level in self.broken:
            raise SessionFailed(Failure("451 4.7.5 no TLS", "tls"), tls=self.how)
        if self.reply:
            raise SessionFailed(Failure(self.reply, ""), host=peer.name)

        class Paper:
            local_address = "192.0.2.99"
            tls_trouble = None

        return cast(Session, Paper())

    def dialler(self) -> Dialler:
        def report(route: Route, peer: Peer, local: str, trouble: Trouble | None) -> None:
            self.told.append(trouble.result if trouble else None)
            self.met.append(local)

        return Dialler(self.identity, Timeouts(), Handshakes(), self.open, lambda: self.now, report)


def to(*addresses: str, security: Security | None = None) -> Route:
    found = tuple(ipaddress.ip_address(one) for one in addresses)
    host = MailHost("mx.d.example", found) if security is None else MailHost("mx.d.example", found, security)
    return Route("d.example", (host,))


async def dial(dialler: Dialler, route: Route) -> Any:
    return await dialler.connect(dialler.peers(route), route)


async def test_little_is_waited_for_one_family_while_the_other_is_left_to_try() -> None:
    network = Network()
    network.dead[SIX] = TimeoutError()
    await dial(network.dialler(), to(SIX, FOUR))
    assert network.tried == [(SIX, Timeouts().fallback), (FOUR, Timeouts().connect)]


async def test_all_tries_together_have_a_bound() -> None:
    network = Network()
    addresses = [f"192.0.2.{number}" for number in range(1, 7)]
    network.dead = dict.fromkeys(addresses, TimeoutError())
    with pytest.raises(SessionFailed):
        await dial(network.dialler(), to(*addresses))
    assert len(network.tried) == 3
    assert network.now == Timeouts().reach


@pytest.mark.parametrize(
    "cause", [TimeoutError(), OSError(errno.ECONNREFUSED, "refused")], ids=["silent", "refusing"]
)
async def test_a_host_with_many_dead_addresses_does_not_hide_the_next_one(cause: OSError) -> None:
    network = Network()
    many = [f"192.0.2.{number}" for number in range(1, 7)]
    network.dead = dict.fromkeys(many, cause)
    first, backup = (tuple(map(ipaddress.ip_address, addresses)) for addresses in (many, ["192.0.2.9"]))
    route = Route("d.example", (MailHost("mx1.d.example", first), MailHost("mx2.d.example", backup)))
    await dial(network.dialler(), route)
    assert [address for address, _ in network.tried] == [*many[:2], "192.0.2.9"]


async def test_a_host_with_many_addresses_is_tried_further_when_the_others_are_dead_too() -> None:
    network = Network()
    many = [f"192.0.2.{number}" for number in range(1, 5)]
    network.dead = dict.fromkeys([*many[:3], "192.0.2.9"], OSError(errno.ECONNREFUSED, "refused"))
    first, backup = (tuple(map(ipaddress.ip_address, addresses)) for addresses in (many, ["192.0.2.9"]))
    route = Route("d.example", (MailHost("mx1.d.example", first), MailHost("mx2.d.example", backup)))
    await dial(network.dialler(), route)
    assert [address for address, _ in network.tried] == [*many[:2], "192.0.2.9", *many[2:]]


async def test_who_is_configured_meanwhile_is_not_told_to_the_hosts_of_a_way_found_before() -> None:
    """A smart host's login is for that one."""
    network = Network()
    network.dead[SIX] = TimeoutError()
    dialler = network.dialler()
    before = dialler.identity

    def reconfigure() -> None:
        dialler.identity = Identity("relay.example", login=Login("relay", "for another smart host"))

    network.meanwhile = reconfigure
    await dial(dialler, to(SIX, FOUR))
    assert network.identities == [before, before]


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
async def test_a_family_that_the_system_has_no_way_for_comes_last_for_a_while(number: int) -> None:
    network = Network()
    network.dead[SIX] = OSError(number, "no way")
    dialler = network.dialler()
    for _ in range(2):
        await dial(dialler, to(SIX, FOUR))
    assert [address for address, _ in network.tried] == [SIX, FOUR, FOUR]
    network.now += SHUNNED_SECONDS + 1
    await dial(dialler, to(SIX, FOUR))
    assert [address for address, _ in network.tried[3:]] == [SIX, FOUR]


async def test_a_host_that_refuses_says_nothing_about_its_family() -> None:
    network = Network()
    network.dead[SIX] = OSError(errno.ECONNREFUSED, "refused")
    dialler = network.dialler()
    for _ in range(3):
        await dial(dialler, to(SIX, FOUR))
    assert [address for address, _ in network.tried] == [SIX, FOUR] * 3


def test_time_outs_in_a_row_shun_a_family_and_a_connection_brings_it_back() -> None:
    families = Families(lambda: 0.0)
    six, four = (Peer("mx", ipaddress.ip_address(one)) for one in (SIX, FOUR))
    families.failed(six.address, None)
    assert families.ordered([six, four]) == [six, four]
    families.failed(six.address, None)
    assert families.ordered([six, four]) == [four, six]
    assert families.ordered([six]) == [six]
    families.worked(six.address)
    assert families.ordered([six, four]) == [six, four]


def test_hosts_keep_their_order_whatever_their_families() -> None:
    families = Families(lambda: 0.0)
    families.failed(ipaddress.ip_address(SIX), OSError(errno.ENETUNREACH, ""))
    first, second = Peer("mx1", ipaddress.ip_address(SIX)), Peer("mx2", ipaddress.ip_address(FOUR))
    assert families.ordered([first, second]) == [first, second]


@pytest.mark.parametrize(
    "security",
    [Security(Level.VERIFIED, "mta-sts"), Security(Level.ENCRYPTED), Security(Level.DANE, names=("mx",))],
    ids=lambda one: one.level.value,
)
async def test_required_tls_that_fails_is_tried_anew_each_time_and_never_done_without(security: Security) -> None:
    network = Network()
    network.broken = {security.level}
    dialler = network.dialler()
    for _ in range(2):
        with pytest.raises(SessionFailed):
            await dial(dialler, to(FOUR, security=security))
    assert [one is not None and one.security == security for one in network.handshakes] == [True, True]
    assert network.told == [ResultType.EXPIRED] * 2


async def test_a_failure_of_opportunistic_tls_is_no_memory_for_a_domain_that_requires_it() -> None:
    network = Network()
    network.broken = {Level.OPPORTUNISTIC}
    dialler = network.dialler()
    await dial(dialler, to(FOUR))
    required = Security(Level.VERIFIED, "mta-sts")
    await dial(dialler, to(FOUR, security=required))
    last = network.handshakes[-1]
    assert last is not None
    assert last.security == required


async def test_testing_is_told_of_a_bad_certificate_each_time_and_delivers_all_the_same() -> None:
    network = Network()
    network.broken = {Level.TESTING}
    dialler = network.dialler()
    for _ in range(2):
        await dial(dialler, to(FOUR, security=Security(Level.TESTING, "mta-sts-testing")))
    levels = [one.security.level if one else None for one in network.handshakes]
    assert levels == [Level.TESTING, Level.OPPORTUNISTIC, Level.OPPORTUNISTIC]
    assert network.told == [ResultType.EXPIRED] * 2


CUT_OFF = Trouble(ResultType.VALIDATION_FAILURE, "ConnectionResetError")


@pytest.mark.parametrize(
    ("security", "level"),
    [(None, Level.OPPORTUNISTIC), (Security(Level.TESTING, "mta-sts-testing"), Level.TESTING)],
    ids=["opportunistic", "testing"],
)
async def test_a_handshake_that_is_cut_off_is_tried_again_at_the_next_session(
    security: Security | None, level: Level
) -> None:
    """Whoever can reset a connection must not gain clear text for longer than that one."""
    network = Network()
    network.broken, network.how = {level}, CUT_OFF
    dialler = network.dialler()
    for _ in range(IN_A_ROW - 1):
        await dial(dialler, to(FOUR, security=security))
    network.broken = set()
    await dial(dialler, to(FOUR, security=security))
    last = network.handshakes[-1]
    assert last is not None
    assert last.security.level is level


async def test_handshakes_cut_off_in_a_row_are_let_be_for_some_minutes_until_one_goes_well() -> None:
    network = Network()
    network.broken, network.how = {Level.OPPORTUNISTIC}, CUT_OFF
    dialler = network.dialler()
    for _ in range(IN_A_ROW + 1):
        await dial(dialler, to(FOUR))
    assert [one is not None for one in network.handshakes] == [True, False] * IN_A_ROW + [False]
    network.now += PLAIN_SECONDS + 1
    network.broken = set()
    await dial(dialler, to(FOUR))
    network.broken = {Level.OPPORTUNISTIC}
    network.handshakes.clear()
    for _ in range(2):
        await dial(dialler, to(FOUR))
    assert [one is not None for one in network.handshakes] == [True, False] * 2


@pytest.mark.parametrize("level", [Level.OPPORTUNISTIC, Level.TESTING])
async def test_a_host_that_answers_over_tls_is_not_asked_again_in_clear_nor_reported(level: Level) -> None:
    network = Network()
    network.reply = "421 4.3.2 too busy"
    with pytest.raises(SessionFailed, match="too busy"):
        await dial(network.dialler(), to(FOUR, security=Security(level)))
    assert [one is not None for one in network.handshakes] == [True]
    assert network.told == []


async def test_the_address_that_a_proxy_has_met_is_not_told_as_the_hosts() -> None:
    network = Network()
    await dial(network.dialler(), to(FOUR))
    network.identity = Identity("relay.example", proxy=Proxy("socks.example", 1080))
    await dial(network.dialler(), to(FOUR))
    assert network.met == ["192.0.2.99", ""]
