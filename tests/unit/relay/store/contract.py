"""What every store must do, said as tests against the protocol. Subclass and give `make_store`.

`make_store()` gives a store over the same place each time: closing one and opening the next is a restart.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import pytest

from malote_relay.store.contents import StoredFile
from malote_relay.store.model import (
    ClockBack,
    DsnRequest,
    HourCharge,
    NewMessage,
    NewRecipient,
    Notify,
    Outcome,
    Queued,
    QueueState,
    Respread,
    Result,
    Return,
    Store,
    StoreError,
)

HOUR = 480_000
NOW = HOUR * 3600.0 + 100.0
BODY = b"From: ana@acme.example\r\nSubject: hi\r\n\r\nbody\r\n"
_numbers = itertools.count()


def message(
    recipients: Iterable[str | NewRecipient] = ("b@there.example",),
    *,
    at: float = NOW,
    content: bytes | Path = BODY,
    identifier: str = "",
) -> NewMessage:
    return NewMessage(
        id=identifier or f"m{next(_numbers)}",
        account="app",
        reverse_path="ana@acme.example",
        header_from="ana@acme.example",
        message_id="<1@acme.example>",
        recipients=[
            recipient if isinstance(recipient, NewRecipient) else NewRecipient(recipient, HOUR)
            for recipient in recipients
        ],
        content=content,
        size=len(content) if isinstance(content, bytes) else content.stat().st_size,
        received_at=at,
    )


def held(address: str, hour: int) -> NewRecipient:
    return NewRecipient(address, hour, hour * 3600.0)


def delivered(recipient: Queued, at: float = NOW + 1) -> Outcome:
    return Outcome(recipient, Result.DELIVERED, at, "250 2.0.0 ok", host="mx.there.example", tls="TLSv1.3")


def deferred(recipient: Queued, until: float) -> Outcome:
    return Outcome(recipient, Result.DEFERRED, NOW + 1, "451 4.7.1 later", "greylisted", next_attempt_at=until)


def failed(recipient: Queued) -> Outcome:
    return Outcome(recipient, Result.FAILED, NOW + 1, "550 5.1.1 no such user", "bad-mailbox")


def addresses(queued: Iterable[Queued]) -> list[str]:
    return [recipient.address for recipient in queued]


class StoreContract:
    @pytest.fixture
    def make_store(self) -> Callable[[], Store]:
        raise NotImplementedError

    @pytest.fixture
    async def store(self, make_store: Callable[[], Store]) -> AsyncIterator[Store]:
        store = make_store()
        await store.open()
        yield store
        await store.close()

    async def test_an_accepted_message_is_there_after_a_restart(self, make_store: Callable[[], Store]) -> None:
        store = make_store()
        assert (await store.open()).quarantined == ()
        queued = await store.accept(message(["a@x.example", "b@y.example"]))
        await store.close()
        store = make_store()
        assert not (await store.open()).quarantined
        try:
            assert await store.due(NOW, 10) == queued
            assert await store.content(queued[0].message_id) == BODY
        finally:
            await store.close()

    async def test_what_is_queued_tells_the_whole_envelope(self, store: Store) -> None:
        accepted = NewMessage(
            "m-full", "news", "", "n@acme.example", "<2@x>", [NewRecipient("Ü@x.example", HOUR)], BODY, 4711, NOW,
            eight_bit=True, smtputf8=True, sender_unknown=True,
        )  # fmt: skip
        (queued,) = await store.accept(accepted)
        assert queued == Queued(
            queued.id, "m-full", "Ü@x.example", "", "news", 4711, True, True, NOW, NOW, 0, NOW
        )  # fmt: skip
        assert await store.due(NOW, 10) == [queued]

    async def test_what_a_client_asked_for_with_dsn_is_kept_for_each_recipient(
        self, make_store: Callable[[], Store]
    ) -> None:
        asked = DsnRequest(Notify.SUCCESS | Notify.DELAY, True, "rfc822;b+2Bc@x.example", "QQ314159", Return.HEADERS)
        never = DsnRequest(Notify.NEVER, True)
        store = make_store()
        await store.open()
        recipients = [NewRecipient("b+c@x.example", HOUR, dsn=asked), NewRecipient("d@x.example", HOUR, dsn=never)]
        queued = await store.accept(message(recipients))
        await store.close()
        store = make_store()
        await store.open()
        try:
            assert [one.dsn for one in queued] == [asked, never]
            assert [one.dsn for one in await store.due(NOW, 10)] == [asked, never]
        finally:
            await store.close()

    async def test_an_hour_that_was_in_force_is_known_after_a_restart_though_nothing_of_its_own_was_charged(
        self, make_store: Callable[[], Store]
    ) -> None:
        store = make_store()
        await store.open()
        await store.accept(dataclasses.replace(message([held("a@x.example", HOUR + 2)]), accepted_in=HOUR + 1))
        await store.close()
        store = make_store()
        assert (await store.open()).latest_hour == HOUR + 1
        await store.clock_went_back(ClockBack(NOW, HOUR + 2, NOW + 60))
        await store.close()
        store = make_store()
        recovered = await store.open()
        assert (recovered.latest_hour, recovered.hours) == (HOUR + 2, {HOUR + 2: HourCharge(1, 1)})
        await store.close()

    async def test_who_was_told_of_a_delay_stays_told(self, store: Store) -> None:
        (queued,) = await store.accept(message())
        told = dataclasses.replace(deferred(queued, NOW + 60), told_of_delay=True)
        await store.record([told])
        (again,) = await store.due(NOW + 60, 10)
        await store.record([deferred(again, NOW + 120)])
        (later,) = await store.due(NOW + 120, 10)
        assert [again.told_of_delay, later.told_of_delay] == [True, True]

    async def test_hours_are_charged_with_the_message_and_known_after_a_restart(
        self, make_store: Callable[[], Store]
    ) -> None:
        store = make_store()
        assert (await store.open()).hours == {}
        await store.accept(message(["a@x.example", "b@x.example", held("c@x.example", HOUR + 1)]))
        await store.accept(message(["d@x.example"]))
        await store.enqueue(message(["ana@acme.example"]))  # uncharged
        await store.close()
        store = make_store()
        recovered = await store.open()
        await store.close()
        assert recovered.hours == {HOUR: HourCharge(3, 0), HOUR + 1: HourCharge(1, 1)}
        assert recovered.latest_hour == HOUR

    async def test_held_recipients_wait_for_their_hour_and_are_first_in_it(self, store: Store) -> None:
        start = (HOUR + 1) * 3600.0
        await store.accept(message([held("a@x.example", HOUR + 1), held("b@x.example", HOUR + 1)]))
        await store.accept(message(["now@x.example"]))
        await store.accept(message([held("c@x.example", HOUR + 1)]))
        await store.accept(message(["next@x.example"], at=start + 1))
        assert addresses(await store.due(start - 0.001, 10)) == ["now@x.example"]
        assert addresses(await store.due(start + 1, 10)) == [
            "now@x.example", "a@x.example", "b@x.example", "c@x.example", "next@x.example",
        ]  # fmt: skip
        assert (await store.due(start, 10))[1].released_at == start

    async def test_due_gives_time_then_arrival_and_leaves_out_what_is_told(self, store: Store) -> None:
        first = await store.accept(message([f"{n}@x.example" for n in range(5)]))
        await store.accept(message(["z@Slow.Example", "z@x.example"]))
        assert addresses(await store.due(NOW, 3)) == ["0@x.example", "1@x.example", "2@x.example"]
        excluding = {recipient.id for recipient in first[:4]}
        assert addresses(await store.due(NOW, 2, excluding=excluding)) == ["4@x.example", "z@Slow.Example"]
        assert addresses(await store.due(NOW, 2, excluding=excluding, excluding_domains=["slow.example"])) == [
            "4@x.example", "z@x.example",
        ]  # fmt: skip
        assert await store.due(NOW - 1, 10) == []

    async def test_order_of_arrival_outlives_a_restart(self, make_store: Callable[[], Store]) -> None:
        for round_ in range(3):
            store = make_store()
            await store.open()
            await store.accept(message([f"{round_}@x.example"]))
            await store.close()
        store = make_store()
        await store.open()
        assert addresses(await store.due(NOW, 10)) == ["0@x.example", "1@x.example", "2@x.example"]
        await store.close()

    async def test_a_deferred_recipient_comes_back_at_its_time_and_counts_attempts(self, store: Store) -> None:
        (queued,) = await store.accept(message())
        await store.record([deferred(queued, NOW + 60)])
        assert await store.due(NOW + 59, 10) == []
        assert await store.next_time(NOW) == NOW + 60
        (again,) = await store.due(NOW + 60, 10)
        assert (again.id, again.attempts, again.next_attempt_at, again.released_at) == (queued.id, 1, NOW + 60, NOW)
        await store.record([deferred(again, NOW + 180)])
        assert (await store.due(NOW + 180, 10))[0].attempts == 2

    async def test_next_time_is_later_than_asked_or_none(self, store: Store) -> None:
        assert await store.next_time(0) is None
        await store.accept(message())
        assert await store.next_time(NOW - 1) == NOW
        assert await store.next_time(NOW) is None

    async def test_content_goes_with_the_last_recipient(self, store: Store) -> None:
        one, two, three = await store.accept(message(["1@x.example", "2@x.example", "3@x.example"]))
        await store.record([delivered(one), deferred(two, NOW + 60)])
        await store.record([failed(three)])
        assert await store.content(one.message_id) == BODY
        await store.record([delivered(two)])
        with pytest.raises(KeyError):
            await store.content(one.message_id)
        assert await store.due(NOW + 1000, 10) == []

    async def test_an_outcome_recorded_twice_changes_nothing(self, store: Store) -> None:
        one, two = await store.accept(message(["1@x.example", "2@x.example"]))
        await store.record([delivered(one)])
        await store.record([delivered(one)])
        await store.record([deferred(one, NOW + 5)])
        assert addresses(await store.due(NOW + 10, 10)) == ["2@x.example"]
        assert (await store.queue_state(NOW)).ready == 1
        await store.record([delivered(two)])

    async def test_a_notice_is_kept_uncharged_with_the_ends_that_it_tells_of(self, store: Store) -> None:
        one, two = await store.accept(message(["1@x.example", "2@x.example"]))
        notice = message(["ana@acme.example"], identifier="notice")
        ((kept,),) = await store.record([failed(one)], notices=[notice])
        assert (kept.address, kept.message_id) == ("ana@acme.example", "notice")
        assert addresses(await store.due(NOW, 10)) == ["2@x.example", "ana@acme.example"]
        assert await store.content("notice") == BODY
        assert (await store.queue_state(NOW)).ready == 2
        with pytest.raises(StoreError):
            await store.record([failed(two)], notices=[notice])
        assert addresses(await store.due(NOW, 10))[0] == "2@x.example", "neither without the other"

    async def test_large_content_is_taken_over_as_a_file_and_unlinked_at_the_end(self, store: Store) -> None:
        file = store.incoming / "upload"
        file.write_bytes(BODY * 10_000)
        (queued,) = await store.accept(message(content=file))
        assert not file.exists()
        kept = await store.content(queued.message_id)
        assert isinstance(kept, StoredFile)
        assert kept.read() == BODY * 10_000
        await store.record([delivered(queued)])
        assert not kept.path.exists()

    async def test_incoming_is_empty_after_a_restart_and_accepted_files_are_kept(
        self, make_store: Callable[[], Store]
    ) -> None:
        store = make_store()
        await store.open()
        (store.incoming / "half").write_bytes(b"never finished")
        whole = store.incoming / "whole"
        whole.write_bytes(BODY)
        (queued,) = await store.accept(message(content=whole))
        await store.close()
        store = make_store()
        recovered = await store.open()
        kept = await store.content(queued.message_id)
        await store.close()
        assert recovered.quarantined == ()
        assert list(store.incoming.iterdir()) == []
        assert isinstance(kept, StoredFile)
        assert kept.read() == BODY

    async def test_one_bad_operation_does_not_fail_those_committed_with_it(self, store: Store) -> None:
        await store.accept(message(identifier="taken"))
        results = await asyncio.gather(
            store.accept(message(["1@x.example"])),
            store.accept(message(["bad@x.example"], identifier="taken")),
            store.accept(message([])),
            store.accept(message(["2@x.example"])),
            return_exceptions=True,
        )
        assert [isinstance(result, StoreError) for result in results] == [False, True, True, False]
        assert addresses(await store.due(NOW, 10)) == ["b@there.example", "1@x.example", "2@x.example"]

    async def test_a_refused_id_leaves_the_content_it_belongs_to(self, store: Store) -> None:
        paths = [store.incoming / name for name in ("first", "second")]
        for path in paths:
            path.write_bytes(path.name.encode())
        await store.accept(message(content=paths[0], identifier="same"))
        with pytest.raises(StoreError):
            await store.accept(message(content=paths[1], identifier="same"))
        kept = await store.content("same")
        assert isinstance(kept, StoredFile)
        assert kept.read() == b"first"

    async def test_many_sessions_at_once_lose_nothing(self, store: Store) -> None:
        await asyncio.gather(*(store.accept(message([f"{n}@x.example"])) for n in range(300)))
        queued = await store.due(NOW, 1000)
        assert addresses(queued) == [f"{n}@x.example" for n in range(300)]
        await asyncio.gather(*(store.record([delivered(recipient)]) for recipient in queued))
        assert await store.queue_state(NOW) == QueueState()

    async def test_close_finishes_what_was_handed_in(self, make_store: Callable[[], Store]) -> None:
        store = make_store()
        await store.open()
        pending = [asyncio.ensure_future(store.accept(message())) for _ in range(50)]
        await asyncio.sleep(0)
        await store.close()
        await asyncio.gather(*pending)
        store = make_store()
        await store.open()
        assert len(await store.due(NOW, 100)) == 50
        await store.close()
        with pytest.raises(StoreError):
            await store.accept(message())

    async def test_queue_state_counts_ready_deferred_and_held(self, make_store: Callable[[], Store]) -> None:
        expected = QueueState(ready=1, deferred=1, held=2, oldest_received_at=NOW - 5)
        store = make_store()
        await store.open()
        assert await store.queue_state(NOW) == QueueState()
        first, second = await store.accept(message(["1@x.example", "2@x.example"], at=NOW - 5))
        await store.accept(message(["3@x.example", held("4@x.example", HOUR + 1), held("5@x.example", HOUR + 1)]))
        await store.record([deferred(first, NOW + 60), delivered(second)])
        assert await store.queue_state(NOW) == expected
        await store.close()
        store = make_store()
        await store.open()
        assert await store.queue_state(NOW) == expected
        at_next_hour = await store.queue_state((HOUR + 1) * 3600.0)
        assert (at_next_hour.ready, at_next_hour.held) == (3, 0)
        await store.close()

    async def test_respread_moves_held_recipients_in_order_of_arrival(self, make_store: Callable[[], Store]) -> None:
        store = make_store()
        await store.open()
        later = HOUR + 1
        await store.accept(message(["now@x.example", *(held(f"{n}@x.example", later) for n in range(3))]))
        await store.accept(message([held(f"{n}@x.example", later) for n in range(3, 5)]))
        (retry,) = await store.accept(message(["retry@x.example"]))
        await store.record([deferred(retry, (HOUR + 9) * 3600.0)])
        await store.respread(Respread(HOUR, [(HOUR, 1), (HOUR + 1, 2), (HOUR + 2, 2)]))
        assert addresses(await store.due(NOW, 10)) == ["now@x.example", "0@x.example"]
        assert addresses(await store.due((HOUR + 1) * 3600.0, 10))[2:] == ["1@x.example", "2@x.example"]
        assert addresses(await store.due((HOUR + 2) * 3600.0, 10))[4:] == ["3@x.example", "4@x.example"]
        assert (await store.queue_state(NOW)).held == 4
        await store.close()
        recovered = await make_store_and_open(make_store)
        assert recovered == {HOUR: HourCharge(3, 0), HOUR + 1: HourCharge(2, 2), HOUR + 2: HourCharge(2, 2)}

    async def test_a_respread_that_waited_for_room_until_another_hour_moves_nothing(
        self, make_store: Callable[[], Store]
    ) -> None:
        store = make_store()
        await store.open()
        later = HOUR + 1
        first, _second = await store.accept(message([held(f"{n}@x.example", later) for n in range(2)]))
        await store.record([delivered(first)])
        new = message([NewRecipient("new@x.example", later)], at=later * 3600.0 + 5)
        await store.accept(dataclasses.replace(new, accepted_in=later))
        await store.respread(Respread(HOUR, [(later, 1), (later + 1, 1)]))
        assert addresses(await store.due(later * 3600.0 + 5, 10)) == ["1@x.example", "new@x.example"]
        await store.close()
        assert await make_store_and_open(make_store) == {later: HourCharge(3, 2)}

    async def test_after_the_clock_went_back_nothing_waits_for_the_time_it_had(self, store: Store) -> None:
        day, hour = 86_400.0, HOUR + 24
        ahead = NOW + day
        retried, due_soon = await store.accept(message(["retried@x.example", "soon@x.example"]))
        fresh = NewRecipient("fresh@x.example", hour)
        begun, coming = held("begun@x.example", hour), held("coming@x.example", hour + 1)
        await store.accept(message([fresh, begun, coming], at=ahead))
        await store.enqueue(message(["notice@x.example"], at=ahead))
        await store.record([deferred(retried, ahead + 60), deferred(due_soon, NOW + 60)])
        assert (await store.queue_state(NOW)).held == 2
        assert await store.clock_went_back(ClockBack(NOW, current=hour, latest=NOW + 3600)) == 4
        assert addresses(await store.due(NOW, 10)) == ["fresh@x.example", "begun@x.example", "notice@x.example"]
        assert {one.released_at for one in await store.due(NOW, 10)} == {NOW}
        assert addresses(await store.due(NOW + 3600, 10))[3:] == ["soon@x.example", "retried@x.example"]
        assert await store.next_time(NOW) == NOW + 60
        assert await store.next_time(NOW + 3600) == (hour + 1) * 3600.0, "what is held for an hour to come stays"
        state = await store.queue_state(NOW)
        assert (state.ready, state.deferred, state.held) == (3, 2, 1)
        assert await store.clock_went_back(ClockBack(NOW, current=hour, latest=NOW + 3600)) == 0

    async def test_prune_drops_old_hours_and_events_but_never_mail(self, make_store: Callable[[], Store]) -> None:
        store = make_store()
        await store.open()
        one, _two = await store.accept(message(["1@x.example", "2@x.example"]))
        await store.record([delivered(one, at=NOW + 1)])
        assert await store.prune(NOW) == 0
        assert await store.prune(NOW + 7200) == 2  # one event, one hour
        assert await store.prune(NOW + 7200) == 0
        assert addresses(await store.due(NOW, 10)) == ["2@x.example"]
        await store.close()

    async def test_a_cancelled_caller_leaves_the_store_working(self, store: Store) -> None:
        task = asyncio.ensure_future(store.accept(message(["1@x.example"])))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await store.accept(message(["2@x.example"]))
        assert addresses(await store.due(NOW, 10))[-1] == "2@x.example"


async def make_store_and_open(make_store: Callable[[], Store]) -> dict[int, HourCharge]:
    store = make_store()
    recovered = await store.open()
    await store.close()
    return dict(recovered.hours)
