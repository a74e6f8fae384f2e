"""The hour's invariants of the parts together: the door, the window, and the store on a real file.

Sessions run as tasks that stop wherever they wait for something: for the sender's check, for the signature, for the
commit, for the moment between the commit and the answer. Any other step may come in between: another session's, a
step of the clock, another plan, a full disk, a delivery, a crash. A crash drops the window and every session, and
what the database has is all there is. After each step the database is asked.
"""

from __future__ import annotations

import asyncio
import contextvars
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.unit.relay.quota.examples import search

from malote_relay import config
from malote_relay.metrics import Metrics
from malote_relay.quota import HourWindow, start_of
from malote_relay.store.model import ClockBack, DiskFull, NewMessage, Outcome, Queued, Respread, Result
from malote_relay.store.sqlite import SqliteStore
from malote_relay.submission.acceptance import Door, Transaction
from malote_relay.submission.address import Mailbox
from malote_relay.submission.body import Spool
from malote_relay.submission.commands import Mail, Rcpt
from malote_relay.submission.desk import StoreDesk
from malote_relay.submission.policy import Rules
from malote_relay.submission.replies import Reply

FIRST = start_of(480_000)
ACCOUNT = config.Account(name="app", username="app@acme", verifier="sha256:AA==:" + "A" * 43 + "=")
CONTENT = b"From: ana@acme.example\r\nSubject: hi\r\n\r\nbody\r\n"
LARGE = CONTENT + b"a line\r\n" * 40_000

# Small, so that a few steps reach what is interesting.
limits = st.integers(1, 4)
percents = st.sampled_from([0, 50, 100, 100])
steps_of_the_clock = st.sampled_from(
    [60.0, 60.0, 1800.0, 3600.0, 3600.0, 7200.0, -1800.0, -3600.0, -7200.0, 500_000.0]
)

current: contextvars.ContextVar[Session] = contextvars.ContextVar("session")


class Session:
    """One client's transaction, and where it waits."""

    def __init__(self) -> None:
        self.transaction: Transaction
        self.refused = 0
        self.fails = False
        self.on_its_way: list[int] = []  # the hours of a message's recipients that the store has and will not keep
        self.gate: asyncio.Future[None] | None = None
        self.task: asyncio.Task[Reply] | None = None

    @property
    def resting(self) -> bool:
        """Whether nothing of it runs by itself."""
        return self.task is None or self.task.done() or self.gate is not None


async def stop_here() -> None:
    """Wait until the machine lets this session go on."""
    session = current.get()
    session.gate = asyncio.get_running_loop().create_future()
    try:
        await session.gate
    finally:
        session.gate = None


class Signer:
    async def sign(self, domain: str, content: bytes | Path) -> bytes:
        await stop_here()
        return b""


class Senders:
    async def check(self, sender: Mailbox) -> tuple[Reply | None, bool]:
        if current.get().task is not None:  # after DATA
            await stop_here()
        return None, False


class Nobody:
    async def check(self, _: object) -> Reply | None:
        return None


class Clock:
    def __init__(self) -> None:
        self.time = FIRST

    def now(self) -> float:
        return self.time


class SlowStore(SqliteStore):
    """The real store, whose answers come when the machine wants, and which fails when it wants."""

    kept: Callable[[NewMessage], None]

    async def accept(self, message: NewMessage) -> Sequence[Queued]:
        # As in the real one nothing is awaited before the message is handed to the writer.
        self.kept(message)
        session = current.get()
        if session.fails:
            session.on_its_way = [recipient.hour for recipient in message.recipients]
            try:
                await stop_here()
            finally:
                session.on_its_way = []
            raise DiskFull("the disk is full")
        queued = await super().accept(message)
        await stop_here()
        return queued


