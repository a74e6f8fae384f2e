"""The filter: never silent about an address that is on the list, rarely wrong about others, bounded."""

from __future__ import annotations

from malote_relay.suppression.filter import Filter


def test_what_was_added_is_found_and_hardly_anything_else() -> None:
    listed = Filter(10_000)
    for number in range(10_000):
        listed.add(f"user{number}@dest.example")
    assert all(f"user{number}@dest.example" in listed for number in range(10_000))
    wrong = sum(f"other{number}@dest.example" in listed for number in range(10_000))
    assert wrong < 100


def test_an_empty_one_is_small_and_says_no() -> None:
    assert Filter().size == 8192
    assert "bob@dest.example" not in Filter()


def test_it_says_when_it_is_crowded_and_never_grows_beyond_four_megabytes() -> None:
    small = Filter()
    for number in range(5000):
        small.add(f"user{number}@dest.example")
    assert small.crowded
    assert not Filter(5000).crowded
    assert Filter(100_000_000).size == 4 * 1024 * 1024
