from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import threading

import pytest

from malote_relay.logs import Lines, json_line


class Counted(io.BytesIO):
    """Knows what each write was."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, octets: object) -> int:
        self.writes.append(bytes(octets))  # type: ignore[call-overload]
        return len(self.writes[-1])


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


async def test_plain_lines_of_one_turn_of_the_loop_leave_in_one_write() -> None:
    file = Counted()
    lines = Lines(file)
    lines.gather(asyncio.get_running_loop())
    lines.soon(b"1")
    lines.soon(b"2")
    assert file.writes == []
    await asyncio.sleep(0)
    assert file.writes == [b"1\n2\n"]
    lines.soon(b"3")
    await asyncio.sleep(0)
    assert file.writes[1:] == [b"3\n"]


async def test_what_is_urgent_leaves_at_once_and_after_what_was_said_before() -> None:
    file = Counted()
    lines = Lines(file)
    lines.gather(asyncio.get_running_loop())
    lines.soon(b"1")
    lines.error(b"2")
    assert file.writes == [b"1\n2\n"]


async def test_nothing_waits_when_the_loop_ends_or_another_thread_speaks() -> None:
    file = Counted()
    lines = Lines(file)
    lines.gather(asyncio.get_running_loop())
    thread = threading.Thread(target=lines.soon, args=(b"1",))
    thread.start()
    thread.join()
    assert file.writes == [b"1\n"]
    lines.soon(b"2")
    lines.gather(None)
    lines.soon(b"3")
    assert file.writes[1:] == [b"2\n", b"3\n"]


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    file = io.BytesIO()
    lines = Lines(file)
    file.close()
    lines.msg(b"1")