class Machine(RuleBasedStateMachine):
    """The relay's parts as `main` puts them together, and what has been answered."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = Path(
            tempfile.mkdtemp(prefix="malote-door-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        )
        self.clock = Clock()
        self.sessions: list[Session] = []
        self.metrics = Metrics()
        self.acknowledged: dict[str, int] = {}
        self.ended: Counter[str] = Counter()
        self.highest: Counter[int] = Counter()  # the largest limit an hour has seen
        self.shrunk = False
        self.store: SlowStore | None = None

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    @initialize(limit=limits, percent=percents)
    def start(self, limit: int, percent: int) -> None:
        self.limit, self.percent = limit, percent
        self.run(self.open())

    async def open(self) -> None:
        self.store = store = SlowStore(self.directory / "spool")
        store.kept = self.charged_as_promised
        recovered = await store.open()
        assert recovered.quarantined == ()
        self.reading = sqlite3.connect(self.directory / "spool" / "relay.db")
        self.window = HourWindow(self.limit, self.percent, recovered.hours, recovered.latest_hour)
        settings = self.config()
        self.door = Door(
            rules=Rules(settings),
            signer=Signer(),
            senders=Senders(),
            recipients=Nobody(),
            accounts=Nobody(),
            desk=StoreDesk(self.window, store, self.clock, self.metrics, lambda queued, content: None),
            spool=Spool(store.incoming, settings.limits),
            clock=self.clock,
            metrics=self.metrics,
        )
        await self.respread(self.window.settle(self.clock.now()))
        await self.housekeeping()

    def config(self) -> config.RelayConfig:
        return config.RelayConfig(
            tenant="acme",
            hostname="relay.example",
            plan=config.Plan(name="p", messages_per_hour=self.limit, tolerance_percent=self.percent),
            delivery=config.Delivery(helo_name="out.example"),
            submission=config.Submission(open=True),
            accounts=(ACCOUNT,),
            domains=(config.Domain(name="acme.example", sending=True),),
            limits=config.Limits(min_free_bytes=0),
        )

    async def respread(self, plan: Respread | None) -> None:
        assert self.store is not None
        if plan is not None:
            await self.store.respread(plan)
            for hour, _ in plan.hours:
                self.highest[hour] = max(self.highest[hour], self.limit)

    async def housekeeping(self) -> None:
        assert self.store is not None
        now = self.clock.now()
        await self.store.clock_went_back(ClockBack(now, self.window.usage(now).hour, now + 3600))

    @property
    def hour(self) -> int:
        return self.window.usage(self.clock.now()).hour

    def charged_as_promised(self, message: NewMessage) -> None:
        """When a message is handed over: what is held is held for a reason, and after what is released."""
        usage = self.window.usage(self.clock.now())
        held = [recipient.not_before > 0 for recipient in message.recipients]
        assert held == sorted(held), "what can go at once comes first"
        if any(held):
            assert usage.held > sum(held) or usage.charged >= self.limit, "an hour with nothing held delays nobody"
        for recipient in message.recipients:
            assert recipient.not_before == (start_of(recipient.hour) if recipient.not_before else 0.0)
            assert (recipient.hour > usage.hour) == (recipient.not_before > 0)
            self.highest[recipient.hour] = max(self.highest[recipient.hour], self.limit)

    # What clients do.

    def those(self, *, in_data: bool) -> list[Session]:
        return [session for session in self.sessions if (session.task is not None) is in_data]

    @rule(pick=st.integers(0, 2), recipients=st.integers(1, 4))
    def envelope(self, pick: int, recipients: int) -> None:
        talking = self.those(in_data=False)
        if pick < len(talking):
            session = talking[pick]
        else:
            session = Session()
            current.set(session)
            begun = self.run(self.door.begin(ACCOUNT, Mail(Mailbox("ana", "acme.example"))))
            assert isinstance(begun, Transaction)
            session.transaction = begun
            self.sessions.append(session)
        for _ in range(recipients):
            place = len(session.transaction.recipients) + session.refused
            rcpt = Rcpt(Mailbox(f"b{place}", "x.example"))
            reply = self.run(self.door.add_recipient(session.transaction, rcpt))
            session.refused += reply.code != 250

    @rule(recipients=st.integers(1, 4))
    def whole_message(self, recipients: int) -> None:
        """From MAIL to the answer, with nothing in between."""
        self.envelope(len(self.sessions), recipients)
        session = self.sessions[-1]
        if not session.transaction.recipients:
            self.sessions.remove(session)
            return
        current.set(session)
        session.task = self.loop.create_task(self.data(session, CONTENT))
        self.run(self.rest())
        self.go_on(len(self.those(in_data=True)) - 1, 4, True)

    @precondition(lambda self: self.those(in_data=False))
    @rule(pick=st.integers(0, 2))
    def reset(self, pick: int) -> None:
        session = self.those(in_data=False)[pick:][:1] or self.those(in_data=False)[:1]
        self.sessions.remove(session[0])
        self.door.abandon(session[0].transaction)

    @precondition(lambda self: any(session.transaction.recipients for session in self.those(in_data=False)))
    @rule(large=st.sampled_from([False] * 7 + [True]), fails=st.sampled_from([False] * 3 + [True]))
    def content(self, large: bool, fails: bool) -> None:
        session = next(session for session in self.those(in_data=False) if session.transaction.recipients)
        session.fails = fails
        current.set(session)
        session.task = self.loop.create_task(self.data(session, LARGE if large else CONTENT))
        self.run(self.rest())

    async def data(self, session: Session, content: bytes) -> Reply:
        body = self.door.body()
        try:
            body.write(content)
            return await self.door.accept(session.transaction, body, "ESMTPSA")
        finally:
            self.door.abandon(session.transaction)
            body.discard()

    @precondition(lambda self: self.those(in_data=True))
    @rule(pick=st.integers(0, 2), steps=st.integers(1, 4), stays=st.sampled_from([True, True, True, False]))
    def go_on(self, pick: int, steps: int, stays: bool) -> None:
        """A client that has gone meanwhile ends nothing: it only does not read the answer."""
        busy = self.those(in_data=True)
        session = busy[pick % len(busy)]
        assert session.task is not None
        for _ in range(steps):
            if session.gate is not None:
                session.gate.set_result(None)
                self.run(self.rest())
        if session.task.done():
            self.sessions.remove(session)
            reply = session.task.result()
            assert (reply.code == 250) is not session.fails
            if reply.code == 250 and stays:
                self.acknowledged[reply.text.rpartition(" ")[2]] = len(session.transaction.recipients)

    async def rest(self) -> None:
        while not all(session.resting for session in self.sessions):  # noqa: ASYNC110  # threads take part
            await asyncio.sleep(0.0002)

    # What happens around them.

    @rule(seconds=steps_of_the_clock)
    def time(self, seconds: float) -> None:
        self.clock.time = max(0.0, self.clock.time + seconds)

    @rule()
    def clock_was_moved(self) -> None:
        self.run(self.housekeeping())

    @rule(limit=limits, percent=percents)
    def plan(self, limit: int, percent: int) -> None:
        self.shrunk |= limit < self.limit or limit * percent < self.limit * self.percent
        self.limit, self.percent = limit, percent
        self.door.reconfigure(Rules(self.config()), Signer())
        self.run(self.respread(self.window.set_plan(limit, percent, self.clock.now())))

    @rule(count=st.integers(1, 5))
    def deliver(self, count: int) -> None:
        assert self.store is not None
        now = self.clock.now()
        due = self.run(self.store.due(now, count))
        self.run(self.store.record([Outcome(one, Result.DELIVERED, now, "250 ok") for one in due]))
        self.ended.update(one.message_id for one in due)

    @precondition(lambda self: self.store is not None)
    @rule(limit=limits)
    def crash(self, limit: int) -> None:
        """Between any two steps: what was handed to the store is committed or was not handed to it."""
        assert self.store is not None
        self.run(self.drop_sessions())
        self.reading.close()
        self.run(self.store.close())
        self.shrunk |= limit < self.limit
        self.limit = limit
        self.run(self.open())

    async def drop_sessions(self) -> None:
        tasks = [session.task for session in self.sessions if session.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.sessions.clear()

    # What holds.

    def ask(self, question: str, *arguments: object) -> list[Any]:
        return self.reading.execute(question, arguments).fetchall()

    @invariant()
    def the_disk_keeps_every_promise(self) -> None:
        if self.store is None:
            return
        usage, tolerance = self.window.usage(self.clock.now()), self.limit * self.percent // 100
        self.highest[usage.hour] = max(self.highest[usage.hour], self.limit)
        hours = {hour: (charged, held) for hour, charged, held in self.ask("SELECT hour, charged, held FROM hours")}
        for hour, (charged, held) in hours.items():
            assert 0 <= held <= charged
            assert charged <= (self.limit if hour > usage.hour else self.highest[hour]), "never beyond the limit"
            if hour > usage.hour and not self.shrunk:
                assert held <= tolerance
                assert hour == usage.hour + 1
        waiting = self.ask(
            "SELECT m.id, r.hour, r.next_attempt_at FROM recipients r JOIN messages m ON m.seq = r.id >> 16"
            " ORDER BY r.id"
        )
        # Every charge has its recipient.
        assert sum(charged for charged, _ in hours.values()) == len(waiting) + self.ended.total()
        later = {hour: charged for hour, (charged, _) in hours.items() if hour > usage.hour and charged}
        assert later == Counter(hour for _, hour, _ in waiting if hour > usage.hour)
        # Nothing acknowledged is gone.
        kept = Counter(message for message, _, _ in waiting)
        assert all(kept[one] + self.ended[one] == recipients for one, recipients in self.acknowledged.items())
        # The order of arrival is kept, and nothing goes before its hour.
        assert [hour for _, hour, _ in waiting] == sorted(hour for _, hour, _ in waiting)
        assert all(at >= start_of(hour) for _, hour, at in waiting if hour > usage.hour)
        # What is reserved is what open transactions have.
        assert usage.reserved == sum(len(session.transaction.units) for session in self.sessions)
        # With less in memory than on disk an hour would be sold twice; with more units would not be given back.
        charged = sum(charged for hour, (charged, _) in hours.items() if hour >= usage.hour)
        on_its_way = sum(hour >= usage.hour for session in self.sessions for hour in session.on_its_way)
        assert usage.charged + usage.held == charged + on_its_way

    def teardown(self) -> None:
        try:
            self.run(self.drop_sessions())
            if self.store is not None:
                self.reading.close()
                self.run(self.store.close())
        finally:
            self.loop.close()
            shutil.rmtree(self.directory)


TestMachine = Machine.TestCase
TestMachine.settings = search(40, 40)
