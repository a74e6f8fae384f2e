"""Whom a report is about, and what is known of it long after the delivery."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from malote_relay.bounces.events import Matched, Report, Status, looking, recording
from malote_relay.returnpath import mark_of
from malote_relay.store import schema, transactions
from malote_relay.store.model import NO_DSN, DsnRequest, NewMessage, NewRecipient, Notify, Outcome, Queued, Result
from malote_relay.store.transactions import Kept

NOW = 1_800_000_000.0
ASKED = DsnRequest(Notify.FAILURE, asked=True, orcpt="rfc822;b@old.example", envid="QQ314")
REPORT = Report(Status.BOUNCED, NOW + 9, "m1", "bad-mailbox", "550 5.1.1 no", "mx", mark_of("bia@shop.example"))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = schema.connect(tmp_path / "relay.db")
    schema.migrate(connection)
    yield connection
    connection.close()


@pytest.fixture
def queued(database: sqlite3.Connection) -> list[Queued]:
    """A message to two recipients, one of whom its sender wants to hear of in a way of its own."""
    message = NewMessage(
        id="m1",
        account="app",
        reverse_path="ana@acme.example",
        header_from="ana@acme.example",
        message_id="<1@acme.example>",
        recipients=[NewRecipient("bia@shop.example", 0, dsn=ASKED), NewRecipient("rui@shop.example", 0)],
        content=b"x",
        size=1,
        received_at=NOW,
        smtputf8=True,
    )
    (kept,) = transactions.insert(database, [Kept(1, message, charged=True, in_file=False)])
    return kept


def end(database: sqlite3.Connection, recipient: Queued, result: Result = Result.DELIVERED) -> None:
    again = NOW + 60 if result is Result.DEFERRED else 0.0
    transactions.record(database, [Outcome(recipient, result, NOW + 1, "250 ok", host="mx", next_attempt_at=again)])


def found(database: sqlite3.Connection, report: Report = REPORT) -> Matched:
    matched = looking(report)(database)
    assert matched is not None
    return matched


def test_what_its_sender_asked_for_is_known_after_the_message_has_gone(
    database: sqlite3.Connection, queued: list[Queued]
) -> None:
    for recipient in queued:
        end(database, recipient)
    assert database.execute("SELECT count(*) FROM messages").fetchone() == (0,)
    bia, rui = found(database), found(database, dataclasses.replace(REPORT, mark=mark_of("rui@shop.example")))
    assert (bia.recipient, bia.queued.dsn, rui.recipient, rui.queued.dsn) == (
        "bia@shop.example",
        ASKED,
        "rui@shop.example",
        NO_DSN,
    )
    assert (bia.queued.reverse_path, bia.queued.received_at, bia.queued.smtputf8) == ("ana@acme.example", NOW, True)
    assert not bia.known
    assert not bia.told


def test_a_report_that_is_quicker_than_the_deliverys_event_is_matched(
    database: sqlite3.Connection, queued: list[Queued]
) -> None:
    assert found(database).queued.dsn == ASKED


@pytest.mark.parametrize(
    ("result", "told"), [(Result.DELIVERED, False), (Result.DEFERRED, False), (Result.FAILED, True)]
)
def test_its_sender_has_been_told_of_a_failure_at_delivery(
    database: sqlite3.Connection, queued: list[Queued], result: Result, told: bool
) -> None:
    end(database, queued[0], result)
    assert (found(database).told, found(database).known) == (told, False)


def test_a_report_is_written_down_once_and_known_from_then_on(
    database: sqlite3.Connection, queued: list[Queued]
) -> None:
    end(database, queued[0])
    end(database, queued[1])
    first, second = recording(REPORT)(database), recording(REPORT)(database)
    assert first is not None
    assert second is not None
    assert (first.known, second.known, second.told) == (False, True, True)
    rows = database.execute("SELECT recipient, dsn FROM events WHERE status = 'bounced'").fetchall()
    assert [recipient for recipient, _ in rows] == ["bia@shop.example"]
    other = found(database, dataclasses.replace(REPORT, mark=mark_of("rui@shop.example")))
    assert (other.known, other.told) == (False, False)


def test_a_complaint_is_no_failure_that_its_sender_was_told_of(
    database: sqlite3.Connection, queued: list[Queued]
) -> None:
    end(database, queued[0])
    assert recording(dataclasses.replace(REPORT, status=Status.COMPLAINED))(database) is not None
    assert not found(database).told


def test_a_damaged_request_does_not_hide_the_message(database: sqlite3.Connection, queued: list[Queued]) -> None:
    end(database, queued[0])
    database.execute("UPDATE events SET dsn = 'x'")
    assert found(database).queued.dsn == NO_DSN


def test_what_is_not_known_here_is_matched_to_nothing(database: sqlite3.Connection, queued: list[Queued]) -> None:
    for report in (
        dataclasses.replace(REPORT, message="m2"),
        dataclasses.replace(REPORT, mark=mark_of("eva@shop.example")),
        dataclasses.replace(REPORT, mark=b"", address="eva@shop.example"),
    ):
        assert looking(report)(database) is None
        assert recording(report)(database) is None
