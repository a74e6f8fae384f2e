"""What people ask of the queue, asked of a database as the store writes it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from malote_relay.store import queue, schema, transactions
from malote_relay.store.model import NewMessage, NewRecipient, Outcome, Queued, Result
from malote_relay.store.queue import Filter
from malote_relay.store.transactions import Kept

HOUR = 480_000
NOW = HOUR * 3600.0 + 100.0


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = schema.connect(tmp_path / "relay.db")
    schema.migrate(connection)
    yield connection
    connection.close()


def keep(
    database: sqlite3.Connection, seq: int, *recipients: str, account: str = "app", not_before: float = 0.0
) -> list[Queued]:
    message = NewMessage(
        id=f"m{seq}",
        account=account,
        reverse_path="ana@acme.example",
        header_from="ana@acme.example",
        message_id=f"<{seq}@acme.example>",
        recipients=[NewRecipient(one, int((not_before or NOW) // 3600), not_before) for one in recipients],
        content=b"x",
        size=1,
        received_at=NOW,
    )
    (queued,) = transactions.insert(database, [Kept(seq, message, charged=True, in_file=False)])
    return queued


def end(database: sqlite3.Connection, queued: Queued, result: Result, reply: str) -> None:
    again = NOW + 600 if result is Result.DEFERRED else 0.0
    transactions.record(database, [Outcome(queued, result, NOW + 1, reply, "", "mx", "TLSv1.3", again)])


def listed(database: sqlite3.Connection, wanted: Filter, rows: int = queue.STEP) -> list[str]:
    found: list[str] = []
    place: int | None = 0
    while place is not None:
        some, place = queue.step(database, place, wanted, NOW, rows)
        found += [one.queued.address for one in some]
    return found


def test_the_queue_is_listed_in_the_order_of_arrival_whatever_the_steps(database: sqlite3.Connection) -> None:
    for seq in range(1, 8):
        keep(database, seq, f"{seq}a@there.example", f"{seq}b@else.example")
    everybody = [f"{seq}{who}" for seq in range(1, 8) for who in ("a@there.example", "b@else.example")]
    for rows in (1, 2, 3, 14, 15, 100):
        assert listed(database, Filter(), rows) == everybody
        assert listed(database, Filter(domain="else.example"), rows) == everybody[1::2]
    assert listed(database, Filter(), 3) == everybody


def test_a_step_looks_at_no_more_rows_than_it_may(database: sqlite3.Connection) -> None:
    for seq in range(1, 10):
        keep(database, seq, "bob@there.example")
    keep(database, 10, "bob@else.example")
    found, place = queue.step(database, 0, Filter(domain="else.example"), NOW, 5)
    assert found == []
    assert place == 5 << 16
    found, place = queue.step(database, place, Filter(domain="else.example"), NOW, 5)
    assert [one.queued.message_id for one in found] == ["m10"]


def test_it_is_filtered_by_domain_account_and_state(database: sqlite3.Connection) -> None:
    keep(database, 1, "ready@There.Example")
    keep(database, 2, "held@there.example", not_before=(HOUR + 1) * 3600.0)
    (one,) = keep(database, 3, "deferred@else.example", account="news")
    end(database, one, Result.DEFERRED, "451 4.3.0 later")
    assert listed(database, Filter(domain="THERE.example")) == ["ready@There.Example", "held@there.example"]
    assert listed(database, Filter(account="news")) == ["deferred@else.example"]
    for state in ("ready", "held", "deferred"):
        (address,) = listed(database, Filter(state=state))
        assert address.lower().startswith(state)
    assert listed(database, Filter("there.example", "news", "held")) == []


def test_who_was_deferred_is_known_with_the_last_reply(database: sqlite3.Connection) -> None:
    first, second = keep(database, 1, "a@there.example", "b@there.example")
    end(database, second, Result.DEFERRED, "451 4.3.0 later")
    end(database, second, Result.DEFERRED, "452 4.2.2 full")
    end(database, first, Result.DELIVERED, "250 ok")
    (waiting,) = queue.waiters(database, "m1")
    assert waiting.queued.id == second.id
    assert waiting.queued.attempts == 2
    assert waiting.last_reply == "452 4.2.2 full"
    (ending,) = [event for _, event in queue.endings(database, "m1")]
    assert (ending.recipient, ending.status, ending.reply) == ("a@there.example", "delivered", "250 ok")
    assert queue.waiters(database, "m1", after=second.id) == []
    assert queue.waiters(database, "m2") == []


def test_what_the_last_reply_meant_and_whose_it_was_are_kept_with_it(database: sqlite3.Connection) -> None:
    hosts, own = keep(database, 1, "a@there.example", "b@there.example")
    answer = Outcome(hosts, Result.DEFERRED, NOW + 1, "450 4.2.0 x", "greylist", "mx[192.0.2.1]", "", NOW + 600)
    finding = replace(answer, recipient=own, reply="451 4.4.2 gone", bounce_class="connection", own=True)
    transactions.record(database, [answer, finding])
    assert [(one.last_reply, one.last_class, one.last_host) for one in queue.waiters(database, "m1")] == [
        ("450 4.2.0 x", "greylist", "mx[192.0.2.1]"),
        ("451 4.4.2 gone", "connection", ""),
    ]


def test_only_what_was_deferred_is_brought_forward(database: sqlite3.Connection) -> None:
    (deferred,) = keep(database, 1, "a@there.example")
    end(database, deferred, Result.DEFERRED, "451 4.3.0 later")
    (held,) = keep(database, 2, "b@there.example", not_before=(HOUR + 1) * 3600.0)
    (ready,) = keep(database, 3, "c@there.example")
    assert queue.bring_due(database, [deferred.id, held.id, ready.id, 99 << 16], NOW + 5) == 1
    due = transactions.due(database, NOW + 5, 10, (), ())
    assert {one.id for one in due} == {deferred.id, ready.id}


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM events WHERE message = 'm' AND id > 0 AND status <> 'deferred' ORDER BY id LIMIT 10",
        "SELECT max(id), count(*) FROM (SELECT id FROM recipients WHERE id > 0 ORDER BY id LIMIT 10)",
    ],
)
def test_no_question_reads_a_whole_table(database: sqlite3.Connection, query: str) -> None:
    plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {query}")]
    assert any("SEARCH" in line for line in plan), plan
    assert not any("TEMP B-TREE" in line for line in plan), plan
