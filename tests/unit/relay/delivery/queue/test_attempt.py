from __future__ import annotations

from collections.abc import Sequence

import pytest

from malote_relay.delivery.queue.attempt import Onward, onward
from malote_relay.delivery.reply import Answer, Failure, parse

TAKEN = parse("250 2.0.0 taken")
GONE = parse("550 5.1.1 no such user")
LATER = parse("451 4.3.0 later")
GREYLISTED = parse("451 4.7.1 Greylisted, come back later")
TOO_FAST = parse("451 4.7.650 temporarily rate limited")
CROWDED = parse("452 4.5.3 too many recipients")
LOST = Failure("451 4.4.2 it closed the connection", "connection")
STALE = Failure("451 4.4.2 it closed the connection", "connection", stale=True)


@pytest.mark.parametrize(
    ("answers", "content_sent", "expected"),
    [
        ([TAKEN, GONE], True, (Onward.NOTHING, [])),
        ([GONE, GONE], False, (Onward.NOTHING, [])),
        ([TAKEN, LATER], True, (Onward.NOTHING, [])),
        ([LOST, LOST], True, (Onward.NOTHING, [])),
        ([LATER], False, (Onward.ELSEWHERE, [0])),
        ([GONE, LOST, LATER], False, (Onward.ELSEWHERE, [1, 2])),
        ([TAKEN, CROWDED, LATER, CROWDED], True, (Onward.AGAIN, [1, 3])),
        ([GONE, CROWDED], False, (Onward.AGAIN, [1])),
        ([LATER], True, (Onward.ELSEWHERE, [0])),
        ([LATER, CROWDED], True, (Onward.ELSEWHERE, [0, 1])),
        ([GREYLISTED], True, (Onward.NOTHING, [])),
        ([TOO_FAST, LATER], True, (Onward.NOTHING, [])),
        ([CROWDED, CROWDED], False, (Onward.ELSEWHERE, [0, 1])),
        ([STALE, STALE], False, (Onward.ANEW, [0, 1])),
    ],
)
def test_the_answers_to_a_transaction_say_what_follows_it(
    answers: Sequence[Answer], content_sent: bool, expected: tuple[Onward, Sequence[int]]
) -> None:
    step, places = onward(answers, content_sent=content_sent)
    assert (step, list(places)) == expected


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([LOST, GONE, LOST], (Onward.ELSEWHERE, [0, 2])),
        ([TAKEN, LATER], (Onward.NOTHING, [])),
        ([GREYLISTED], (Onward.NOTHING, [])),
    ],
)
def test_content_that_a_host_has_lost_before_is_offered_to_the_next(
    answers: Sequence[Answer], expected: tuple[Onward, Sequence[int]]
) -> None:
    """A first host that breaks off every time must not keep the mail from a second one for days."""
    step, places = onward(answers, content_sent=True, again=True)
    assert (step, list(places)) == expected
