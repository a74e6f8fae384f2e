from __future__ import annotations

from collections.abc import Callable

from malote_relay.delivery.waiting import Situation, Stage, explain
from malote_relay.store.model import Queued

NOW = 1_800_000_000.0


def test_each_reason_to_wait_has_words_and_where_it_is_known_an_end(queued: Callable[..., Queued]) -> None:
    held = explain(queued(next_attempt_at=NOW + 600), Situation(NOW))
    assert "held" in held.words
    assert held.until == NOW + 600
    deferred = explain(queued(attempts=2, next_attempt_at=NOW + 60), Situation(NOW, max_age=86_400))
    assert "attempt 2 met a temporary failure" in deferred.words
    assert deferred.until == NOW + 60
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
