"""Answers for people: a list as a table as wide as its first rows need, a single answer as lines. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from malote_relay.control.registry import Column

_MEASURED: Final = 200
"""Rows that decide the widths; a longer list goes on in them, so that it need not be held."""

_WIDEST: Final = 60
_UNITS: Final = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
_LATEST: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
"""The last second that calendars have a date for: so long may be what somebody writes who means for ever."""

_RIGHT: Final = ("number", "seconds", "octets")


def table(columns: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The lines of a table: a heading, then a line a row. Nothing for no rows."""
    texts = ([shown(row.get(column.name), column.show) for column in columns] for row in rows)
    first = list(itertools.islice(texts, _MEASURED))
    if not first:
        return
    heading = [_title(column.name) for column in columns]
    widths = [max(map(len, column)) for column in zip(heading, *first, strict=True)]
    for line in itertools.chain([heading], first, texts):
        cells = [
            text.rjust(width) if column.show in _RIGHT else text.ljust(min(width, _WIDEST))
            for column, width, text in zip(columns, widths, line, strict=True)
        ]
        yield "  ".join(cells).rstrip()


def lines(columns: Sequence[Column], answer: Mapping[str, Any]) -> Iterator[str]:
    """The lines of one answer: a field each."""
    width = max((len(column.name) for column in columns), default=0) + 1
    for column in columns:
        yield f"{column.name + ':':<{width}} {shown(answer.get(column.name), column.show)}"


def shown(value: Any, show: str) -> str:
    """A value in words; "-" for nothing. What a remote host wrote cannot move the cursor."""
    if value is None or value == "":
        return "-"
    if show == "flag" or isinstance(value, bool):
        return "yes" if value else "no"
    if show == "time":
        return f"{datetime.fromtimestamp(min(value, _LATEST), UTC):%Y-%m-%d %H:%M:%SZ}"
    if show == "seconds":
        return _span(value)
    if show == "octets":
        return _size(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in str(value))


def _title(name: str) -> str:
    return "".join(f"-{one}" if one.isupper() else one for one in name).upper()


def _span(seconds: float) -> str:
    """The two largest units: 3d4h, 5m10s."""
    left = round(seconds)
    for place, (unit, length) in enumerate(_UNITS):
        if left >= length and place + 1 < len(_UNITS):
            smaller, small = _UNITS[place + 1]
            rest = left % length // small
            return f"{left // length}{unit}" + (f"{rest}{smaller}" if rest else "")
    return f"{left}s"


def _size(octets: int) -> str:
    for unit, size in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if octets >= size:
            return f"{octets / size:.3g}{unit}"
    return str(octets)
