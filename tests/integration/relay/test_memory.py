"""Large messages stream to disk: what the process takes does not grow with them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from tests.integration.relay.running import plain

from malote_relay.config import Plan

SESSIONS = 10
MEGABYTES = 25
CONTENT = b"From: ana@acme.example\r\nSubject: large\r\n\r\n" + (b"x" * 76 + b"\r\n") * (
    MEGABYTES * 1024 * 1024 // 78 - 10
)


def kilobytes(program: Any, name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{program.process.pid}/status").read_text())
    assert found is not None
    return int(found[1])


def counted_from_here(program: Any) -> int:
    """The memory that the process takes now, in KB; its peak is counted anew."""
    Path(f"/proc/{program.process.pid}/clear_refs").write_text("5")
    return kilobytes(program, "VmRSS")


async def ready(program: Any, site: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A session of which only the content is missing."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", program.ports["submissions"], ssl=site.client_context(), server_hostname="acme.smtp.example"
    )
    token = plain("app@acme", site.password)
    writer.write(
        f"EHLO c.example\r\nAUTH PLAIN {token}\r\n".encode()
        + b"MAIL FROM:<ana@acme.example>\r\nRCPT TO:<b@dest.example>\r\n"
    )
    while not (await reader.readline()).startswith(b"250 2.1.5"):
        pass
    return reader, writer


@pytest.mark.parametrize("verb", ["DATA", "BDAT"])
async def test_sessions_with_large_messages_take_eight_megabytes_each_at_most(
    program: Any, site: Any, compose: Any, verb: str
) -> None:
    site.change(
        plan=Plan(name="p", messages_per_hour=1000), delivery={"frozen": True}, limits={"data_timeout": 240.0}
    )
    await program.start()
    assert (await program.send(compose())).accepted
    sessions = [await ready(program, site) for _ in range(SESSIONS)]
    before = counted_from_here(program)

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        if verb == "DATA":
            writer.write(b"DATA\r\n")
            assert (await reader.readline()).startswith(b"354 ")
            pieces = [CONTENT, b".\r\n"]
        else:
            pieces = [b"BDAT %d LAST\r\n" % len(CONTENT), CONTENT]
        for piece in pieces:
            for start in range(0, len(piece), 65_536):
                writer.write(piece[start : start + 65_536])
                await writer.drain()
        return await reader.readline()

    async with asyncio.timeout(240):
        answers = await asyncio.gather(*(send(*session) for session in sessions))
    assert {answer[:18] for answer in answers} == {b"250 2.0.0 accepted"}
    grown = (kilobytes(program, "VmHWM") - before) / 1024
    print(f"{SESSIONS} sessions with {MEGABYTES} MB each by {verb}: {grown:.1f} MB more at the peak")
    assert grown < 8 * SESSIONS
    for _, writer in sessions:
        writer.transport.abort()
