from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Literal

import pytest

from malote_relay.control.fields import Answer, Nothing, Request, Time, option, positional
from malote_relay.control.registry import Controls, Refused


class Show(Request, frozen=True, kw_only=True):
    message: Annotated[str, positional("its id")]
    state: Annotated[Literal["ready", "held"] | None, option("only these")] = None
    max_rows: Annotated[int, option("at most so many", ge=0)] = 100
    quietly: Annotated[bool, option("say nothing")] = False
    also: Annotated[tuple[str, ...], option("these too")] = ()


class Shown(Answer, frozen=True, kw_only=True):
    message: str
    until: Time = None
    count: int = 0


async def show(asked: Show) -> Shown:
    return Shown(message=asked.message)


async def listed(asked: Nothing) -> AsyncIterator[Shown]:
    yield Shown(message="m1")


@pytest.fixture
def controls() -> Controls:
    controls = Controls()
    controls.one("show", "Show it.", Show, Shown, show)
    controls.rows("list", "List all.", Nothing, Shown, listed)
    return controls


def test_a_command_is_described_by_its_types_alone(controls: Controls) -> None:
    shown, everything = controls.descriptions()
    message, state, max_rows, quietly, also = shown.arguments
    assert (message.name, message.kind, message.positional, message.required) == ("message", "text", True, True)
    assert (state.choices, state.required, state.default) == (("ready", "held"), False, None)
    assert (max_rows.name, max_rows.kind, max_rows.default, max_rows.help) == (
        "maxRows",
        "number",
        100,
        "at most so many",
    )
    assert (quietly.kind, also.kind) == ("flag", "texts")
    assert [(column.name, column.show) for column in shown.columns] == [
        ("message", "text"),
        ("until", "time"),
        ("count", "number"),
    ]
    assert not shown.rows
    assert everything.rows
    assert everything.arguments == ()


def test_a_request_becomes_typed_arguments(controls: Controls) -> None:
    command, arguments = controls.prepare({"command": "show", "message": "m1", "maxRows": 5})
    assert command.one is not None
    assert arguments == Show(message="m1", max_rows=5)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({}, "names its command"),
        ({"command": 7}, "names its command"),
        ({"command": "shew"}, "no command 'shew'; this relay knows: show, list"),
        ({"command": "show"}, "show: Object missing required field `message`"),
        ({"command": "show", "message": "m1", "maxRows": "many"}, "Expected `int`, got `str` - at `$.maxRows`"),
        ({"command": "show", "message": "m1", "maxRows": -1}, "`int` >= 0"),
        ({"command": "show", "message": "m1", "state": "lost"}, "Invalid enum value 'lost'"),
        ({"command": "show", "message": "m1", "colour": "red"}, "unknown field `colour`"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(controls: Controls, request_: dict[str, object], words: str) -> None:
    with pytest.raises(Refused) as refused:
        controls.prepare(request_)
    assert words in str(refused.value)


def test_a_name_is_given_once(controls: Controls) -> None:
    with pytest.raises(ValueError, match="show already"):
        controls.one("show", "Again.", Show, Shown, show)


def test_arguments_that_no_command_line_can_give_are_found_when_they_are_registered() -> None:
    class Odd(Request, frozen=True, kw_only=True):
        when: dict[str, int]

    Odd.__annotations__ = {"when": dict[str, int]}

    async def odd(asked: Odd) -> Shown:
        return Shown(message="")

    with pytest.raises(TypeError, match="cannot be dict"):
        Controls().one("odd", "Odd.", Odd, Shown, odd)
