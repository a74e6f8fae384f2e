"""One attempt: find the hosts, get a session in turn, run transactions until nothing more can be done now.

One transaction is the rule. A host that takes fewer recipients at once gets the others in the next one; when a host
has trouble of its own, the route's next is asked (RFC 5321 section 5.1). What is final stays final.
"""

from __future__ import annotations

import asyncio
import enum
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from malote_relay.delivery.answers.classify import classify, permanent, too_many_recipients
from malote_relay.delivery.destinations.destination import Held
from malote_relay.delivery.destinations.pool import Pool
from malote_relay.delivery.dialogue.connection import Session
from malote_relay.delivery.dialogue.envelope import Envelope
from malote_relay.delivery.dialogue.wire import SessionFailed
from malote_relay.delivery.peer import Peer
from malote_relay.delivery.queue.negotiation import Negotiation
from malote_relay.delivery.reply import Answer, Failure, Reply
from malote_relay.delivery.route import Names, Policy, Route, Unroutable, route

ROUTE_SECONDS = 10.0
"""How long a found route is used again without asking: the resolver's cache holds for longer, but costs more."""

UNROUTABLE_SECONDS = 0.25
"""How long it holds that there is none: for those who asked at the same time."""

MAX_SESSIONS = 3
"""Sessions that may end in trouble in one attempt, each with another host; more would only add to their trouble."""

_MAX_ROUTES = 2000


@dataclass(frozen=True, slots=True)
class Attempted:
    """How an attempt ended for one recipient; whom the answer came from and over what TLS, as far as it got.

    `notifies` is whether that host takes over the notifying of the sender.
    """

    answer: Answer
    host: str = ""
    tls: str = ""
    notifies: bool = False


class Onward(enum.Enum):
    """What follows a transaction."""

    NOTHING = "nothing"
    AGAIN = "again"
    """The next transaction with the same host, over the same session while it lasts."""
    ANEW = "anew"
    """The kept session turned out to be gone: the same over a new one."""
    ELSEWHERE = "elsewhere"
    """Another host of the route."""


