from __future__ import annotations

from collections.abc import Callable

from malote_relay.delivery.answers.outcome import outcome, span
from malote_relay.delivery.answers.retry import Schedule
from malote_relay.delivery.reply import Answer, Failure, Reply
from malote_relay.store.model import Outcome, Queued, Result

NOW = 1_800_000_000.0
SCHEDULE = Schedule(60, 3600, 86_400)


def end(recipient: Queued, answer: Answer, now: float = NOW) -> Outcome:
    return outcome(recipient, answer, host="mx[192.0.2.1]", tls="TLSv1.3", now=now, schedule=SCHEDULE)


def test_an_acceptance_is_delivered_with_the_remotes_words(queued: Callable[..., Queued]) -> None:
    found = end(queued(), Reply(250, ("2.0.0 ok queued as 1",)))
    assert (found.result, found.reply, found.bounce_class, found.next_attempt_at) == (
        Result.DELIVERED, "250 2.0.0 ok queued as 1", "", 0.0,
    )  # fmt: skip
    assert (found.host, found.tls, found.at) == ("mx[192.0.2.1]", "TLSv1.3", NOW)


def test_a_permanent_refusal_fails_at_once(queued: Callable[..., Queued]) -> None:
    found = end(queued(), Reply(550, ("5.1.1 no such user",)))
    assert (found.result, found.bounce_class, found.next_attempt_at) == (Result.FAILED, "bad-mailbox", 0.0)


def test_a_refusal_is_read_with_the_host_it_came_from_in_mind(queued: Callable[..., Queued]) -> None:
    found = outcome(
        queued(),
        Reply(550, ("5.7.1 No such user!",)),
        host="mx.yandex.ru[192.0.2.1]",
        tls="",
        now=NOW,
        schedule=SCHEDULE,
    )
    elsewhere = end(queued(), Reply(550, ("Mailbox unavailable or access denied",)))
    there = outcome(
        queued(), Reply(550, ("Mailbox unavailable or access denied",)),
        host="mx3.qq.com[192.0.2.1]", tls="", now=NOW, schedule=SCHEDULE,
    )  # fmt: skip
    assert [one.bounce_class for one in (found, elsewhere, there)] == ["bad-mailbox", "bad-mailbox", "rate-limit"]


def test_the_relays_own_finding_is_marked_and_no_hosts_rules_are_asked(queued: Callable[..., Queued]) -> None:
    """What a provider means by some words, the relay does not: these would be a full mailbox at this one's hosts."""
    words = "552 5.2.2 mx3.qq.com[192.0.2.1] takes no such thing"
    found = outcome(
        queued(), Failure(words, "protocol", permanent=True),
        host="mx3.qq.com[192.0.2.1]", tls="", now=NOW, schedule=SCHEDULE,
    )  # fmt: skip
    assert (found.own, found.bounce_class, found.reply) == (True, "protocol", words)
    assert not end(queued(), Reply(552, ("5.2.2 full",))).own


def test_a_hosts_words_before_there_is_a_transaction_are_the_hosts(queued: Callable[..., Queued]) -> None:
    greeting = Failure("554 5.7.1 listed (mx[192.0.2.1], greeting)", "", permanent=True, said="554 5.7.1 listed")
    found = end(queued(), greeting)
    assert (found.own, found.reply) == (False, "554 5.7.1 listed")


def test_a_temporary_one_is_tried_again_later_and_later(queued: Callable[..., Queued]) -> None:
    first = end(queued(), Failure("451 4.4.1 no connection", "connection"))
    fourth = end(queued(attempts=3), Failure("451 4.4.1 no connection", "connection"))
    assert first.result is fourth.result is Result.DEFERRED
    assert 50 < first.next_attempt_at - NOW < 70
    assert 400 < fourth.next_attempt_at - NOW < 560


def test_one_that_is_too_old_fails_and_says_what_it_met_last(queued: Callable[..., Queued]) -> None:
    found = end(queued(attempts=9), Reply(452, ("4.2.2 mailbox full",)), NOW + SCHEDULE.max_age)
    assert (found.result, found.bounce_class) == (Result.FAILED, "quota")
    assert found.reply == "554 5.4.7 not delivered within 24 hours; the last answer was: 452 4.2.2 mailbox full"


def test_age_counts_from_the_release(queued: Callable[..., Queued]) -> None:
    held = queued(received_at=NOW - 2 * SCHEDULE.max_age, released_at=NOW)
    assert end(held, Reply(451)).result is Result.DEFERRED


def test_spans_are_said_in_their_largest_fitting_unit() -> None:
    assert [span(seconds) for seconds in (5 * 86_400, 86_400, 5400, 45)] == [
        "5 days",
        "24 hours",
        "90 minutes",
        "45 seconds",
    ]
