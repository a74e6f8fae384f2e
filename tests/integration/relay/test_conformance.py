"""The relay before the conformance suite: every case of every RFC section it is judged by."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.conformance import report
from tests.conformance.case import Case
from tests.conformance.relay import Judged, running
from tests.conformance.report import Verdict
from tests.integration.relay.site import Key


@pytest.fixture(scope="module")
def judged(key: Key, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judged]:
    with running(key, tmp_path_factory.mktemp("conformance")) as judged:
        yield judged


@pytest.mark.parametrize("case", report.selected(), ids=lambda case: case.id)
def test_the_relay_meets(judged: Judged, case: Case) -> None:
    result = judged.run(case)
    if result.verdict is Verdict.NOT_OFFERED:
        pytest.skip(f"{result.why} is not offered")
    assert result.verdict is Verdict.PASS, "\n".join(
        (f"{case.requirement} ({case.section}, {case.level})", result.why, *result.transcript)
    )