@dataclass(eq=False, slots=True)
class _Gate:
    """Who asks for a domain's route passes one after another, so that the order of arrival is kept."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Router:
    """Routes by domain, kept for a few seconds. `clock` gives monotonic seconds.

    `secure` finds out what TLS a route's hosts must have; raises Unroutable.
    """

    def __init__(
        self,
        names: Names,
        policy: Policy,
        rng: random.Random,
        clock: Callable[[], float] = time.monotonic,
        secure: Callable[[Route], Awaitable[Route]] | None = None,
    ):
        self._names = names
        self._secure = secure
        self._policy = policy
        self._rng = rng
        self._clock = clock
        self._routes: dict[tuple[str, bool], tuple[float, Route | Unroutable]] = {}
        self._gates: dict[tuple[str, bool], _Gate] = {}

    def configure(self, policy: Policy) -> None:
        """Route by another policy from now on."""
        self._policy = policy
        self._routes.clear()

    def known(self, domain: str) -> Route | None:
        """The route last used, if there is one."""
        found = self._routes.get((domain, False))
        return found[1] if found and isinstance(found[1], Route) else None

    def forget(self, domain: str) -> None:
        """Look anew next time: its hosts could not be reached. Which they were stays known."""
        for lax in (False, True):
            if (found := self._routes.get((domain, lax))) is not None:
                self._routes[domain, lax] = (-math.inf, found[1])

    async def route(self, domain: str, *, lax: bool = False) -> Route:
        """The route for a domain. Raises Unroutable. Callers get their answers in the order in which they came.

        `lax` leaves out what the domain asks for about TLS.
        """
        key = domain, lax
        gate = self._gates.get(key)
        if gate is None:
            kept = self._kept(key)
            if kept is not None:
                return kept
            gate = self._gates[key] = _Gate()
        gate.users += 1
        try:
            async with gate.lock:
                return self._kept(key) or await self._find(key)
        finally:
            gate.users -= 1
            if not gate.users:
                del self._gates[key]

    def _kept(self, key: tuple[str, bool]) -> Route | None:
        until, found = self._routes.get(key, (0.0, None))
        if found is None or until <= self._clock():
            return None
        if isinstance(found, Unroutable):
            raise Unroutable(found.reply, found.bounce_class, permanent=found.permanent)
        return found

    async def _find(self, key: tuple[str, bool]) -> Route:
        domain, lax = key
        if len(self._routes) >= _MAX_ROUTES:
            self._routes.clear()
        policy = self._policy
        try:
            found = await route(domain, self._names, policy, self._rng)
            if self._secure is not None and not lax:
                found = await self._secure(found)
        except Unroutable as error:
            self._routes[key] = (self._clock() + UNROUTABLE_SECONDS, error)
            raise
        if policy is not self._policy:
            return await self._find(key)  # half by one policy and half by another is by none of them
        self._routes[key] = (self._clock() + ROUTE_SECONDS, found)
        return found


def onward(answers: Sequence[Answer], *, content_sent: bool, again: bool = False) -> tuple[Onward, Sequence[int]]:
    """What to do after a transaction with these answers, and for which of its recipients, by their places.

    `again`: it is not the first attempt.
    """
    if all(isinstance(answer, Failure) and answer.stale for answer in answers):
        return Onward.ANEW, range(len(answers))
    open_ones = [place for place, answer in enumerate(answers) if not _final(answer)]
    crowded = [place for place in open_ones if too_many_recipients(answers[place])]
    if crowded and len(open_ones) < len(answers):
        # RFC 5321 section 4.5.3.1.10. Somebody got an answer, so it comes to an end.
        return Onward.AGAIN, crowded
    if open_ones and (not content_sent or _is_hosts_own(answers, open_ones, again=again)):
        return Onward.ELSEWHERE, open_ones
    return Onward.NOTHING, ()


def _is_hosts_own(answers: Sequence[Answer], open_ones: Sequence[int], *, again: bool) -> bool:
    """Whether what became of the content is this host's own trouble, which the next one need not have.

    Content that a host may have taken is not offered to the next at once: it could arrive twice. The next attempt
    runs that risk anyway, and with the first host alone might run it for days.
    """
    if any(_taken(answer) for answer in answers):
        return False

    def own(answer: Answer) -> bool:
        if isinstance(answer, Failure):
            return again
        return too_many_recipients(answer) or classify(answer).bounce_class == "system"

    return all(own(answers[place]) for place in open_ones)


def _taken(answer: Answer) -> bool:
    return isinstance(answer, Reply) and answer.accepted


def _final(answer: Answer) -> bool:
    return _taken(answer) or permanent(answer)


async def attempt(
    domain: str,
    count: int,
    router: Router,
    pool: Pool,
    negotiation: Negotiation,
    envelope: Callable[[], Awaitable[Envelope]],
    ended: Callable[[Mapping[int, Attempted]], None],
    *,
    lax: bool = False,
    again: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Try to deliver to `count` recipients at one domain.

    `envelope` is called once a session is at hand: from then on the message is under way, and only then its
    content is needed. `ended` is told how it ended for each recipient, by their places: of deliveries after each
    transaction, so that what follows cannot undo them; of the rest at the end. What is final is told even when this
    raises or is cancelled; the others have then not ended. Raises Held when it is not the destination's time; who was
    not tried has then not ended, and nothing counts as an attempt. `lax`: see `Router.route`; `again`: see `onward`.
    Once `stopped`, no other transaction is begun: who is left has not ended. Raises NotNow too, when the relay itself
    stands in the way.
    """
    try:
        way = await router.route(domain, lax=lax)
        most = pool.recipients_per_message(way) or count
        session = await pool.acquire(way, recipients=min(count, most))
    except Unroutable as error:
        failure = Failure(error.reply, error.bounce_class, permanent=error.permanent)
        return ended(dict.fromkeys(range(count), Attempted(failure)))
    except SessionFailed as failed:
        router.forget(domain)
        return ended(dict.fromkeys(range(count), Attempted(failed.failure, failed.host)))
    ends: dict[int, Attempted] = {}
    try:
        await _transactions(
            way, session, count, most, router, pool, negotiation, envelope, ends, ended, again, stopped
        )
    except Held:
        ended(ends)
        raise
    except BaseException:
        ended({place: end for place, end in ends.items() if _final(end.answer)})
        raise
    ended(ends)


