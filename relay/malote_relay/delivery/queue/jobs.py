"""Jobs: one message's recipients at one domain, each job a task of its own; or one recipient alone where each gets a
reverse-path of its own.

A job waits for a session, sends, and hands the ends of its recipients over to be written down. Those it did not come
to, because their destination is left alone for now, wait in the store again. So does whoever is in a job that is
cancelled: nothing is known to have happened to them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from malote_relay.config import Delivery
from malote_relay.delivery.answers.outcome import outcome
from malote_relay.delivery.answers.retry import Schedule
from malote_relay.delivery.content import Content
from malote_relay.delivery.conversion.converter import NotNow
from malote_relay.delivery.destinations.destination import Held
from malote_relay.delivery.destinations.pool import Pool
from malote_relay.delivery.dialogue.envelope import Envelope
from malote_relay.delivery.parameters import to_return_path
from malote_relay.delivery.queue.attempt import Attempted, Router, attempt
from malote_relay.delivery.queue.negotiation import Convert, Negotiation, Vain
from malote_relay.delivery.queue.waiting import Stage
from malote_relay.delivery.reply import Failure
from malote_relay.delivery.tls.reporter import is_report
from malote_relay.returnpath import Current, ReturnPaths
from malote_relay.store.contents import Damaged
from malote_relay.store.model import Outcome, Queued, Store
from malote_relay.store.names import domain_of

MAX_RECIPIENTS = 100
"""Recipients in one transaction: what every server must take (RFC 5321 section 4.5.3.1.8)."""

_log = structlog.get_logger("malote.delivery")


@dataclass(eq=False, slots=True)
class Job:
    """Those recipients of one message at one domain that have not ended.

    `begun` once a session is at hand; `outdated` once mail leaves by other ways than when it looked for one.
    """

    domain: str
    recipients: Sequence[Queued]
    content: Content | None = None
    content_bytes: int = 0
    begun: bool = False
    outdated: bool = False

    @property
    def stage(self) -> Stage:
        """How far it has got."""
        return Stage.RUNNING if self.begun else Stage.WAITING


def grouped(queued: Sequence[Queued], paths: ReturnPaths) -> Iterator[tuple[str, Sequence[Queued]]]:
    """The recipients by message and domain, in the order of arrival, in parts that fit one transaction."""
    messages: dict[str, list[Queued]] = {}
    for one in queued:
        messages.setdefault(one.message_id, []).append(one)
    for message, recipients in messages.items():
        alone = paths.applies(recipients[0].reverse_path, message)
        yield from _by_domain(recipients, 1 if alone else MAX_RECIPIENTS)


def _by_domain(queued: Sequence[Queued], most: int) -> Iterator[tuple[str, Sequence[Queued]]]:
    """The recipients of one message by domain, in the order of arrival, in parts of `most` at most."""
    groups: dict[str, list[Queued]] = {}
    for one in queued:
        groups.setdefault(domain_of(one.address), []).append(one)
    for domain, group in groups.items():
        for start in range(0, len(group), most):
            yield domain, group[start : start + most]


class Jobs:
    """The jobs of one relay. `settings` are those in force.

    `ended` gets the outcomes to write down; `put_back` those who wait in the store again, and with them why their
    destination is left alone, where that is the reason; `lost` how many fail because a content is damaged or gone.
    `convert` gives a message in 7 bits. `clock` gives epoch seconds.
    """

    def __init__(
        self,
        store: Store,
        router: Router,
        pool: Pool,
        settings: Delivery,
        *,
        clock: Callable[[], float],
        return_paths: Current,
        convert: Convert,
        ended: Callable[[Sequence[Outcome]], None],
        put_back: Callable[[Job, Held | None], None],
        lost: Callable[[int], None],
    ) -> None:
        self.settings = settings
        self.moved_at = time.monotonic()
        """When, by the monotonic clock, an attempt last began, or its end was written down."""
        self.content_bytes = 0
        """Octets of content that jobs keep from acceptance."""
        self._store = store
        self._router = router
        self._pool = pool
        self._clock = clock
        self._return_paths = return_paths
        self._convert = convert
        self._vain = Vain()
        self._record = ended
        self._put_back = put_back
        self._lost = lost
        self._jobs: dict[asyncio.Task[None], Job] = {}
        self._stopping = False

    def begin(self, job: Job) -> None:
        """Start a job."""
        self.content_bytes += job.content_bytes
        task = spawn(self._work(job), "delivery")
        self._jobs[task] = job
        task.add_done_callback(self._over)

    @property
    def busy(self) -> bool:
        """Whether a transaction is under way."""
        return any(job.begun for job in self._jobs.values())

    def stages(self) -> Iterator[tuple[int, Stage]]:
        """How far it has got with each recipient, by number."""
        for job in self._jobs.values():
            stage = job.stage
            for one in job.recipients:
                yield one.id, stage

    def take_out(self, numbers: Collection[int]) -> set[int]:
        """Take those of these recipients who still wait out of their jobs; the others go back to the store.

        Gives the numbers of those taken.
        """
        taken = set()
        for task, job in self._jobs.items():
            if job.begun:
                continue
            if found := {one.id for one in job.recipients if one.id in numbers}:
                job.recipients = [one for one in job.recipients if one.id not in found]
                task.cancel()
                taken |= found
        return taken

    def withdraw(self) -> None:
        """Cancel the jobs that wait; those begun go on."""
        for task, job in self._jobs.items():
            if not job.begun:
                task.cancel()

    def turn_back(self) -> None:
        """Mail leaves by other ways now: those who wait look for theirs anew, transactions under way are the last."""
        self.withdraw()
        for job in self._jobs.values():
            job.outdated = True

    async def stop(self, grace: float) -> None:
        """Let transactions under way end within `grace` seconds, and no job begin one."""
        self._stopping = True
        self.withdraw()
        if running := [task for task, job in self._jobs.items() if job.begun]:
            await asyncio.wait(running, timeout=grace)
        self.cancel()
        if self._jobs:
            await asyncio.wait(list(self._jobs))

    def cancel(self) -> None:
        """Cancel all of them, whatever they are at."""
        for task in list(self._jobs):
            task.cancel()

    def _over(self, task: asyncio.Task[None]) -> None:
        job = self._jobs.pop(task)
        self.content_bytes -= job.content_bytes
        if task.cancelled():
            self._put_back(job, None)

    async def _work(self, job: Job) -> None:
        recipients = job.recipients
        first = recipients[0]
        replaced = False  # the reverse-path, by one of our own: what is reported to it does not reach the sender

        async def envelope() -> Envelope:
            nonlocal replaced
            job.begun = True
            self.moved_at = time.monotonic()
            try:
                content = job.content or Content(await self._store.content(first.message_id))
            except KeyError as error:
                raise Damaged(f"message {first.message_id}: its content is gone") from error
            reverse_path = first.reverse_path
            if len(recipients) == 1:
                reverse_path = self._return_paths().make(
                    reverse_path, first.message_id, first.address, first.received_at
                )
                replaced = reverse_path != first.reverse_path
            made = Envelope(
                reverse_path=reverse_path,
                recipients=[one.address for one in recipients],
                content=content,
                size=first.size,
                eight_bit=first.eight_bit,
                smtputf8=first.smtputf8,
                dsn=[to_return_path(one.dsn) if replaced else one.dsn for one in recipients],
            )
            if made.smtputf8 and not await asyncio.to_thread(made.needs_utf8):
                return replace(made, smtputf8=False)  # another domain's recipient was the one that needed it
            return made

        def ended(ends: Mapping[int, Attempted]) -> None:
            if replaced:
                ends = {place: replace(end, notifies=False) for place, end in ends.items()}
            self._end([(recipients[place], end) for place, end in sorted(ends.items())])
            done = {recipients[place].id for place in ends}
            job.recipients = [one for one in job.recipients if one.id not in done]

        negotiation = Negotiation(self._convert, self._vain)
        try:
            await attempt(
                job.domain,
                len(recipients),
                self._router,
                self._pool,
                negotiation,
                envelope,
                ended,
                lax=is_report(first),
                again=first.attempts > 0,
                stopped=lambda: self._stopping or self.settings.frozen or job.outdated,
            )
            self._put_back(job, None)
            return
        except Held as held:
            self._put_back(job, held)
            return
        except Damaged as damage:
            await self._set_aside(first.message_id, str(damage))
            self._lost(len(job.recipients))
            words = "554 5.3.0 the message's content was damaged or lost in the relay"
            failure = Failure(words, "other", permanent=True)
        except NotNow as error:
            _log.warning("a message must wait", message=first.message_id, why=str(error))
            failure = Failure(f"451 4.3.1 {error}", "other")
        except Exception as error:
            _log.exception("an attempt failed unexpectedly", message=first.message_id, domain=job.domain)
            words = f"451 4.3.0 internal error of the relay ({type(error).__name__}); it will be tried again"
            failure = Failure(words, "other")
        finally:
            negotiation.close()
        self._end([(one, Attempted(failure)) for one in job.recipients])

    async def _set_aside(self, message: str, what: str) -> None:
        """Nothing that happens here may keep the recipients from being told."""
        kept_as = ""
        try:
            kept_as = await self._store.set_aside(message)
        except Exception:
            _log.exception("a damaged content could not be set aside", message=message)
        _log.error("a content is damaged", message=message, what=what, kept_as=kept_as)

    def _end(self, ends: Sequence[tuple[Queued, Attempted]]) -> None:
        if not ends:
            return
        settings = self.settings
        schedule = Schedule(settings.first_retry_seconds, settings.max_retry_seconds, settings.max_age_seconds)
        now = self._clock()
        self._record(
            [
                outcome(
                    one, end.answer, host=end.host, tls=end.tls, now=now, schedule=schedule, notifies=end.notifies
                )
                for one, end in ends
            ]
        )


def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """A task with a name that says what it is for."""
    return asyncio.get_running_loop().create_task(work, name=name)
