"""What can be asked of this relay: commands with typed arguments and typed answers, registered by its parts.

A part that brings a command needs to know nothing of the socket::

    controls.rows("queue", "What waits.", Queue, Row, self.queue)      # async generator of Row
    controls.one("drop", "Give a message up.", Drop, Dropped, drop)    # coroutine function giving Dropped
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from malote_relay.control.fields import Answer, Request

A = TypeVar("A", bound=Request)
R = TypeVar("R", bound=Answer)


class Refused(Exception):
    """The command cannot be done; the message says why, to whoever asked."""


class Argument(msgspec.Struct, frozen=True, kw_only=True):
    """One argument as the program needs it. `kind`: text, number, fraction, flag, texts (any number of them)."""

    name: str
    kind: str
    help: str
    positional: bool = False
    required: bool = False
    choices: tuple[str, ...] = ()
    default: Any = None


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One field of the answer. `show`: text, number, flag, time, seconds, octets."""

    name: str
    show: str


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """A command as the program needs it."""

    name: str
    help: str
    arguments: tuple[Argument, ...]
    columns: tuple[Column, ...]
    rows: bool


@dataclass(frozen=True, slots=True)
class Command:
    """A registered command: just one of `rows` and `one` does it."""

    description: Description
    request: type[Request]
    rows: Callable[[Any], AsyncIterator[Answer]] | None = None
    one: Callable[[Any], Awaitable[Answer]] | None = None


class Controls:
    """The commands of one relay."""

    def __init__(self) -> None:
        self._commands: dict[str, Command] = {}

    def rows(
        self, name: str, help: str, request: type[A], answer: type[R], handler: Callable[[A], AsyncIterator[R]]
    ) -> None:
        """Register a command that answers with a list, however long: rows are sent as they come."""
        self._add(name, Command(_described(name, help, request, answer, rows=True), request, rows=handler))

    def one(
        self, name: str, help: str, request: type[A], answer: type[R], handler: Callable[[A], Awaitable[R]]
    ) -> None:
        """Register a command with one answer."""
        self._add(name, Command(_described(name, help, request, answer, rows=False), request, one=handler))

    def _add(self, name: str, command: Command) -> None:
        if name in self._commands:
            raise ValueError(f"there is a command {name} already")
        self._commands[name] = command

    def descriptions(self) -> list[Description]:
        """All commands, in the order of their registration."""
        return [command.description for command in self._commands.values()]

    def prepare(self, request: Mapping[str, Any]) -> tuple[Command, Request]:
        """The command that a request names, and its arguments. Raises Refused with what is wrong."""
        arguments = dict(request)
        name = arguments.pop("command", None)
        if not isinstance(name, str):
            raise Refused('a request names its command: {"command": "…"}')
        command = self._commands.get(name)
        if command is None:
            known = ", ".join(self._commands) or "none"
            raise Refused(f"there is no command {name[:60]!r}; this relay knows: {known}")
        try:
            return command, msgspec.convert(arguments, command.request)
        except msgspec.ValidationError as error:
            raise Refused(f"{name}: {error}") from error


def _described(name: str, help: str, request: type[Request], answer: type[Answer], *, rows: bool) -> Description:
    arguments = tuple(_argument(field, hint) for field, hint in _fields(request))
    columns = tuple(Column(name=field.encode_name, show=_show(hint)) for field, hint in _fields(answer))
    return Description(name=name, help=help, arguments=arguments, columns=columns, rows=rows)


def _fields(struct: type[msgspec.Struct]) -> list[tuple[msgspec.structs.FieldInfo, Any]]:
    hints = get_type_hints(struct, include_extras=True)
    return [(field, hints[field.name]) for field in msgspec.structs.fields(struct)]


def _argument(field: msgspec.structs.FieldInfo, hint: Any) -> Argument:
    kind, choices = _kind(_plain(hint))
    default = None if field.default is msgspec.NODEFAULT else field.default
    return Argument(
        name=field.encode_name,
        kind=kind,
        help=next((meta.description for meta in _metas(hint) if meta.description), ""),
        positional=any((meta.extra or {}).get("positional") for meta in _metas(hint)),
        required=field.required,
        choices=choices,
        default=default.value if isinstance(default, enum.Enum) else default,
    )


def _metas(hint: Any) -> list[msgspec.Meta]:
    return [one for one in getattr(hint, "__metadata__", ()) if isinstance(one, msgspec.Meta)]


def _plain(hint: Any) -> Any:
    """A type without annotations, and without "or none"."""
    if _metas(hint):
        hint = get_args(hint)[0]
    parts = [part for part in get_args(hint) if part is not type(None)]
    return parts[0] if type(None) in get_args(hint) and len(parts) == 1 else hint


def _kind(plain: Any) -> tuple[str, tuple[str, ...]]:
    simple = {str: "text", int: "number", float: "fraction", bool: "flag"}
    if plain in simple:
        return simple[plain], ()
    if get_origin(plain) is Literal:
        return "text", tuple(map(str, get_args(plain)))
    if isinstance(plain, type) and issubclass(plain, enum.StrEnum):
        return "text", tuple(plain)
    if get_origin(plain) is tuple and get_args(plain)[0] is str:
        return "texts", ()
    raise TypeError(f"an argument cannot be {plain}")


def _show(hint: Any) -> str:
    for meta in _metas(hint):
        if "show" in (meta.extra or {}):
            return str((meta.extra or {})["show"])
    plain = _plain(hint)
    if plain is bool:
        return "flag"
    return "number" if plain in (int, float) else "text"
