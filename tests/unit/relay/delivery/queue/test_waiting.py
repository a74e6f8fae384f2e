from __future__ import annotations

from collections.abc import Callable

import pytest

from malote_relay.delivery.queue.waiting import Situation, Stage, explain
from malote_relay.store.model import Queued

NOW = 1_800_000_000.0


def test_each_reason_to_wait_has_words_and_where_it_is_known_an_end(queued: Callable[..., Queued]) -> None:
    held = explain(queued(next_attempt_at=NOW + 600), Situation(NOW))
    assert "held" in held.words
    assert held.until == NOW + 600
    deferred = explain(queued(attempts=2, next_attempt_at=NOW + 60), Situation(NOW, max_age=86_400))
    assert "attempt 2 met a temporary failure" in deferred.words
    assert deferred.until == NOW + 60
    greylisted = Situation(NOW, max_age=86_400, last_class="greylist")
    assert (
        "a temporary failure (greylist); the next"
        in explain(queued(attempts=2, next_attempt_at=NOW + 60), greylisted).words
    )
    last = explain(queued(attempts=2, next_attempt_at=NOW + 86_400), Situation(NOW, max_age=86_400))
    assert "the last attempt" in last.words
    down = explain(queued(), Situation(NOW, held="no connection", held_for=20))
    assert "no connection" in down.words
    assert down.until == NOW + 20
    words = {
        explain(queued(), situation).words
        for situation in (
            Situation(NOW, frozen=True),
            Situation(NOW, stage=Stage.RUNNING),
            Situation(NOW, stage=Stage.WAITING),
            Situation(NOW, stage=Stage.RECORDING),
            Situation(NOW, behind=True),
            Situation(NOW),
        )
    }
    assert len(words) == 6


def test_a_stopped_tenant_comes_before_every_other_reason(queued: Callable[..., Queued]) -> None:
    assert "frozen" in explain(queued(next_attempt_at=NOW + 600), Situation(NOW, frozen=True)).words


STAGES = list(Stage)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("held_for", [0.0, 20.0])
@pytest.mark.parametrize("attempts", [0, 3])
@pytest.mark.parametrize("next_in", [-10.0, 0.0, 600.0])
@pytest.mark.parametrize("slowed_for", [0.0, 90.0])
def test_in_every_state_there_is_a_reason_and_no_time_is_past(
    queued: Callable[..., Queued], stage: Stage, frozen: bool, behind: bool, held_for: float, attempts: int,
    next_in: float, slowed_for: float,
) -> None:  # fmt: skip
    situation = Situation(
        NOW,
        frozen=frozen,
        stage=stage,
        behind=behind,
        held="its destination asked to slow down: 421" if held_for else "",
        held_for=held_for,
        in_line=3,
        slowed="the destination is slowed: 421" if slowed_for else "",
        slowed_for=slowed_for,
        max_age=86_400,
    )
    reason = explain(queued(attempts=attempts, next_attempt_at=NOW + next_in), situation)
    assert len(reason.words) > 10
    assert reason.until is None or reason.until > NOW
    if not frozen and stage in {Stage.STORED, Stage.WAITING}:
        if next_in > 0:
            assert reason.until == NOW + next_in
        elif stage is Stage.STORED and held_for:
            assert (reason.words, reason.until) == (situation.held, NOW + held_for)
        elif stage is Stage.WAITING:
            assert "3 stand in line" in reason.words
            assert reason.until == (NOW + slowed_for if slowed_for else None)
