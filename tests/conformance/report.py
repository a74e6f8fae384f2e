"""Runs cases and prints what came of them, by section."""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.conformance.case import ALL, Broken, Case, Level
from tests.conformance.client import Closed, ProtocolError, Silent
from tests.conformance.server import Server


class Verdict(enum.StrEnum):
    """What came of a case."""

    PASS = "pass"
    FAIL = "FAIL"
    NOT_OFFERED = "not offered"
    NOT_SEEN = "not seen"


@dataclass(frozen=True)
class Result:
    """A case's verdict; `why` and the session's last lines when it failed."""

    case: Case
    verdict: Verdict
    why: str = ""
    transcript: tuple[str, ...] = ()


def selected(only: str = "") -> list[Case]:
    """The cases whose id begins so, by section; those that guess passwords last."""
    from tests.conformance import cases  # noqa: F401  # importing declares them

    found = [one for one in ALL if one.id.lower().startswith(only.lower())]
    return sorted(found, key=lambda one: (one.guesses, _section_key(one.section)))


def _section_key(section: str) -> tuple[object, ...]:
    rfc, _, place = section.partition("-")
    numbers = tuple((0, int(part)) if part.isdigit() else (1, part) for part in place.split("."))
    return (int(re.sub(r"\D", "", rfc)), *numbers)


def run(server: Server, case: Case) -> Result:
    """Run one case on connections of its own."""
    if case.needs and not server.has(case.needs):
        return Result(case, Verdict.NOT_OFFERED, case.needs)
    if case.sees and server.delivered is None:
        return Result(case, Verdict.NOT_SEEN)
    with server.conversation() as clients:
        try:
            case.check(server)
        except (Broken, Closed, Silent, ProtocolError, OSError, ValueError) as error:
            words = str(error) or type(error).__name__
            lines = clients[-1].transcript if clients else []
            return Result(case, Verdict.FAIL, words, tuple(lines[-12:]))
    return Result(case, Verdict.PASS)


def table(results: Sequence[Result], *, verbose: bool = False) -> str:
    """The results by section: verdict, level, case; what was seen instead below those that failed."""
    lines = []
    section = ""
    for result in sorted(results, key=lambda one: _section_key(one.case.section)):
        if result.case.section != section:
            section = result.case.section
            rfc, _, place = section.partition("-")
            lines.append(f"\nRFC {rfc.removeprefix('RFC')} section {place}")
        lines.append(f"  {result.verdict:<11} {result.case.level:<6} {result.case.name}: {result.case.requirement}")
        if result.verdict is Verdict.FAIL:
            lines.append(f"{'':22}{result.why}")
            if verbose:
                lines += [f"{'':24}{line}" for line in result.transcript]
    return "\n".join(lines).lstrip("\n")


def summary(results: Iterable[Result]) -> str:
    """One line: how many of each."""
    results = list(results)
    counts = Counter(result.verdict for result in results)
    failed = Counter(result.case.level for result in results if result.verdict is Verdict.FAIL)
    of = f" ({failed[Level.MUST]} MUST, {failed[Level.SHOULD]} SHOULD)" if counts[Verdict.FAIL] else ""
    return (
        f"{len(results)} cases: {counts[Verdict.PASS]} pass, {counts[Verdict.FAIL]} fail{of}, "
        f"{counts[Verdict.NOT_OFFERED]} not offered, {counts[Verdict.NOT_SEEN]} not seen"
    )


def compare(columns: dict[str, Sequence[Result]]) -> str:
    """The cases in which servers differ, a column each."""
    names = list(columns)
    by_case = {name: {result.case.id: result for result in results} for name, results in columns.items()}
    rows = []
    for one in columns[names[0]]:
        verdicts = [by_case[name][one.case.id].verdict if one.case.id in by_case[name] else "" for name in names]
        if len(set(verdicts)) > 1:
            rows.append([one.case.id, str(one.case.level), *map(str, verdicts)])
    head = ["case", "level", *names]
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]
    )
