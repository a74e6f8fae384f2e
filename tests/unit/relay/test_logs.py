from __future__ import annotations

import json
import subprocess
import sys

import pytest

from malote_relay.logs import json_line


class Odd:
    def __repr__(self) -> str:
        return "<odd>"


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("plain", "plain"),
        ('a "quote", a \\ and a\r\nline end', 'a "quote", a \\ and a\r\nline end'),
        ("josé\u202e\u2028\x9b", "josé\u202e\u2028\x9b"),
        ("half a pair \ud800", "half a pair \ud800"),
        ([1, 2.5, None, True], [1, 2.5, None, True]),
        (Odd(), "<odd>"),
        ((Odd(), "\ud800"), ["<odd>", "\ud800"]),
    ],
)
def test_whatever_is_logged_becomes_one_line_of_ascii_that_reads_back(value: object, read: object) -> None:
    line = json_line(None, "info", {"event": "delivered", "reply": value})
    assert line.isascii()
    assert b"\n" not in line
    assert b"\r" not in line
    assert json.loads(line) == {"event": "delivered", "reply": read}


def test_lines_of_the_relay_and_of_libraries_go_to_stderr_in_order_and_at_once() -> None:
    program = """
import logging, os, structlog
from malote_relay import logs
logs.configure("json")
log = structlog.get_logger("malote.test")
log.info("first", number=1)
logging.getLogger("library").warning("second %s", "olá")
try:
    raise ValueError("third")
except ValueError:
    log.exception("went wrong")
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    first, second, third = map(json.loads, done.stderr.splitlines())
    assert (first["event"], first["number"], first["level"]) == ("first", 1, "info")
    assert first["timestamp"].endswith("Z")
    assert (second["event"], second["level"], second["logger"]) == ("second olá", "warning", "library")
    assert (third["event"], third["level"]) == ("went wrong", "error")
    assert "ValueError: third" in third["exception"]