async def _transactions(
    way: Route,
    session: Session,
    count: int,
    most: int,
    router: Router,
    pool: Pool,
    negotiation: Negotiation,
    envelope: Callable[[], Awaitable[Envelope]],
    ends: dict[int, Attempted],
    ended: Callable[[Mapping[int, Attempted]], None],
    again: bool,
    stopped: Callable[[], bool],
) -> None:
    """One after another while more can be done now, with at most `most` recipients each.

    Leaves in `ends` what `ended` was not told.
    """
    pending: Sequence[int] = range(count)
    whole: Envelope | None = None
    passed: list[Peer] = []
    complaint: Sequence[Answer] = ()
    renewed = False
    while True:
        turn, later = pending[:most], pending[most:]
        try:
            whole = whole or await envelope()
        except BaseException:
            pool.release(session)
            raise
        try:
            session = await negotiation.host(session, way, pool, whole, passed, len(turn))
        except SessionFailed as failed:
            ends |= dict.fromkeys(pending, Attempted(failed.failure, failed.host))
            return
        except Held:
            for place in pending:
                ends.pop(place, None)
            raise
        try:
            answers = await negotiation.deliver(session, whole if len(turn) == count else whole.part(turn))
        except BaseException:
            pool.release(session)
            raise
        host, tls, notifies = str(session.peer), session.tls, session.notifies
        ends |= {place: Attempted(answer, host, tls, notifies) for place, answer in zip(turn, answers, strict=True)}
        step, places = onward(answers, content_sent=session.content_sent, again=again)
        if session.content_sent:
            again = False  # twice in one attempt is enough of what may have been taken
        if step is Onward.ANEW and renewed:
            step = Onward.ELSEWHERE
        if step is Onward.ELSEWHERE:
            complaint = answers  # the host's own, should another one serve us
        elif step is not Onward.ANEW:
            pool.heard(way, answers)
            complaint = ()
        pending = [*(turn[place] for place in places), *later]
        if pending and step is Onward.NOTHING:
            step = Onward.AGAIN
        if pending and (taken := [place for place, end in ends.items() if _taken(end.answer)]):
            ended({place: ends.pop(place) for place in taken})
        if pending and stopped():
            pool.release(session)
            for place in pending:
                ends.pop(place, None)
            return
        following: Session | None = None
        try:
            if step is Onward.AGAIN and pool.goes_on(session, min(most, len(pending))):
                following = session
            elif step is Onward.ELSEWHERE and len(passed) + 1 < MAX_SESSIONS:
                passed.append(session.peer)
                following = await pool.elsewhere(session, way, passed)
            else:
                pool.release(session)
                if step in {Onward.AGAIN, Onward.ANEW}:
                    following = await pool.acquire(way, recipients=min(most, len(pending)), fresh=step is Onward.ANEW)
        except SessionFailed as failed:
            if step is Onward.ANEW:
                router.forget(way.domain)
                ends |= dict.fromkeys(pending, Attempted(failed.failure, failed.host))
        except Held:
            for place in pending:
                ends.pop(place, None)
            raise
        if following is None:
            if complaint:
                pool.heard(way, complaint)
            return
        session, renewed = following, step is Onward.ANEW
