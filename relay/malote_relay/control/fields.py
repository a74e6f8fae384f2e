"""What arguments and answers of commands are made of: structs whose annotations say how they are written and shown.

::

    class Show(Request, frozen=True):
        message: Annotated[str, positional("the message's id")]
        limit: Annotated[int, option("at most so many rows")] = 100

    class Shown(Answer, frozen=True):
        message: str
        until: Time = None
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """The arguments of a command: text, numbers, booleans (flags), literals or enums (choices), tuples of text."""


class Answer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A row of a list, or the whole answer. Its fields are the columns, in their order."""


class Nothing(Request, frozen=True, kw_only=True):
    """No arguments."""


def positional(words: str) -> Meta:
    """An argument that is known by its place on the command line."""
    return Meta(description=words, extra={"positional": True})


def option(words: str, *, ge: int | None = None) -> Meta:
    """An argument with a name (`--like-this`); `ge` is the least number it may be."""
    return Meta(description=words, ge=ge)


Time = Annotated[float | None, Meta(extra={"show": "time"})]
"""A time in epoch seconds, or none."""

Seconds = Annotated[float | None, Meta(extra={"show": "seconds"})]
"""A span of time, or none."""

Octets = Annotated[int, Meta(extra={"show": "octets"})]
"""A size."""
