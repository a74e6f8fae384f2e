"""What a message needs and a host may lack: 8BITMIME (RFC 6152) and SMTPUTF8 (RFC 6531).

A domain's hosts need not be alike: before a message is made less, or goes back, the others are asked. That costs
sessions, so what was found out about a destination holds for some minutes. Where none takes 8-bit content, the
message is converted, once in an attempt, however many transactions that has.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeVar

from malote_relay.delivery.conversion.converter import Converted
from malote_relay.delivery.conversion.fields import Unconvertible
from malote_relay.delivery.destinations.pool import Pool
from malote_relay.delivery.dialogue.connection import Session
from malote_relay.delivery.dialogue.envelope import Envelope
from malote_relay.delivery.dialogue.fitness import unconvertible
from malote_relay.delivery.dialogue.wire import SessionFailed
from malote_relay.delivery.peer import Peer
from malote_relay.delivery.reply import Answer, Failure
from malote_relay.delivery.route import Route
from malote_relay.store.contents import StoredFile

VAIN_SECONDS = 600.0
"""How long it holds that none of a destination's hosts offers an extension, as far as they can be reached."""

MAX_ASKED = 3
"""Hosts asked for an extension in one attempt."""

_MAX_KEPT = 1000

T = TypeVar("T")

Convert = Callable[[bytes | StoredFile], Awaitable[Converted]]
"""Gives a message in 7 bits. Raises Unconvertible."""


class Vain:
    """Which destinations lack which extension. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: dict[tuple[str, str], tuple[float, bool]] = {}

    def known(self, route: Route, extension: str) -> bool | None:
        """Whether all of the route's hosts were asked for this extension in vain; None: ask them."""
        until, all_asked = self._found.get((route.destination, extension), (0.0, False))
        return all_asked if until > self._clock() else None

    def add(self, route: Route, extension: str, *, all_asked: bool) -> None:
        """None of the route's hosts offers it, as far as they could be asked."""
        if len(self._found) >= _MAX_KEPT:
            self._found.clear()
        self._found[route.destination, extension] = self._clock() + VAIN_SECONDS, all_asked


class Negotiation:
    """For one attempt: the host that fits the message, or the message that fits the host. `close` it at the end."""

    def __init__(self, convert: Convert, vain: Vain) -> None:
        self._convert = convert
        self._vain = vain
        self._asked: list[Peer] = []
        self._all_asked = True
        self._converted: Converted | Unconvertible | None = None

    async def host(
        self,
        session: Session,
        route: Route,
        pool: Pool,
        envelope: Envelope,
        passed: Collection[Peer],
        recipients: int,
    ) -> Session:
        """This session, or one with another host, none of `passed`, that offers what the message needs.

        The session is given back when it is exchanged, and when this raises: SessionFailed, Held.
        """
        while True:
            try:
                extension = await _answer(session.lacks, envelope)
            except BaseException:
                pool.release(session)
                raise
            if not extension:
                return session
            if (known_vain := self._vain.known(route, extension)) is not None:
                self._all_asked = known_vain
                return session
            self._asked.append(session.peer)
            names = {one.name for one in self._asked}
            peers = pool.peers(route)
            known = [*passed, *self._asked, *(one for one in peers if one.name in names)]
            if len(self._asked) >= MAX_ASKED or all(one in known for one in peers):
                self._all_asked = not passed
                if not passed:
                    self._vain.add(route, extension, all_asked=True)
                return session
            other: Session | None = None
            try:
                other = await pool.elsewhere(session, route, known)
            except SessionFailed:
                self._vain.add(route, extension, all_asked=False)
            session = other or await pool.acquire(route, recipients=recipients)

    async def deliver(self, session: Session, envelope: Envelope) -> Sequence[Answer]:
        """Run a transaction with the message, converted where the host wants it so. Raises NotNow, Damaged."""
        if not await _answer(session.wants_seven_bits, envelope):
            return [self._for_now(answer) for answer in await session.deliver(envelope)]
        if self._converted is None:
            try:
                self._converted = await self._convert(envelope.content.source)
            except Unconvertible as error:
                self._converted = error
        if isinstance(self._converted, Unconvertible):
            refusal = self._for_now(unconvertible(session.peer, str(self._converted)))
            return [refusal] * len(envelope.recipients)
        return await session.deliver(
            replace(envelope, content=self._converted.content, size=self._converted.size, eight_bit=False)
        )

    def _for_now(self, answer: Answer) -> Answer:
        """What this host lacks ends nothing while another that may have it could not be asked."""
        if self._all_asked or not (isinstance(answer, Failure) and answer.permanent and answer.lacking):
            return answer
        return Failure(
            f"451 4.4.1 {answer.words.partition(' ')[2].partition(' ')[2]}; another host may", "connection"
        )

    def close(self) -> None:
        """Forget the converted message."""
        if isinstance(self._converted, Converted):
            self._converted.discard()
        self._converted = None


async def _answer(question: Callable[[Envelope], T], envelope: Envelope) -> T:
    """The answer; from a thread where the header may have to be read from disk for it."""
    return await asyncio.to_thread(question, envelope) if envelope.smtputf8 else question(envelope)
