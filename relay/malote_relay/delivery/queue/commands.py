"""What can be asked of the queue and told to it while the relay runs: the commands `queue`, `why`, `destinations`,
`retry` and `drop` of `malote-relayctl`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated, Final, Literal

from malote_relay.control.fields import Answer, Nothing, Octets, Request, Seconds, Time, option, positional
from malote_relay.control.registry import Controls, Refused
from malote_relay.delivery.queue.scheduler import Scheduler, Unattempted
from malote_relay.delivery.queue.waiting import Waiting
from malote_relay.resolver import NoSuchDomain, ascii_name
from malote_relay.store import queue
from malote_relay.store.model import Queued, Tables
from malote_relay.store.names import domain_of
from malote_relay.store.queue import Event, Filter, Waiter

DROPPED: Final = "554 5.0.0 taken off the queue by the relay's operator"

_WRITE_AT_ONCE: Final = 500
_WRITTEN_SECONDS: Final = 10.0

_MESSAGE = "the message's id: the one in the reply to DATA, in the log and in the reports"


class ListQueue(Request, frozen=True, kw_only=True):
    """Arguments of `queue`."""

    domain: Annotated[str, option("only recipients at this domain")] = ""
    account: Annotated[str | None, option("only what this account sent")] = None
    state: Annotated[Literal["ready", "deferred", "held"] | None, option("only these")] = None
    limit: Annotated[int, option("at most so many; 0 for all", ge=0)] = 100


class QueueRow(Answer, frozen=True, kw_only=True):
    """A recipient that waits."""

    message: str
    state: str
    age: Seconds
    size: Octets
    sender: str
    recipient: str
    attempts: int
    next_attempt: Time
    why: str
    until: Time
    last_reply: str


class AboutMessage(Request, frozen=True, kw_only=True):
    """Arguments of `why`."""

    message: Annotated[str, positional(_MESSAGE)]


class WhyRow(Answer, frozen=True, kw_only=True):
    """Where a recipient of the message stands.

    `until`: when it changes by itself; `given_up`: when it is too old; `ended`: when it came to its end.
    """

    recipient: str
    state: str
    why: str
    until: Time = None
    given_up: Time = None
    ended: Time = None
    attempts: int
    last_reply: str


class Retry(Request, frozen=True, kw_only=True):
    """Arguments of `retry`."""

    message: Annotated[str, positional(_MESSAGE)] = ""
    domain: Annotated[str, option("all that waits for this domain")] = ""


class Drop(Request, frozen=True, kw_only=True):
    """Arguments of `drop`."""

    message: Annotated[str, positional(_MESSAGE)]
    recipient: Annotated[str, option("only this one of its recipients")] = ""
    notify: Annotated[bool, option("tell the sender, as of any failure")] = False


class Done(Answer, frozen=True, kw_only=True):
    """What was done."""

    recipients: int
    said: str


class DestinationRow(Answer, frozen=True, kw_only=True):
    """A set of mail hosts that the relay has to do with now."""

    destination: str
    provider: str
    connections: int
    idle: int
    limit: int
    per_minute: float | None
    in_line: int
    until: Time
    why: str


class QueueCommands:
    """The commands' work. `clock` gives epoch seconds."""

    def __init__(self, tables: Tables, scheduler: Scheduler, clock: Callable[[], float]) -> None:
        self._tables = tables
        self._scheduler = scheduler
        self._clock = clock

    def register(self, controls: Controls) -> None:
        """Make them known."""
        controls.rows("queue", "List what waits, in the order of arrival.", ListQueue, QueueRow, self.queue)
        controls.rows(
            "why",
            "Say of each recipient of a message why it waits and until when, or how it ended.",
            AboutMessage,
            WhyRow,
            self.why,
        )
        controls.rows(
            "destinations",
            "List the destinations with connections, limits and what they wait for.",
            Nothing,
            DestinationRow,
            self.destinations,
        )
        controls.one(
            "retry",
            "Try now what was deferred: one message, or all for a domain. What is held for its hour stays held.",
            Retry,
            Done,
            self.retry,
        )
        controls.one(
            "drop",
            "Take a message off the queue: it ends as failed. The sender is not told, unless --notify is given.",
            Drop,
            Done,
            self.drop,
        )

    async def queue(self, asked: ListQueue) -> AsyncIterator[QueueRow]:
        """The rows of `queue`."""
        wanted = Filter(_domain(asked.domain), asked.account, asked.state or "")
        left = asked.limit or None
        place: int | None = 0
        while place is not None:
            now = self._clock()
            found, place = await self._tables.read(partial(queue.step, after=place, wanted=wanted, now=now))
            stages = self._scheduler.stages()
            for one in found[:left]:
                yield _queue_row(one, self._scheduler.why(one.queued, stages, last_class=one.last_class), now)
            if left is not None:
                left -= len(found)
                if left <= 0:
                    return

    async def why(self, asked: AboutMessage) -> AsyncIterator[WhyRow]:
        """The rows of `why`: those that wait first."""
        known = False
        place = 0
        while found := await self._tables.read(partial(queue.waiters, message=asked.message, after=place)):
            known = True
            stages = self._scheduler.stages()
            for one in found:
                place = one.queued.id
                reason = self._scheduler.why(one.queued, stages, last_class=one.last_class)
                yield WhyRow(
                    recipient=one.queued.address,
                    state=_state(one.queued, self._clock()),
                    why=reason.words,
                    until=reason.until,
                    given_up=one.queued.released_at + self._scheduler.max_age,
                    attempts=one.queued.attempts,
                    last_reply=one.last_reply,
                )
        place = 0
        while ended := await self._tables.read(partial(queue.endings, message=asked.message, after=place)):
            known = True
            for place, event in ended:  # noqa: B007  # the last one is where the next step begins
                yield _ended_row(event)
        if not known:
            raise Refused(f"no message {asked.message!r} waits here, and the events kept know of none")

    async def destinations(self, asked: Nothing) -> AsyncIterator[DestinationRow]:
        """The rows of `destinations`."""
        for one in self._scheduler.destinations():
            yield DestinationRow(
                destination=one.name,
                provider=one.provider,
                connections=one.connections,
                idle=one.idle,
                limit=one.limit,
                per_minute=one.rate,
                in_line=one.in_line,
                until=self._clock() + one.seconds if one.why else None,
                why=one.why,
            )

    async def retry(self, asked: Retry) -> Done:
        """Bring what was deferred forward."""
        if bool(asked.message) == bool(asked.domain):
            raise Refused("retry: name a message, or --domain and a domain, and not both")
        changed = seen = 0
        domain = _domain(asked.domain)
        domains = {domain} if domain else set()
        place: int | None = 0
        while place is not None:
            now = self._clock()
            if asked.message:
                found = await self._tables.read(partial(queue.waiters, message=asked.message, after=place))
                place = found[-1].queued.id if found else None
                domains.update(domain_of(one.queued.address) for one in found)
            else:
                wanted = Filter(domain, state="deferred")
                found, place = await self._tables.read(partial(queue.step, after=place, wanted=wanted, now=now))
            seen += len(found)
            numbers = [one.queued.id for one in found if one.queued.attempts and one.queued.next_attempt_at > now]
            for start in range(0, len(numbers), _WRITE_AT_ONCE):
                part = numbers[start : start + _WRITE_AT_ONCE]
                changed += await self._tables.write(partial(queue.bring_due, numbers=part, now=now))
        if asked.message and not seen:
            raise Refused(f"no message {asked.message!r} waits here")
        for one in domains:
            self._scheduler.retry_now(one)
        when = "as soon as delivery is not stopped any more (delivery.frozen)" if self._scheduler.frozen else "now"
        return Done(
            recipients=changed,
            said=f"{changed} of {seen} that wait are tried {when}; the others were due, or are held",
        )

    async def drop(self, asked: Drop) -> Done:
        """Give a message's recipients up."""
        taken: list[Queued] = []
        recipient = _address(asked.recipient)
        seen = place = 0
        while True:
            with self._scheduler.reading():
                found = await self._tables.read(partial(queue.waiters, message=asked.message, after=place))
                wanted = [one.queued for one in found if recipient in ("", one.queued.address)]
                some = self._scheduler.conclude([Unattempted(one, DROPPED) for one in wanted], tell=asked.notify)
            if not found:
                break
            place = found[-1].queued.id
            seen += len(wanted)
            if not await self._scheduler.written(some, _WRITTEN_SECONDS):
                raise Refused("they are taken off the queue, but that could not be written down yet: see the log")
            taken += some
        if not seen:
            of = f" for {recipient!r}" if recipient else ""
            raise Refused(f"no message {asked.message!r}{of} waits here")
        under_way = seen - len(taken)
        said = f"{len(taken)} taken off the queue"
        if under_way:
            said += f"; {under_way} left: being sent right now, or just ended"
        return Done(recipients=len(taken), said=said)


