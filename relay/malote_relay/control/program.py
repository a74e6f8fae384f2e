"""The command `malote-relayctl`: asks a running relay, shows its answer.

::

    malote-relayctl [--spool DIR] [--json] COMMAND …

In a cluster: ``kubectl exec acme-relay-0 -n malote-relays -- malote-relayctl queue``. What the commands are is the
relay's to say (see `registry`); the program knows none of them by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from malote_relay.control import table
from malote_relay.control.client import Client, Failed, Unreachable
from malote_relay.control.registry import Argument, Description

PROGRAM: Final = "malote-relayctl"
SPOOL_VARIABLE: Final = "MALOTE_SPOOL"
DEFAULT_SPOOL: Final = "/var/spool/malote"
"""Where the operator's pods have theirs."""

_LONGEST: Final = 86_400.0
"""Seconds that an answer may be waited for."""

_TYPES: Final = {"number": int, "fraction": float, "text": str, "texts": str}


def main(arguments: Sequence[str] | None = None) -> None:
    """Ends with 0, with 1 when the relay cannot be reached or says no, with 2 for a wrong command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may lack the letters of an address
    common, rest = _common().parse_known_args(arguments)
    try:
        with Client(common.spool, common.timeout) as client:
            _run(client, rest, as_json=common.json)
    except Unreachable as error:
        if not rest or {"-h", "--help"} & set(rest):
            _parser(()).print_help()
            print(f"\nThe commands are listed by a running relay, but {error}", file=sys.stderr)
            raise SystemExit(0 if rest else 2) from None
        _fail(str(error))
    except Failed as error:
        _fail(str(error))
    except UnicodeEncodeError:
        _fail("an argument is not text in UTF-8")
    except BrokenPipeError:  # whoever reads the answer has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _run(client: Client, rest: Sequence[str], *, as_json: bool) -> None:
    commands = client.commands()
    asked = _parser(commands).parse_args(rest)
    command: Description = asked.chosen
    given = {argument.name: getattr(asked, argument.name) for argument in command.arguments}
    answers = client.ask(command.name, **{name: value for name, value in given.items() if value is not None})
    with contextlib.closing(answers):
        for line in _lines(command, answers, as_json=as_json):
            print(line)
    sys.stdout.flush()


def _lines(command: Description, answers: Iterator[dict[str, Any]], *, as_json: bool) -> Iterator[str]:
    """One JSON object a line; or for people, who are told when there is nothing."""
    if as_json:
        yield from (msgspec.json.encode(answer).decode() for answer in answers)
    elif not command.rows:
        for answer in answers:
            yield from table.lines(command.columns, answer)
    else:
        empty = True
        for line in table.table(command.columns, answers):
            empty = False
            yield line
        if empty:
            yield "(nothing)"


def _common() -> argparse.ArgumentParser:
    """What is said of every command, at whatever place."""
    parser = argparse.ArgumentParser(prog=PROGRAM, add_help=False, allow_abbrev=False)
    parser.add_argument(
        "--spool",
        type=Path,
        metavar="DIR",
        default=Path(os.environ.get(SPOOL_VARIABLE) or DEFAULT_SPOOL),
        help=f"the relay's spool (default: ${SPOOL_VARIABLE}, or {DEFAULT_SPOOL})",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line, times in epoch seconds")
    parser.add_argument(
        "--timeout", type=_seconds, default=60.0, metavar="SECONDS", help="for each part of an answer (default 60)"
    )
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.001 <= seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no time to wait: write seconds, up to {_LONGEST:.0f}")
    return seconds


def _parser(commands: Sequence[Description]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Ask a running relay, and tell it.", parents=[_common()], allow_abbrev=False
    )
    if not commands:
        return parser
    choices = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    for command in commands:
        words = command.help.replace("%", "%%")
        one = choices.add_parser(
            command.name, help=words.partition(". ")[0].rstrip("."), description=words, allow_abbrev=False
        )
        one.set_defaults(chosen=command)
        for argument in command.arguments:
            _add(one, argument)
    return parser


def _add(parser: argparse.ArgumentParser, argument: Argument) -> None:
    words = argument.help.replace("%", "%%")
    if argument.default not in (None, "", False, ()) and argument.kind != "flag":
        words += f" (default {argument.default})"
    dashed = re.sub("([A-Z])", r"-\1", argument.name).lower()
    if argument.kind == "flag":
        parser.add_argument(f"--{dashed}", dest=argument.name, action="store_true", help=words)
        return
    many = argument.kind == "texts"
    settings: dict[str, Any] = {
        "type": _TYPES[argument.kind],
        "help": words,
        "choices": argument.choices or None,
        "default": None,
    }
    if argument.positional:
        if many:
            settings["nargs"] = "+" if argument.required else "*"
        elif not argument.required:
            settings["nargs"] = "?"
        parser.add_argument(argument.name, metavar=dashed.upper(), **settings)
        return
    if not argument.choices:
        settings["metavar"] = dashed.upper().rpartition("-")[2]
    parser.add_argument(
        f"--{dashed}",
        dest=argument.name,
        required=argument.required,
        action="append" if many else "store",
        **settings,
    )


def _fail(words: str) -> NoReturn:
    print(f"{PROGRAM}: {words}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
