"""Where content waits: in memory while small, on disk when large, within the caps."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from malote_relay.config import Limits
from malote_relay.submission.body import IN_MEMORY, Body, NoRoom, Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path, Limits(min_free_bytes=1000, max_body_bytes_in_flight=IN_MEMORY * 4))


def test_small_content_stays_in_memory_and_large_content_does_not(spool: Spool, tmp_path: Path) -> None:
    body = Body(spool, "m1")
    body.write(b"x" * IN_MEMORY)
    assert not body.on_disk
    body.write(b"y")
    assert body.on_disk
    assert len(body.head) == IN_MEMORY
    assert spool.in_flight == IN_MEMORY + 1
    body.discard()
    assert spool.in_flight == 0
    assert not list(tmp_path.iterdir())


def test_what_is_in_flight_over_all_is_capped(spool: Spool) -> None:
    first, second = Body(spool, "m1"), Body(spool, "m2")
    first.write(b"x" * IN_MEMORY * 3)
    with pytest.raises(NoRoom) as full:
        second.write(b"x" * (IN_MEMORY + 1))
    assert full.value.flight
    first.discard()
    second.write(b"x" * (IN_MEMORY + 1))


def test_the_floor_of_free_space_is_kept_while_content_comes_in(spool: Spool) -> None:
    body = Body(spool, "m1")
    body.write(b"x" * (IN_MEMORY + 1))
    free = 1000 + spool.in_flight
    spool._looked_at, spool._free = float("inf"), free  # nothing is looked up any more
    body.write(b"")
    spool._free = free - 1
    with pytest.raises(NoRoom) as full:
        body.write(b"")
    assert not full.value.flight


def test_a_file_that_cannot_be_removed_keeps_nothing_from_being_given_back(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk in trouble is made read-only. The file goes at the next start."""
    body = Body(spool, "m1")
    body.write(b"x" * (IN_MEMORY + 1))

    def unlink(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", unlink)
    body.discard()
    assert spool.in_flight == 0
