"""Failed sign-ins are slowed and capped; rightful users are never locked out."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from malote_relay.config import SignIn
from malote_relay.submission.guard import MAX_KEPT, Guard

SETTINGS = SignIn()
HERE, ELSEWHERE = "192.0.2.1", "198.51.100.1"


def test_failures_cost_more_and_more_up_to_a_bound_and_are_forgotten() -> None:
    guard = Guard()
    delays = [guard.failed(HERE, "x", SETTINGS, float(n)) for n in range(8)]
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0]
    assert guard.failed(ELSEWHERE, "x", SETTINGS, 8.0) == 8.0  # the account's count, too
    assert guard.failed(ELSEWHERE, "y", SETTINGS, 9.0) == 1.0
    assert guard.failed(HERE, "x", SETTINGS, 1000.0) == 0.5


def test_a_client_is_refused_after_so_many_failures_and_let_try_again_one_by_one() -> None:
    guard = Guard()
    for number in range(20):
        assert not guard.refuses(HERE, f"name{number}", SETTINGS, 0.0)
        guard.failed(HERE, f"name{number}", SETTINGS, 0.0)
    assert guard.refuses(HERE, "another", SETTINGS, 0.0)
    assert guard.refuses(HERE, "another", SETTINGS, 29.0)
    assert not guard.refuses(ELSEWHERE, "another", SETTINGS, 0.0)
    assert not guard.refuses(HERE, "another", SETTINGS, 31.0)  # 600 seconds for 20 of them
    guard.failed(HERE, "another", SETTINGS, 31.0)
    assert guard.refuses(HERE, "another", SETTINGS, 32.0)


def test_an_application_with_an_old_password_does_not_use_up_its_neighbours_tries() -> None:
    guard = Guard()
    failures = 0
    for second in range(0, 3600, 2):
        if not guard.refuses(HERE, "stale", SETTINGS, float(second)):
            guard.failed(HERE, "stale", SETTINGS, float(second))
            failures += 1
        assert not guard.refuses(HERE, "app", SETTINGS, float(second))
    assert failures <= 5 + 3600 / 600 * 5


def test_an_account_under_attack_allows_each_client_one_failure_with_it() -> None:
    guard = Guard()
    for number in range(100):
        guard.failed(f"203.0.113.{number}", "app", SETTINGS, 0.0)
    assert guard.refuses("203.0.113.7", "app", SETTINGS, 1.0)
    assert not guard.refuses("203.0.113.7", "news", SETTINGS, 1.0)
    assert not guard.refuses(HERE, "app", SETTINGS, 1.0), "a rightful user from a new address gets in at once"
    guard.failed(HERE, "app", SETTINGS, 1.0)
    assert guard.refuses(HERE, "app", SETTINGS, 2.0)


def test_who_has_signed_in_before_is_locked_out_neither_by_others_nor_by_a_few_failures() -> None:
    guard = Guard()
    guard.succeeded(HERE, "app", 0.0)
    for number in range(199):
        guard.failed(HERE, "app", SETTINGS, 1.0)
        guard.failed(HERE, f"name{number}", SETTINGS, 1.0)
        guard.failed(f"203.0.113.{number}", "app", SETTINGS, 1.0)
    assert not guard.refuses(HERE, "app", SETTINGS, 2.0)
    assert guard.refuses(HERE, "news", SETTINGS, 2.0)
    later = SETTINGS.remembered_for + 1.0
    for number in range(20):
        guard.failed(HERE, f"name{number}", SETTINGS, later)
    assert guard.refuses(HERE, "app", SETTINGS, later)


def test_an_address_that_many_share_does_not_guess_without_end_because_one_of_them_signs_in() -> None:
    guard = Guard()
    failures = 0
    for second in range(3600):
        if second % 60 == 0:
            guard.succeeded(HERE, "app", float(second))
        for _ in range(10):
            if not guard.refuses(HERE, "app", SETTINGS, float(second)):
                guard.failed(HERE, "app", SETTINGS, float(second))
                failures += 1
    assert 200 < failures <= 200 + 3600 / 600 * 200
    assert not guard.refuses(HERE, "app", SETTINGS, 3610.0), "it ends with the guessing"


def test_a_flood_of_names_and_clients_does_not_fill_the_memory() -> None:
    guard = Guard()
    for number in range(MAX_KEPT + 5000):
        guard.failed(f"client{number}", f"name{number}" * 100, SETTINGS, 0.0)
        guard.succeeded(f"client{number}", "app", 0.0)
        guard.failed(f"client{number}", "app", SETTINGS, 0.0)
    failures = (guard._of_client, guard._of_account, guard._of_both, guard._of_known)
    kept = [[*one.kept] for one in failures] + [[*guard._known]]
    assert all(0 < len(keys) <= MAX_KEPT for keys in kept)
    assert all(len(part) <= 256 for keys in kept for key in keys for part in key)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.floats(0, 50)), max_size=120))
def test_no_client_fails_more_often_than_the_window_allows(tries: list[tuple[str, str, float]]) -> None:
    settings = msgspec.structs.replace(SETTINGS, max_failures_per_client=4, window=100.0)
    guard, now, failed = Guard(), 0.0, {"a": 0, "b": 0}
    for client, account, seconds in tries:
        now += seconds
        if not guard.refuses(client, account, settings, now):
            guard.failed(client, account, settings, now)
            failed[client] += 1
    assert all(count <= 4 + now / 25 + 1 for count in failed.values())
