"""Message ids sort by time and are not met twice; domains are told apart without regard to case."""

from __future__ import annotations

from malote_relay.store.names import domain_of, new_message_id


def test_a_domain_is_grouped_without_regard_to_case() -> None:
    assert domain_of('"a@b"@Shop.Example') == "shop.example"


def test_message_ids_sort_by_time_and_differ_at_one_instant() -> None:
    ids = [new_message_id(1_800_000_000 + number / 1000) for number in range(1000)]
    assert sorted(ids) == ids
    assert len({new_message_id(1.0) for _ in range(1000)}) == 1000
