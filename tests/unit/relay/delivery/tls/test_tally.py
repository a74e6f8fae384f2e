"""Counts in the store, and their bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from malote_relay.delivery.tls.results import Applied, ResultType, Trouble
from malote_relay.delivery.tls.tally import DAY, MAX_DETAILED, Tally
from malote_relay.store.sqlite import SqliteStore

D = Applied.none("d.example")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path)
    await store.open()
    yield store
    await store.close()


async def asks(domain: str) -> bool:
    return domain != "silent.example"


async def test_equal_sessions_add_up_over_flushes_and_days_are_apart(store: SqliteStore) -> None:
    now = [20_000.5 * DAY]
    tally = Tally(store, lambda: now[0])
    for _ in range(3):
        tally.add("d.example", D, None)
    await tally.flush(asks)
    tally.add("d.example", D, None)
    tally.add("d.example", D, Trouble(ResultType.EXPIRED, "expired"), mx="mx.d.example", mx_address="192.0.2.1")
    tally.add("silent.example", Applied.none("silent.example"), None)
    now[0] += DAY
    tally.add("d.example", D, None)
    await tally.flush(asks)
    assert await tally.waiting(20_000) == []
    assert await tally.waiting(20_002) == [(20_000, "d.example"), (20_001, "d.example")]
    assert [(row.result, row.mx, count) for row, count in await tally.rows(20_000, "d.example")] == [
        ("", "", 4),
        ("certificate-expired", "mx.d.example", 1),
    ]
    await tally.drop(20_000, "d.example")
    assert await tally.waiting(20_002) == [(20_001, "d.example")]


@pytest.mark.parametrize(
    ("local", "told"),
    [
        ("93.184.216.34", "93.184.216.34"),
        ("2606:2800:220:1::1", "2606:2800:220:1::1"),
        ("10.42.0.17", ""),
        ("fd00::17", ""),
        ("100.64.0.1", ""),
        ("127.0.0.1", ""),
        ("", ""),
    ],
)
async def test_strangers_are_told_no_address_from_within(store: SqliteStore, local: str, told: str) -> None:
    """RFC 8460 section 4.4 wants the address that the receiver met: a pod's own is translated on its way out."""
    tally = Tally(store, lambda: 0.0)
    tally.add("d.example", D, Trouble(ResultType.EXPIRED, "expired"), local_address=local)
    await tally.flush(asks)
    assert [row.local_address for row, _ in await tally.rows(0, "d.example")] == [told]


async def test_ever_new_troubles_are_told_by_kind_in_the_end(store: SqliteStore) -> None:
    tally = Tally(store, lambda: 0.0)
    for number in range(3 * MAX_DETAILED):
        tally.add("d.example", D, Trouble(ResultType.VALIDATION_FAILURE, f"reason {number}"), mx=f"mx{number}")
    await tally.flush(asks)
    rows = await tally.rows(0, "d.example")
    assert len(rows) == MAX_DETAILED + 1
    assert sum(count for _, count in rows) == 3 * MAX_DETAILED


async def test_what_could_not_be_written_is_not_lost(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    tally = Tally(store, lambda: 0.0)
    tally.add("d.example", D, None)
    with monkeypatch.context() as patched:

        async def broken(work: object) -> None:
            raise OSError("no disk")

        patched.setattr(store, "write", broken)
        with pytest.raises(OSError, match="no disk"):
            await tally.flush(asks)
    await tally.flush(asks)
    assert [count for _, count in await tally.rows(0, "d.example")] == [1]
