"""Logs: one JSON object a line on stderr (or lines for people), never a password, never a message's content.

A message costs two lines, so a line must be cheap. msgspec writes what is plain ASCII, which is nearly all; a line
of level info passes none of structlog's processors; and once the event loop runs (`gather`), such lines of one turn
of it leave in one write, at the turn's end. Warnings and errors leave at once, after what was said before them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import time
from datetime import UTC, datetime
from functools import lru_cache
from select import PIPE_BUF
from typing import Any, BinaryIO, Final, TextIO

import msgspec
import structlog

FORMATS = ("json", "console")

_quick = msgspec.json.Encoder(enc_hook=repr)
_careful = structlog.processors.JSONRenderer()


def json_line(logger: object, method: str, event: structlog.typing.EventDict) -> bytes:
    """The event as a JSON object in ASCII: what others wrote into it can neither break the line nor turn it around.

    Never fails for what is in the event: strings with lone surrogates, and objects of any kind.
    """
    try:
        line = _quick.encode(event)
    except (TypeError, ValueError):
        line = b"\xff"
    if line.isascii():
        return line
    careful = _careful(logger, method, event)
    return careful if isinstance(careful, bytes) else careful.encode("ascii")


class Lines:
    """Where JSON lines go. Any thread may write; only the event loop's lines are ever gathered."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._waiting: list[bytes] = []
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0

    def gather(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """From now on, gather what is said in this loop's turns; None: no longer."""
        self._loop, self._thread = loop, threading.get_ident()
        self.flush()

    def msg(self, line: bytes) -> None:
        """Write a line, and those that wait, now."""
        with self._lock:
            self._waiting.append(line)
        self.flush()

    log = debug = info = warn = warning = error = err = fatal = critical = failure = exception = msg

    def soon(self, line: bytes) -> None:
        """Write a line by the end of this turn of the loop; outside of it, now."""
        if self._loop is None or threading.get_ident() != self._thread:
            self.msg(line)
            return
        with self._lock:
            self._waiting.append(line)
            first = len(self._waiting) == 1
        if first:
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what waits. A line that cannot be written is lost: mail does not wait for the log."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            text, self._waiting = b"\n".join((*self._waiting, b"")), []
            while text:
                # Several processes may write to one pipe: up to so much of it stays in one piece (POSIX, write).
                end = (
                    len(text) if len(text) <= PIPE_BUF else text.rfind(b"\n", 0, PIPE_BUF) + 1 or text.find(b"\n") + 1
                )
                self._file.write(text[:end])
                self._file.flush()
                text = text[end:]


_lines: Final = Lines(sys.stderr.buffer)
_Filtering: Any = structlog.make_filtering_bound_logger(logging.INFO)


class _LineLogger(_Filtering):  # type: ignore[misc]  # made at run time
    """structlog's logger, with a short way for plain lines of level info."""

    def info(self, event: str, *args: Any, **values: Any) -> None:
        if args or "exc_info" in values or "stack_info" in values:
            super().info(event, *args, **values)
            return
        if self._context:
            values = {**self._context, **values}
        now = time.time()
        second = int(now)
        values["event"] = event
        values["level"] = "info"
        values["timestamp"] = f"{_second(second)}.{int((now - second) * 1_000_000):06d}Z"
        self._logger.soon(json_line(None, "info", values))


class _Handler(logging.StreamHandler[TextIO]):
    """The standard library's lines, after ours that wait."""

    def emit(self, record: logging.LogRecord) -> None:
        _lines.flush()
        super().emit(record)


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def gather(loop: asyncio.AbstractEventLoop | None) -> None:
    """Let the lines of one turn of `loop` leave together; None before the loop ends."""
    _lines.gather(loop)


def form() -> str:
    """The form in which this process logs."""
    return "json" if structlog.get_config()["wrapper_class"] is _LineLogger else "console"


def configure(form: str) -> None:
    """Set up logging for the process, the standard library's included."""
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    last: structlog.typing.Processor
    renderer: structlog.typing.Processor
    wrapper: type
    if form == "json":
        last, renderer, wrapper = json_line, _careful, _LineLogger
    else:
        renderer = last = structlog.dev.ConsoleRenderer(colors=False)
        wrapper = _Filtering
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=wrapper,
        logger_factory=(lambda *_: _lines) if form == "json" else structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
