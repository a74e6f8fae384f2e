"""Which host gets a message that not all of a domain's hosts take; hosts and sessions are played."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from typing import Any, cast

import pytest

from malote_relay.delivery.content import Content
from malote_relay.delivery.conversion.converter import Converted
from malote_relay.delivery.dialogue.envelope import Envelope
from malote_relay.delivery.dialogue.wire import SessionFailed
from malote_relay.delivery.peer import Peer
from malote_relay.delivery.queue.negotiation import MAX_ASKED, VAIN_SECONDS, Negotiation, Vain
from malote_relay.delivery.reply import Answer, Failure
from malote_relay.delivery.route import MailHost, Route

ENVELOPE = Envelope(
    "app@acme.example", ["bia@shop.example"], Content(b"Subject: x\r\n\r\n\xff\r\n"), 17, eight_bit=True
)
ADDRESS = ipaddress.ip_address("192.0.2.1")


class Session:
    def __init__(self, name: str, lacks: str) -> None:
        self.peer = Peer(name, ADDRESS)
        self._lacks = lacks

    def lacks(self, envelope: Envelope) -> str:
        if self._lacks == "error":
            raise OSError("the header cannot be read")
        return self._lacks


class Pool:
    """Hosts by name with what each lacks; one that "is down" cannot be reached."""

    def __init__(self, **hosts: str) -> None:
        self.hosts = hosts
        self.tried: list[str] = []
        self.out: set[Session] = set()

    def session(self, name: str) -> Session:
        one = Session(name, self.hosts[name])
        self.out.add(one)
        return one

    def peers(self, route: object) -> Sequence[Peer]:
        return [Peer(name, ADDRESS) for name in self.hosts]

    def release(self, session: Session) -> None:
        self.out.remove(session)

    async def elsewhere(self, session: Session, route: object, passed: Collection[Peer]) -> Session | None:
        self.release(session)
        for peer in self.peers(route):
            if peer not in passed:
                self.tried.append(peer.name)
                if self.hosts[peer.name] != "is down":
                    return self.session(peer.name)
        raise SessionFailed(Failure("451 4.4.1 no connection", "connection"))

    async def acquire(self, route: object, *, recipients: int) -> Session:
        return self.session(next(name for name, lacks in self.hosts.items() if lacks != "is down"))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def never(source: object) -> Converted:
    raise AssertionError("nothing is to be converted here")


async def host(pool: Pool, vain: Vain, first: str, passed: Collection[Peer] = ()) -> Session:
    route = Route("shop.example", tuple(MailHost(name, (ADDRESS,)) for name in pool.hosts))
    talk = Negotiation(cast(Any, never), vain)
    given = await talk.host(cast(Any, pool.session(first)), route, cast(Any, pool), ENVELOPE, passed, 1)
    session = cast(Session, given)
    assert pool.out == {session}  # one session is out, and it is this one
    pool.release(session)
    return session


@pytest.mark.parametrize(
    ("hosts", "chosen", "tried"),
    [
        ({"a": ""}, "a", []),
        ({"a": "8BITMIME", "b": ""}, "b", ["b"]),
        ({"a": "8BITMIME", "b": "8BITMIME", "c": ""}, "c", ["b", "c"]),
        ({"a": "8BITMIME", "b": "is down", "c": ""}, "c", ["b", "c"]),
        ({"a": "8BITMIME", "b": "8BITMIME"}, "b", ["b"]),
        ({"a": "8BITMIME", "b": "is down"}, "a", ["b"]),
    ],
)
async def test_the_first_host_that_takes_it_is_chosen_and_none_is_asked_twice(
    hosts: dict[str, str], chosen: str, tried: list[str]
) -> None:
    pool = Pool(**hosts)
    assert (await host(pool, Vain(), "a")).peer.name == chosen
    assert pool.tried == tried


async def test_only_so_many_hosts_are_asked() -> None:
    pool = Pool(**{f"mx{number}": "8BITMIME" for number in range(10)})
    await host(pool, Vain(), "mx0")
    assert len(pool.tried) == MAX_ASKED - 1


async def test_what_was_asked_in_vain_is_not_asked_again_for_some_minutes() -> None:
    pool, clock = Pool(a="8BITMIME", b="8BITMIME"), Clock()
    vain = Vain(clock)
    for _ in range(3):
        await host(pool, vain, "a")
    assert pool.tried == ["b"]
    clock.now += VAIN_SECONDS
    pool.hosts["b"] = ""
    assert (await host(pool, vain, "a")).peer.name == "b"


async def test_a_host_that_had_trouble_with_the_message_is_left_out_and_nothing_concluded_from_that() -> None:
    pool, vain = Pool(a="8BITMIME", b=""), Vain()
    assert (await host(pool, vain, "a", [Peer("b", ADDRESS)])).peer.name == "a"
    assert (await host(Pool(a="8BITMIME", b=""), vain, "a")).peer.name == "b"


class Refusing(Session):
    """A host that lacks SMTPUTF8, for which nothing can be converted."""

    def wants_seven_bits(self, envelope: Envelope) -> bool:
        return False

    async def deliver(self, envelope: Envelope) -> Sequence[Answer]:
        return [Failure("553 5.6.7 a takes no internationalised addresses", "protocol", permanent=True, lacking=True)]


@pytest.mark.parametrize("other", ["SMTPUTF8", "is down"])
async def test_what_one_host_lacks_is_final_only_once_every_other_was_asked(other: str) -> None:
    pool, vain = Pool(a="SMTPUTF8", b=other), Vain()
    for _ in range(2):  # the second attempt knows it from the first
        route = Route("shop.example", tuple(MailHost(name, (ADDRESS,)) for name in pool.hosts))
        talk = Negotiation(cast(Any, never), vain)
        await talk.host(cast(Any, pool.session("a")), route, cast(Any, pool), ENVELOPE, (), 1)
        (answer,) = await talk.deliver(cast(Any, Refusing("a", "SMTPUTF8")), ENVELOPE)
        assert isinstance(answer, Failure)
        assert answer.permanent is (other != "is down")
        assert answer.words.startswith("553 5.6.7 " if answer.permanent else "451 4.4.1 a takes no internationalised")
    assert pool.tried == ["b"]


async def test_a_session_is_given_back_when_the_message_cannot_be_looked_at() -> None:
    pool = Pool(a="error")
    with pytest.raises(OSError, match="header"):
        await host(pool, Vain(), "a")
    assert pool.out == set()
