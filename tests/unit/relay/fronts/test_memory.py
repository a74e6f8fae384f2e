"""What a front that is started anew hears of sign-ins before its time."""

from __future__ import annotations

from malote_relay.config import SignIn
from malote_relay.fronts.memory import MAX_KEPT, SignIns
from malote_relay.fronts.protocol import Noted
from malote_relay.submission.admission import Seen
from malote_relay.submission.guard import Guard

SETTINGS = SignIn(window=600.0, max_failures_per_client=4, max_failures_per_client_and_account=100)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def told(memory: SignIns, at: float) -> Guard:
    """The guard of a front that is told at this time."""
    guard = Guard()
    for noted in memory.told():
        guard.note(noted.seen, noted.client, noted.account, SETTINGS, at - noted.age)
    return guard


def test_a_new_front_refuses_whom_the_old_one_would_have_and_as_long() -> None:
    clock = Clock()
    memory = SignIns(clock)
    old = Guard(lambda seen, client, account: memory.note(Noted(seen, client, account)))
    for _ in range(4):
        clock.now += 1
        old.failed("192.0.2.1", "app@acme", SETTINGS, clock.now)
    for later in (1.0, 149.0, 152.0, 700.0):
        clock.now = 1004.0 + later
        new = told(memory, clock.now)
        for client in ("192.0.2.1", "192.0.2.2"):
            assert new.refuses(client, "app@acme", SETTINGS, clock.now) == old.refuses(
                client, "app@acme", SETTINGS, clock.now
            )
    assert not new.refuses("192.0.2.1", "app@acme", SETTINGS, clock.now)


def test_who_has_signed_in_is_known_to_a_new_front() -> None:
    clock = Clock()
    memory = SignIns(clock)
    memory.note(Noted(Seen.SIGNED_IN, "192.0.2.1", "app@acme"))
    for _ in range(50):
        memory.note(Noted(Seen.FAILED, "192.0.2.1", "app@acme"))
    clock.now += 1
    new = told(memory, clock.now)
    assert not new.refuses("192.0.2.1", "app@acme", SETTINGS, clock.now)
    assert new.refuses("192.0.2.1", "news@acme", SETTINGS, clock.now)


def test_what_is_remembered_is_bounded_and_connections_are_not() -> None:
    memory = SignIns()
    for number in range(MAX_KEPT + 10):
        memory.note(Noted(Seen.FAILED, f"{number}", "a"))
        memory.note(Noted(Seen.SIGNED_IN, f"{number}", "a"))
        memory.note(Noted(Seen.CONNECTED, f"{number}", ""))
    noted = list(memory.told())
    assert len(noted) == 2 * MAX_KEPT
    assert "5" not in {one.client for one in noted}
    assert Seen.CONNECTED not in {one.seen for one in noted}
