"""Conversion beside the event loop: what it leaves behind, and what it takes."""

from __future__ import annotations

import asyncio
import tracemalloc
from pathlib import Path

import pytest

from malote_relay.delivery.conversion.converter import Converter, NotNow
from malote_relay.delivery.conversion.fields import Unconvertible
from malote_relay.store.contents import Damaged, StoredFile, checksum

TEXT = "Olá, mundo: " + "çã" * 400 + "\r\n"
MESSAGE = b"DKIM-Signature: d=acme.example; b=\r\nFrom: app@acme.example\r\n\r\n" + TEXT.encode() * 2000


async def sign(domain: str, content: bytes | Path) -> bytes:
    return f"X-Signed-For: {domain}\r\n".encode()


def written(place: Path, message: bytes) -> StoredFile:
    path = place / "message"
    path.write_bytes(message)
    return StoredFile(path, checksum(message))


@pytest.fixture
def source(tmp_path: Path) -> StoredFile:
    return written(tmp_path, MESSAGE)


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    path = tmp_path / "incoming"
    path.mkdir()
    return path


def left(incoming: Path) -> list[Path]:
    return list(incoming.iterdir())


async def read(converter: Converter, source: bytes | StoredFile) -> bytes:
    converted = await converter.convert(source)
    sent = b"".join([block async for block in converted.content.blocks()]).removesuffix(b".\r\n")
    assert len(sent) == converted.size  # nothing in it is dot-stuffed
    converted.discard()
    return sent


async def test_a_file_becomes_what_the_same_octets_become_and_goes_when_it_is_discarded(
    source: StoredFile, incoming: Path
) -> None:
    converter = Converter(incoming, sign, lambda: 0)
    sent = await read(converter, source)
    assert sent == await read(converter, MESSAGE)
    assert sent.isascii()
    assert sent.startswith(b"X-Signed-For: acme.example\r\nFrom: app@acme.example\r\n")
    assert left(incoming) == []


async def test_what_was_not_signed_is_not_signed_now(incoming: Path) -> None:
    sent = await read(Converter(incoming, sign, lambda: 0), "From: a@acme.example\r\n\r\nolá\r\n".encode())
    assert b"X-Signed-For" not in sent


async def test_below_the_floor_of_free_space_it_must_wait(source: StoredFile, incoming: Path) -> None:
    with pytest.raises(NotNow, match="nearly full"):
        await Converter(incoming, sign, lambda: 1 << 62).convert(source)
    await asyncio.sleep(0)
    assert left(incoming) == []


async def test_a_disk_that_fails_makes_it_wait(source: StoredFile, tmp_path: Path) -> None:
    with pytest.raises(NotNow, match="No such file"):
        await Converter(tmp_path / "nowhere", sign, lambda: 0).convert(source)


async def test_what_cannot_be_converted_leaves_nothing_behind(incoming: Path, tmp_path: Path) -> None:
    source = written(tmp_path, b"Content-Transfer-Encoding: base64\r\n\r\n" + TEXT.encode() * 2000)
    with pytest.raises(Unconvertible):
        await Converter(incoming, sign, lambda: 0).convert(source)
    await asyncio.sleep(0)
    assert left(incoming) == []


async def test_a_damaged_file_is_not_signed_anew(source: StoredFile, incoming: Path) -> None:
    flipped = StoredFile(source.path, checksum(MESSAGE) ^ 1)
    with pytest.raises(Damaged):
        await Converter(incoming, sign, lambda: 0).convert(flipped)
    await asyncio.sleep(0)
    assert left(incoming) == []


async def test_who_is_cancelled_leaves_nothing_behind(source: StoredFile, incoming: Path) -> None:
    converter = Converter(incoming, sign, lambda: 0)
    task = asyncio.create_task(converter.convert(source))
    await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await read(converter, source)  # the next one's turn
    async with asyncio.timeout(60):
        while left(incoming):  # noqa: ASYNC110  # a thread of the interpreter's
            await asyncio.sleep(0.01)


async def test_the_memory_it_takes_does_not_grow_with_the_message(incoming: Path, tmp_path: Path) -> None:
    source = written(tmp_path, MESSAGE + TEXT.encode() * 2000)
    converter = Converter(incoming, sign, lambda: 0)
    tracemalloc.start()
    try:
        converted = await converter.convert(source)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    converted.discard()
    assert converted.size > 15_000_000
    assert most < 2_000_000
