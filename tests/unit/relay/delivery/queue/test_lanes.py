from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from malote_relay.delivery.queue.lanes import Bounds, Lanes
from malote_relay.store.model import Queued

BOUNDS = Bounds(window=16, lane=4, page=8)


def knowing_nothing_waits() -> Lanes:
    lanes = Lanes(BOUNDS)
    lanes.end_query(lanes.begin_query(), more=False)
    return lanes


def test_before_the_first_page_everything_may_be_waiting_in_the_store() -> None:
    assert not Lanes(BOUNDS).admits("a.example", 1)


def test_a_full_lane_refuses_its_domain_only(queued: Callable[..., Queued]) -> None:
    lanes = knowing_nothing_waits()
    for number in range(4):
        assert lanes.admits("slow.example", 1)
        lanes.add("slow.example", [queued(id=number)])
    assert not lanes.admits("slow.example", 1)
    lanes.refuse("slow.example")
    assert lanes.admits("fast.example", 1)
    assert lanes.begin_query() == {"slow.example"}


def test_what_overflowed_is_asked_for_again_when_the_lane_is_half_empty(queued: Callable[..., Queued]) -> None:
    lanes = knowing_nothing_waits()
    recipients = [queued(id=number) for number in range(4)]
    lanes.add("slow.example", recipients)
    lanes.refuse("slow.example")
    lanes.end_query(lanes.begin_query(), more=False)
    assert not lanes.remove(recipients[:1])
    assert lanes.remove(recipients[1:2])
    assert lanes.begin_query() == frozenset()


def test_many_full_lanes_leave_room_for_others(queued: Callable[..., Queued]) -> None:
    lanes = Lanes(Bounds(window=200, lane=50, page=50))
    lanes.end_query(lanes.begin_query(), more=False)
    number = 0
    for slow in range(7):
        while lanes.admits(f"slow{slow}.example", 1):
            lanes.add(f"slow{slow}.example", [queued(id=number)])
            number += 1
        lanes.refuse(f"slow{slow}.example")
    assert lanes.admits("fast.example", 1)
    assert lanes.page() > 0
    assert len(lanes.begin_query()) == 7


def test_who_had_room_before_a_page_could_be_read_is_asked_for_as_soon_as_one_can(
    queued: Callable[..., Queued],
) -> None:
    lanes = Lanes(Bounds(window=32, lane=8, page=8))
    lanes.end_query(lanes.begin_query(), more=False)
    fast, others = queued(id=0), [queued(id=number) for number in range(1, 30)]
    for one in others:
        lanes.add(f"d{one.id}.example", [one])
    lanes.add("fast.example", [fast])
    lanes.refuse("fast.example")
    assert not lanes.behind
    assert not lanes.remove([fast])
    assert lanes.page() == 0
    assert lanes.remove(others[:1])
    assert lanes.begin_query() == frozenset()
    assert not lanes.remove(others[1:2]), "it has been asked for"


def test_who_has_nothing_in_hand_when_the_window_is_full_is_asked_for_when_it_no_longer_is(
    queued: Callable[..., Queued],
) -> None:
    lanes = knowing_nothing_waits()
    recipients = [queued(id=number) for number in range(16)]
    lanes.overflowing.add("a.example")
    excluded = lanes.begin_query()
    for one in recipients:
        lanes.add(f"d{one.id}.example", [one])
    lanes.refuse("a.example")
    lanes.end_query(excluded, more=False)
    assert not lanes.behind
    assert not lanes.remove(recipients[:1])
    assert lanes.remove(recipients[1:2])


def test_nothing_new_overtakes_what_waits_in_the_store(queued: Callable[..., Queued]) -> None:
    lanes = knowing_nothing_waits()
    lanes.add("a.example", [queued(id=1)])
    lanes.end_query(lanes.begin_query(), more=True)
    assert not lanes.admits("a.example", 1)
    assert not lanes.admits("b.example", 1)
    lanes.end_query(lanes.begin_query(), more=False)
    assert lanes.admits("b.example", 1)


def test_what_is_refused_for_want_of_room_leaves_the_window_behind(queued: Callable[..., Queued]) -> None:
    lanes = knowing_nothing_waits()
    for number in range(16):
        lanes.add(f"d{number}.example", [queued(id=number)])
    assert not lanes.admits("new.example", 1)
    lanes.refuse("new.example")
    assert lanes.behind
    assert lanes.page() == 0


def test_a_refusal_while_a_page_is_read_is_not_forgotten_by_it(queued: Callable[..., Queued]) -> None:
    lanes = knowing_nothing_waits()
    for number in range(4):
        lanes.add("a.example", [queued(id=number)])
    excluded = lanes.begin_query()
    lanes.refuse("a.example")
    lanes.end_query(excluded, more=False)
    assert lanes.overflowing == {"a.example"}


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from(["come", "come", "come", "end", "page"])), max_size=120
    )
)
def test_everything_is_delivered_in_its_lanes_order_whatever_happens_when(steps: list[tuple[str, str]]) -> None:
    """A model of the scheduler on top of the lanes: arrivals, ends and pages in any order."""
    lanes = Lanes(BOUNDS)
    stored: dict[int, str] = {}
    in_hand: dict[str, list[int]] = {}
    ended: dict[str, list[int]] = {}
    number = 0
    look = True

    def recipient(id: int) -> Queued:
        return Queued(id, "m", "x@y", "", "", 1, False, False, 0, 0, 0, 0)

    def take(id: int, domain: str) -> None:
        lanes.add(domain, [recipient(id)])
        in_hand.setdefault(domain, []).append(id)

    def page() -> bool:
        limit = lanes.page()
        if not limit:
            return False
        excluded = lanes.begin_query()
        found = [id for id in sorted(stored) if id not in lanes and stored[id] not in excluded][:limit]
        for id in found:
            if lanes.fits(stored[id]):
                take(id, stored[id])
            else:
                lanes.refuse(stored[id])
        lanes.end_query(excluded, more=len(found) >= limit)
        return len(found) >= limit

    def end(domain: str) -> bool:
        if not in_hand.get(domain):
            return False
        id = in_hand[domain].pop(0)
        ended.setdefault(domain, []).append(id)
        del stored[id]
        return lanes.remove([recipient(id)])

    for domain, step in steps:
        if step == "come":
            number += 1
            stored[number] = domain
            if lanes.admits(domain, 1):
                take(number, domain)
            else:
                lanes.refuse(domain)
                look = True
        elif step == "end":
            look = end(domain) or look
        elif look:
            look = page()
        assert len(lanes) <= BOUNDS.window
        assert all(len(ids) <= BOUNDS.lane for ids in in_hand.values())
    # No more arrivals: what the scheduler does until nothing moves must empty the store.
    for _ in range(1000):
        if look:
            look = page() or bool(lanes.behind and lanes.page())
        for domain in "abcdef":
            look = end(domain) or look
    assert not stored
    assert sum(Counter(len(ids) for ids in ended.values()).values()) == len(ended)
    assert all(ids == sorted(ids) for ids in ended.values())


def test_what_finds_no_room_while_a_page_is_read_makes_another_page_be_read(queued: Callable[..., Queued]) -> None:
    lanes = knowing_nothing_waits()
    excluded = lanes.begin_query()
    for number in range(16):
        lanes.add(f"d{number}.example", [queued(id=number)])
    lanes.refuse("new.example")
    lanes.end_query(excluded, more=False)
    assert lanes.behind
