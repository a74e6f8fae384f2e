"""The queue of keys: no duplicates, one worker a key, growing pauses, the earliest time wins."""

from __future__ import annotations

import asyncio

import pytest

from malote_operator.reconcile.queue import LONGEST_DELAY, Key, Queue

A = Key("Tenant", "", "acme")
B = Key("Tenant", "", "bolt")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> Queue:
    return Queue(clock)


async def nothing_to_take(queue: Queue) -> bool:
    try:
        await asyncio.wait_for(queue.take(), 0.02)
    except TimeoutError:
        return True
    return False


async def test_a_key_added_often_is_taken_once(queue: Queue) -> None:
    for _ in range(5):
        queue.add(A)
    queue.add(B)
    assert len(queue) == 2
    assert [await queue.take(), await queue.take()] == [A, B]
    assert await nothing_to_take(queue)


async def test_a_key_is_never_with_two_workers_and_comes_again_when_added_meanwhile(queue: Queue) -> None:
    queue.add(A)
    await queue.take()
    queue.add(A)
    queue.add(A)
    assert await nothing_to_take(queue)
    queue.done(A)
    assert await queue.take() == A
    queue.done(A)
    assert await nothing_to_take(queue)


async def test_a_failing_key_waits_twice_as_long_each_time_up_to_a_bound(queue: Queue, clock: Clock) -> None:
    pauses = []
    queue.add(A)
    for _ in range(10):
        await queue.take()
        pauses.append(queue.failed(A))
        clock.now += pauses[-1]
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert max(pauses) == LONGEST_DELAY


async def test_success_ends_the_growing_of_pauses(queue: Queue, clock: Clock) -> None:
    queue.add(A)
    await queue.take()
    queue.failed(A)
    clock.now += 1
    await queue.take()
    queue.done(A)
    queue.add(A)
    await queue.take()
    assert queue.failed(A) == 0.5


async def test_events_during_a_failing_visit_do_not_shorten_its_pause(queue: Queue, clock: Clock) -> None:
    queue.add(A)
    await queue.take()
    queue.add(A)
    queue.failed(A, at_least=7.0)
    assert await nothing_to_take(queue)
    clock.now += 6.9
    assert await nothing_to_take(queue)
    clock.now += 0.1
    assert await queue.take() == A


async def test_of_several_times_to_look_again_the_earliest_counts(queue: Queue, clock: Clock) -> None:
    queue.add_at(A, clock.now + 100)
    queue.add_at(A, clock.now + 10)
    queue.add_at(A, clock.now + 50)
    assert queue.next_time() == clock.now + 10
    clock.now += 10
    assert await queue.take() == A
    queue.done(A)
    assert queue.next_time() is None, "the visit answered for the later times too"


async def test_a_waiting_worker_wakes_for_an_earlier_time(queue: Queue) -> None:
    real = Queue(asyncio.get_running_loop().time)
    real.add_at(A, asyncio.get_running_loop().time() + 60)
    taking = asyncio.create_task(real.take())
    await asyncio.sleep(0.01)
    real.add_at(B, asyncio.get_running_loop().time() + 0.01)
    assert await asyncio.wait_for(taking, 30) == B


async def test_a_forgotten_key_does_not_come_again(queue: Queue, clock: Clock) -> None:
    queue.add_at(A, clock.now + 1)
    queue.forget(A)
    clock.now += 2
    assert await nothing_to_take(queue)


async def test_a_failed_key_keeps_its_pause_unless_what_is_wanted_changed(queue: Queue, clock: Clock) -> None:
    queue.add(A)
    await queue.take()
    queue.failed(A)
    queue.add(A)
    assert await nothing_to_take(queue)
    queue.add(A, urgent=True)
    assert await queue.take() == A


async def test_a_visit_for_another_reason_answers_for_the_time_that_was_set(queue: Queue, clock: Clock) -> None:
    queue.add_at(A, clock.now + 100)
    queue.add(A)
    assert await queue.take() == A
    queue.done(A, clock.now + 500)
    assert queue.next_time() == clock.now + 500


async def test_what_somebody_changed_goes_before_what_is_only_looked_at_again(queue: Queue) -> None:
    for number in range(100):
        queue.add(Key("Tenant", "", f"other-{number}"))
    queue.add(A)
    queue.add(A, urgent=True)
    assert len(queue) == 101
    assert await queue.take() == A
    queue.done(A)
    rest = [await queue.take() for _ in range(100)]
    assert A not in rest
    assert await nothing_to_take(queue)


async def test_however_much_is_changed_the_others_have_their_turn(queue: Queue) -> None:
    queue.add(A)
    for _ in range(20):
        queue.add(B, urgent=True)
        taken = await queue.take()
        queue.done(taken)
        if taken == A:
            return
    pytest.fail("A waited for all that was urgent")


async def test_a_change_during_a_failing_visit_does_not_wait_for_its_pause(queue: Queue) -> None:
    queue.add(A)
    await queue.take()
    queue.add(A, urgent=True)
    queue.add(A)
    queue.failed(A, at_least=100.0)
    assert await asyncio.wait_for(queue.take(), 30) == A
    queue.failed(A)
    assert await nothing_to_take(queue), "the change has been seen"


async def test_times_far_away_take_no_more_room_with_each_visit(queue: Queue, clock: Clock) -> None:
    queue.add_at(B, clock.now + 10 * 86400)
    for _ in range(20_000):
        queue.add(A)
        queue.done(await queue.take(), clock.now + 30 * 86400)
        clock.now += 1.0
    assert len(queue._heap) < 2_000
    clock.now += 40 * 86400
    assert [await queue.take(), await queue.take()] == [B, A]


async def test_whoever_stands_before_the_api_server_cannot_ask_for_hours(queue: Queue) -> None:
    queue.add(A)
    await queue.take()
    assert queue.failed(A, at_least=3600.0) == LONGEST_DELAY
