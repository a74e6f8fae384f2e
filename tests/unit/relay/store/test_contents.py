"""The checksum of a content is one and the same, however it is cut while it is reckoned."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import pytest

from malote_relay.store.contents import Damaged, StoredFile, checksum
from malote_relay.submission.body import finish_behind

OCTETS = random.Random(1).randbytes(200_000)


@pytest.mark.parametrize("size", [0, 1, 5119, 5120, 5121, 65_536, 65_537, 200_000])
def test_it_is_that_of_the_whole(tmp_path: Path, size: int) -> None:
    content = OCTETS[:size]
    assert checksum(content) == zlib.crc32(content)
    (tmp_path / "source").write_bytes(content[100:])
    found = finish_behind(content[:100], tmp_path / "source", tmp_path / "final")
    assert (found, (tmp_path / "final").read_bytes()) == (zlib.crc32(content), content)
    with StoredFile(tmp_path / "final", found).open() as reading:
        while reading.block(1000):
            pass
    assert StoredFile(tmp_path / "final", found).read() == content


def test_every_single_bit_that_flips_is_seen(tmp_path: Path) -> None:
    content = bytearray(OCTETS[:300])
    kept = checksum(bytes(content))
    for bit in range(len(content) * 8):
        content[bit // 8] ^= 1 << bit % 8
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(Damaged):
            StoredFile(tmp_path / "file", kept).read()
        content[bit // 8] ^= 1 << bit % 8
