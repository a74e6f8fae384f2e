"""Who is told of what: RFC 3461 section 5, and never who has no reverse-path."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from malote_relay.delivery.notices.due import Kind, Reported, due, due_later
from malote_relay.store.model import DsnRequest, Notify, Outcome, Queued, Result

NOW = 1_800_000_000.0
HOUR = 3600.0
S, F, D = Notify.SUCCESS, Notify.FAILURE, Notify.DELAY


def asked(notify: Notify) -> DsnRequest:
    return DsnRequest(notify, asked=True)


def end(
    recipient: Queued, result: Result = Result.FAILED, *, after: float = 5 * HOUR, passed_on: bool = False
) -> Outcome:
    return Outcome(recipient, result, NOW + after, "x", notify_passed_on=passed_on)


def kinds(*batch: Outcome, delay_after: float = 4 * HOUR) -> list[Kind]:
    return [one.kind for one in due(batch, delay_after)[1]]


@pytest.mark.parametrize(
    ("result", "kind"), [(Result.FAILED, Kind.FAILED), (Result.DEFERRED, Kind.DELAYED), (Result.DELIVERED, None)]
)
def test_who_asked_for_nothing_hears_of_failures_and_delays(
    queued: Callable[..., Queued], result: Result, kind: Kind | None
) -> None:
    assert kinds(end(queued(), result)) == ([kind] if kind else [])


@pytest.mark.parametrize("result", list(Result))
@pytest.mark.parametrize("notify", [Notify.NEVER, S, F, D, S | F, S | D, F | D, S | F | D])
def test_notify_says_what_is_told(queued: Callable[..., Queued], notify: Notify, result: Result) -> None:
    wanted = {
        Result.FAILED: (F, Kind.FAILED),
        Result.DEFERRED: (D, Kind.DELAYED),
        Result.DELIVERED: (S, Kind.RELAYED),
    }
    flag, kind = wanted[result]
    assert kinds(end(queued(dsn=asked(notify)), result)) == ([kind] if flag in notify else [])


def test_a_success_is_left_to_the_next_server_when_it_took_that_over(queued: Callable[..., Queued]) -> None:
    recipient = queued(dsn=asked(S))
    assert kinds(end(recipient, Result.DELIVERED, passed_on=True)) == []
    assert kinds(end(recipient, Result.FAILED, passed_on=True)) == []


@pytest.mark.parametrize("result", list(Result))
def test_nobody_is_told_at_the_null_reverse_path(queued: Callable[..., Queued], result: Result) -> None:
    assert kinds(end(queued(reverse_path="", dsn=asked(S | F | D)), result)) == []


def test_a_delay_is_told_once_and_not_before_its_time(queued: Callable[..., Queued]) -> None:
    assert kinds(end(queued(), Result.DEFERRED, after=4 * HOUR - 1)) == []
    (marked,), (told,) = due([end(queued(), Result.DEFERRED, after=4 * HOUR)], 4 * HOUR)
    assert marked.told_of_delay
    assert told.outcomes == [marked]
    assert kinds(end(queued(told_of_delay=True), Result.DEFERRED)) == []
    assert kinds(end(queued(), Result.DEFERRED), delay_after=0) == []


def test_what_was_held_is_late_from_its_release_on(queued: Callable[..., Queued]) -> None:
    assert kinds(end(queued(released_at=NOW + 2 * HOUR), Result.DEFERRED)) == []


def test_recipients_of_one_message_share_a_notice_of_each_kind(queued: Callable[..., Queued]) -> None:
    batch = [
        end(queued(id=1)),
        end(queued(id=2), Result.DEFERRED),
        end(queued(id=3)),
        end(queued(id=4, message_id="m2")),
        end(queued(id=5), Result.DELIVERED),
    ]
    marked, notices = due(batch, 4 * HOUR)
    assert [(one.kind, [end.recipient.id for end in one.outcomes]) for one in notices] == [
        (Kind.FAILED, [1, 3]),
        (Kind.DELAYED, [2]),
        (Kind.FAILED, [4]),
    ]
    assert [one.recipient.id for one in marked] == [1, 2, 3, 4, 5]
    assert [one.told_of_delay for one in marked] == [False, True, False, False, False]


@pytest.mark.parametrize(
    ("reverse_path", "notify", "told"),
    [
        ("app@acme.example", None, True),
        ("app@acme.example", F, True),
        ("app@acme.example", S | F | D, True),
        ("app@acme.example", Notify.NEVER, False),
        ("app@acme.example", S | D, False),
        ("", F, False),
    ],
)
def test_what_is_reported_later_is_a_failure_to_those_who_want_to_hear_of_one(
    queued: Callable[..., Queued], reverse_path: str, notify: Notify | None, told: bool
) -> None:
    recipient = queued(reverse_path=reverse_path, **({} if notify is None else {"dsn": asked(notify)}))
    notice = due_later(end(recipient), Reported("5.1.1"))
    assert (notice is not None) is told
    assert notice is None or (notice.kind, notice.sender) == (Kind.BOUNCED, reverse_path)
