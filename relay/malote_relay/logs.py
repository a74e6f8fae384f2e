"""Logs: one JSON object a line on stderr (or lines for people), never a password, never a message's content.

A message costs two lines, so rendering one must be cheap: msgspec writes what is plain ASCII, which is nearly all.
"""

from __future__ import annotations

import logging
import sys

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


def configure(form: str) -> None:
    """Set up logging for the process, the standard library's included."""
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    last: structlog.typing.Processor
    renderer: structlog.typing.Processor
    factory: structlog.BytesLoggerFactory | structlog.PrintLoggerFactory
    if form == "json":
        last, renderer, factory = json_line, _careful, structlog.BytesLoggerFactory(sys.stderr.buffer)
    else:
        renderer = last = structlog.dev.ConsoleRenderer(colors=False)
        factory = structlog.PrintLoggerFactory(sys.stderr)
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
