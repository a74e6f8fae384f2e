"""Conversion beside the event loop: one message at a time, in a thread, out of a file and into one.

What comes out is kept for the attempt that needs it and no longer: the store has the message as it was accepted.
While it is being written the disk's floor of free space is respected.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from malote_relay.delivery.content import Content
from malote_relay.delivery.conversion.rewrite import Plan, look, rewrite
from malote_relay.store.contents import StoredFile

SignAgain = Callable[[str, bytes | Path], Awaitable[bytes]]
"""Given a domain and a message, the DKIM-Signature fields to put in front of it; none where there is no key."""

_LOOK_AGAIN: Final = 1024 * 1024
"""Octets written between two looks at the free space."""


class NotNow(Exception):
    """There is no room for the converted message, or it could not be read or written: in words, for a later try."""


@dataclass(frozen=True, slots=True)
class Converted:
    """A message in 7 bits, signed anew. `discard` it when it is no longer needed."""

    content: Content
    size: int
    file: Path | None = None

    def discard(self) -> None:
        """Remove its file, if it has one."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)


class Converter:
    """Converts for one relay: large messages into files in `directory`, which is emptied at its next start.

    `floor` gives the octets to be left free there.
    """

    def __init__(self, directory: Path, sign: SignAgain, floor: Callable[[], int]) -> None:
        self._directory = directory
        self._sign = sign
        self._floor = floor
        self._turn = asyncio.Semaphore(1)

    async def convert(self, source: bytes | StoredFile) -> Converted:
        """The message in 7 bits. Raises Unconvertible, NotNow, Damaged: nothing is signed but what was accepted."""
        async with self._turn:
            try:
                return await self._convert(source)
            except OSError as error:
                raise NotNow(f"it cannot be converted to 7 bits now: {error.strerror or error}") from error

    async def _convert(self, source: bytes | StoredFile) -> Converted:
        if isinstance(source, bytes):
            plan, octets = await asyncio.to_thread(_in_memory, source)
            signature = await self._signature(plan, octets)
            return Converted(Content(signature + octets), len(signature) + len(octets))
        file = self._directory / f"seven-bit-{secrets.token_hex(8)}"
        writing = asyncio.ensure_future(asyncio.to_thread(self._to_file, source, file))
        try:
            plan = await asyncio.shield(writing)
            signature = await self._signature(plan, file)
            size = len(signature) + file.stat().st_size
        except BaseException:
            # A thread cannot be stopped: what it still writes goes when it has ended.
            writing.add_done_callback(lambda done: _forget(done, file))
            raise
        return Converted(Content(StoredFile(file), signature), size, file)

    async def _signature(self, plan: Plan, content: bytes | Path) -> bytes:
        return await self._sign(plan.domain, content) if plan.domain else b""

    def _to_file(self, source: StoredFile, target: Path) -> Plan:
        with source.open() as reading:
            plan = look(reading.block)
        with source.open() as reading, target.open("xb") as writer:
            rewrite(reading.block, plan, _Guarded(writer, self._directory, self._floor()).write)
        return plan


def _forget(writing: asyncio.Future[Plan], file: Path) -> None:
    if not writing.cancelled():
        writing.exception()  # whoever asked for it knows, or is gone
    file.unlink(missing_ok=True)


def _in_memory(source: bytes) -> tuple[Plan, bytes]:
    plan = look(BytesIO(source).read)
    target = BytesIO()
    rewrite(BytesIO(source).read, plan, target.write)
    return plan, target.getvalue()


class _Guarded:
    """Writes while there is room. Raises NotNow, OSError."""

    def __init__(self, file: BinaryIO, directory: Path, floor: int) -> None:
        self._file = file
        self._directory = directory
        self._floor = floor
        self._since = _LOOK_AGAIN

    def write(self, octets: bytes) -> None:
        self._since += len(octets)
        if self._since >= _LOOK_AGAIN:
            self._since = 0
            disk = os.statvfs(self._directory)
            if disk.f_bavail * disk.f_frsize < self._floor:
                raise NotNow("it cannot be converted to 7 bits now: the disk is nearly full")
        self._file.write(octets)