def _domain(text: str) -> str:
    """A domain as the queue has it, however it was written: lower-case A-labels. "" stays what it is."""
    try:
        name = ascii_name(text.removeprefix("@")) if text else ""
    except NoSuchDomain as error:
        raise Refused(str(error)) from error
    if text and not name:
        raise Refused(f"{text!r} is not a domain name")
    return name


def _address(text: str) -> str:
    """An address as the queue has it. Only its host knows whether the case of its local part matters."""
    local, at, host = text.rpartition("@")
    return f"{local}{at}{_domain(host)}"


def _state(queued: Queued, now: float) -> str:
    if queued.attempts:
        return "deferred"
    return "held" if queued.next_attempt_at > now else "ready"


def _queue_row(one: Waiter, reason: Waiting, now: float) -> QueueRow:
    queued = one.queued
    return QueueRow(
        message=queued.message_id,
        state=_state(queued, now),
        age=max(0.0, now - queued.received_at),
        size=queued.size,
        sender=queued.reverse_path or "<>",
        recipient=queued.address,
        attempts=queued.attempts,
        next_attempt=queued.next_attempt_at,
        why=reason.words,
        until=reason.until,
        last_reply=one.last_reply,
    )


def _ended_row(event: Event) -> WhyRow:
    by = f" by {event.host}" if event.host else ""
    if event.status == "delivered":
        why = f"it was taken{by} over {event.tls}" if event.tls else f"it was taken{by}, unencrypted"
    elif event.status == "bounced":
        why = f"it came back later, in a bounce ({event.bounce_class})"
    elif event.status == "complained":
        why = "its recipient complained of it"
    else:
        why = f"it failed at {event.host}" if event.host else "it failed"  # who refused it, the words tell
        why += f" ({event.bounce_class})" if event.bounce_class else ""
    return WhyRow(
        recipient=event.recipient,
        state=event.status,
        why=why,
        ended=event.at,
        attempts=event.attempt,
        last_reply=event.reply,
    )
