"""What is done with a message that came to a return path or a feedback address.

It is read, matched to the message it is about, and written down as an event; only then there is a positive answer.
Who is believed: a bounce by the return path it came to, which nobody can make up; a complaint by a return path found
in it. The id in the relay's Received field is known to whoever has seen the message, forwarded or on a list, so it
counts only from networks that are configured. Automatic replies, challenges, reports of delays, and what is not
believed or cannot be matched are taken, counted and forgotten.

The sender of a message that came back is told, once for each recipient, before the event is written down: killed in
between, the relay is brought the report again and tells twice rather than never.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import structlog

from malote_relay.bounces import events, original
from malote_relay.bounces.arf import Feedback
from malote_relay.bounces.events import Matched, Report, Status
from malote_relay.bounces.reading import understood
from malote_relay.bounces.text import Kind
from malote_relay.bounces.verdict import Bounce, verdict
from malote_relay.config import RelayConfig
from malote_relay.delivery.notices.due import Due, Reported, due_later
from malote_relay.metrics import BounceMail, Metrics
from malote_relay.returnpath import Current, NotOurs, Token
from malote_relay.store.model import Outcome, Result, StoreError, Tables
from malote_relay.submission.client import is_in

_RECEIVED_ID: Final = re.compile(r"\bid ([0-9a-f]{22})\b")
_MAX_IDS: Final = 10
_TURNS: Final = 64

T = TypeVar("T")

_log = structlog.get_logger("malote.bounces")


@dataclass(frozen=True, slots=True)
class Consequence:
    """What was told of a recipient after delivery, for those who act on it (suppression, pauses of accounts).

    `bounce_class` is "" for a complaint; `permanent` is false for a bounce that may be over soon. `told_before` says
    that it was written down at an earlier time: whoever counts has counted it, unless that failed.
    """

    address: str
    at: float
    message: str
    account: str
    bounce_class: str = ""
    permanent: bool = False
    words: str = ""
    told_before: bool = False


class Acts(Protocol):
    """Who acts on what was told. Called before the answer to who told it, and again if that is told again.

    Raises StoreError when it cannot be done now: then it will be told again.
    """

    async def bounced(self, bounce: Consequence) -> None:
        """A message that had been taken was not delivered after all."""
        ...

    async def complained(self, complaint: Consequence) -> None:
        """A recipient called a message unwanted."""
        ...


class Nothing:
    """Nobody acts."""

    async def bounced(self, bounce: Consequence) -> None:
        """Nothing."""

    async def complained(self, complaint: Consequence) -> None:
        """Nothing."""


Tell = Callable[[Due], Awaitable[None]]
"""Tells a sender, within what senders are told. Raises StoreError when nothing was kept."""


async def nobody(due: Due) -> None:
    """No sender is told."""


FEEDBACK: Final = "feedback"
"""Stands for a feedback address, which names no message."""

Address = Token | str


class Intake:
    """Reads, matches and writes down, and has senders told. `config` and `paths` give those in force."""

    def __init__(
        self,
        tables: Tables,
        config: Callable[[], RelayConfig],
        paths: Current,
        clock: Callable[[], float],
        metrics: Metrics,
        acts: Acts | None = None,
        tell: Tell = nobody,
    ) -> None:
        self.acts: Acts = acts or Nothing()
        self._tell = tell
        # Reports about one message come in one after the other: what one tells, the next one finds told.
        self._turns = [asyncio.Lock() for _ in range(_TURNS)]
        # Those whose event could not be written since: whoever reports again and again must not be told so often.
        self._told: set[tuple[str, bytes]] = set()
        # Threads that read beside each other take the interpreter's lock from whoever serves clients, and from the
        # threads that others need.
        self._reading = asyncio.Lock()
        self._tables = tables
        self._config = config
        self._paths = paths
        self._clock = clock
        self._metrics = metrics

    def address(self, path: str) -> Address:
        """What a recipient's address stands for. Raises NotOurs."""
        if path.lower() in {one.lower() for one in self._config().bounces.feedback_addresses}:
            return FEEDBACK
        return self._paths().read(path, self._clock())

    async def take(self, address: Address, content: bytes, client: str = "") -> None:
        """Take a message in that a client brought, by its address.

        Raises StoreError: nothing was kept then, and it must come again.
        """
        found = await self._read(understood, content)
        if isinstance(found, Feedback):
            await self._complaint(address, found, content, client)
            return
        if isinstance(found, Kind):
            self._count(_KINDS[found])
            return
        bounce = verdict(found)
        if bounce is None:
            self._count(BounceMail.NO_FAILURE)
            return
        await self._bounce(address, bounce, content)

    async def _read(self, parser: Callable[[bytes], T], content: bytes) -> T:
        """What a parser makes of it, in a thread: one message at a time."""
        async with self._reading:
            return await asyncio.to_thread(parser, content)

    async def _bounce(self, address: Address, bounce: Bounce, content: bytes) -> None:
        now = self._clock()
        token = address if isinstance(address, Token) else next(iter(self._paths().found_in(content, now)), None)
        if token is None:
            self._count(BounceMail.UNMATCHED)
            return
        report = Report(
            Status.BOUNCED, now, token.message, bounce.bounce_class, bounce.words, bounce.host, token.mark
        )
        async with self._turns[hash(token.message) % _TURNS]:
            found = await self._tables.read(events.looking(report))
            key = (token.message, token.mark)
            if found is not None and not (found.told or key in self._told):
                await self._tell_sender(found, bounce, content, now)
                self._told.add(key)
            matched = await self._tables.write(events.recording(report))
            self._told.discard(key)
        if matched is None:
            self._count(BounceMail.UNMATCHED)
            return
        self._count(BounceMail.KNOWN if matched.known else BounceMail.BOUNCE)
        if not matched.known:
            self._metrics.async_bounces.labels(bounce.bounce_class).inc()
        self._say("bounced", report, matched)
        await self.acts.bounced(
            Consequence(
                matched.recipient,
                now,
                token.message,
                matched.account,
                bounce.bounce_class,
                bounce.permanent,
                bounce.words,
                matched.known,
            )
        )

    async def _tell_sender(self, found: Matched, bounce: Bounce, content: bytes, now: float) -> None:
        """Tell the sender of what came back. Raises StoreError."""
        if not self._config().bounces.tell_senders:
            return
        outcome = Outcome(found.queued, Result.FAILED, now, bounce.words, bounce.bounce_class, bounce.host)
        header = await self._read(original.header, content)
        due = due_later(outcome, Reported(bounce.status, bounce.diagnostic, header))
        if due is None:
            return
        try:
            await self._tell(due)
        except StoreError:
            raise
        except Exception:  # a defect in the telling must not keep the bounce itself from being taken in
            _log.exception("a sender could not be told of a bounce", message=found.queued.message_id)

    async def _complaint(self, address: Address, feedback: Feedback, content: bytes, client: str) -> None:
        if not feedback.kind.complaint:
            self._count(BounceMail.NO_FAILURE)
            return
        now = self._clock()
        words = f"feedback: {feedback.kind.value}"
        meant = self._named(address, feedback, content, now)
        if not meant:
            ids = [found[1] for found in _RECEIVED_ID.finditer(feedback.trace)]
            meant = [(one, b"") for one in list(dict.fromkeys(ids))[:_MAX_IDS]]
            if not self._is_known(client):
                self._count(BounceMail.UNBELIEVED)
                _log.warning(
                    "a complaint is not believed: it has no return path in it, and its client is in none of "
                    "bounces.feedbackNetworks",
                    client=client,
                    program=feedback.user_agent,
                    message=meant[0][0] if meant else "",
                )
                return
        for message, mark in meant:
            for recipient in [""] if mark else [*feedback.recipients, ""]:
                report = Report(
                    Status.COMPLAINED, now, message, "complaint", words, feedback.user_agent, mark, recipient
                )
                matched = await self._tables.write(events.recording(report))
                if matched is None:
                    continue
                self._count(BounceMail.KNOWN if matched.known else BounceMail.COMPLAINT)
                if not matched.known:
                    self._metrics.complaints.inc()
                self._say("complained", report, matched)
                await self.acts.complained(
                    Consequence(
                        matched.recipient, now, message, matched.account, words=words, told_before=matched.known
                    )
                )
                return
        self._count(BounceMail.UNMATCHED)

    def _named(self, address: Address, feedback: Feedback, content: bytes, now: float) -> list[tuple[str, bytes]]:
        """The message that a return path of ours names, and the recipient's mark: none, or one."""
        if isinstance(address, Token):
            return [(address.message, address.mark)]
        try:
            tokens = [self._paths().read(feedback.reverse_path, now)]
        except NotOurs:
            tokens = self._paths().found_in(content, now)[:1]
        return [(token.message, token.mark) for token in tokens]

    def _is_known(self, client: str) -> bool:
        """Whether it is a mailbox provider's, which need not show a return path."""
        return is_in(client, map(ipaddress.ip_network, self._config().bounces.feedback_networks))

    def _count(self, kind: BounceMail) -> None:
        self._metrics.bounce_mail.labels(kind.value).inc()
        _log.info("bounce mail", kind=kind.value)

    def _say(self, what: str, report: Report, matched: Matched) -> None:
        _log.info(
            what,
            message=report.message,
            recipient=matched.recipient,
            account=matched.account,
            bounce_class=report.bounce_class,
            reply=report.words,
            host=report.host,
        )


_KINDS: Final = {
    Kind.BOUNCE: BounceMail.UNKNOWN,
    Kind.AUTOMATIC_REPLY: BounceMail.AUTOMATIC_REPLY,
    Kind.CHALLENGE: BounceMail.CHALLENGE,
    Kind.UNKNOWN: BounceMail.UNKNOWN,
}
