from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from malote_relay.control.registry import Column
from malote_relay.control.table import lines, shown, table

COLUMNS = [
    Column(name="message", show="text"),
    Column(name="nextAttempt", show="time"),
    Column(name="age", show="seconds"),
    Column(name="why", show="text"),
]
ROW = {"message": "m1", "nextAttempt": 1_800_000_000.0, "age": 190.0, "why": "it is due"}


def test_a_list_is_a_table() -> None:
    assert list(table(COLUMNS, [ROW, ROW | {"message": "m234567", "nextAttempt": None, "age": 5.4}])) == [
        "MESSAGE  NEXT-ATTEMPT            AGE  WHY",
        "m1       2027-01-15 08:00:00Z  3m10s  it is due",
        "m234567  -                        5s  it is due",
    ]


def test_a_list_without_rows_is_no_table() -> None:
    assert list(table(COLUMNS, [])) == []


def test_a_list_without_end_is_shown_as_it_comes() -> None:
    taken = 0

    def endless() -> Iterator[dict[str, object]]:
        nonlocal taken
        while True:
            taken += 1
            yield ROW

    assert len(list(itertools.islice(table(COLUMNS, endless()), 1000))) == 1000
    assert taken < 1100


def test_one_answer_is_a_line_a_field() -> None:
    columns = [Column(name="recipients", show="number"), Column(name="said", show="text")]
    assert list(lines(columns, {"recipients": 3, "said": "done"})) == ["recipients: 3", "said:       done"]


@pytest.mark.parametrize(
    ("value", "show", "words"),
    [
        (None, "time", "-"),
        ("", "text", "-"),
        (True, "flag", "yes"),
        (False, "flag", "no"),
        (0, "number", "0"),
        (0.25, "number", "0.25"),
        (59.6, "seconds", "1m"),
        (1_750_000_059.9, "time", "2025-06-15 15:07:39Z"),
        (1e18, "time", "9999-12-31 23:59:59Z"),
        (86_400 * 3 + 3_700, "seconds", "3d1h"),
        (500, "octets", "500"),
        (26_214_400, "octets", "25M"),
        (["a", "b"], "text", "a, b"),
        ("\x1b[2Jgone", "text", "�[2Jgone"),
    ],
)
def test_values_are_in_words_and_cannot_move_the_cursor(value: object, show: str, words: str) -> None:
    assert shown(value, show) == words
