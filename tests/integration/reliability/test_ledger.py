"""The account of a reliability run finds what it is there to find."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.reliability import ledger
from tests.reliability.internet import Arrivals, Copy
from tests.reliability.ledger import Account
from tests.reliability.load import Sent
from tests.reliability.site import Life

TO = "take-1-0@d0.example"
REFUSED = "refuse-1-0@d0.example"


def sent(*recipients: str, reply: str = "250 2.0.0 accepted as abc") -> Sent:
    queue_id = "abc" if reply.startswith("250") else ""
    return Sent(1, 100, list(recipients or (TO,)), reply=reply, queue_id=queue_id, at=1.0)


def came(*times: float, intact: bool = True, queue_id: str = "abc") -> Arrivals:
    arrivals = Arrivals()
    for at in times:
        arrivals.copies[TO].append(Copy(at, 1, queue_id, intact))
    return arrivals


def life(directory: Path, number: int, started: float, killed: float | None, *events: dict[str, str]) -> Life:
    log = directory / str(number)
    log.write_text("".join(json.dumps(event) + "\n" for event in events) + '{"event": "cut sho')
    return Life(number, log, started, killed)


DELIVERED = {"event": "delivered", "message": "abc", "recipient": TO}


def test_what_arrived_once_is_no_news(tmp_path: Path) -> None:
    account = ledger.settle([sent()], came(2.0), [life(tmp_path, 0, 0.0, None, DELIVERED)])
    assert account.complaints == []
    assert (account.acknowledged, account.copies, account.duplicates) == (1, 1, 0)


def test_what_was_acknowledged_and_never_came_is_lost(tmp_path: Path) -> None:
    account = ledger.settle([sent()], Arrivals(), [life(tmp_path, 0, 0.0, 3.0)])
    assert account.complaints == [f"lost: {TO}: acknowledged as abc"]
    assert ledger.missing([sent()], Arrivals()) == [TO]


def test_what_was_not_acknowledged_may_come_or_not(tmp_path: Path) -> None:
    for arrivals in (Arrivals(), came(2.0)):
        assert ledger.settle([sent(reply="")], arrivals, [life(tmp_path, 0, 0.0, 3.0)]).complaints == []


def test_what_was_refused_must_not_come(tmp_path: Path) -> None:
    account = ledger.settle([sent(reply="452 4.3.1 no room")], came(2.0), [life(tmp_path, 0, 0.0, None)])
    assert [words.partition(":")[0] for words in account.complaints] == ["refused, and delivered all the same"]


def test_a_damaged_copy_is_found(tmp_path: Path) -> None:
    account = ledger.settle([sent()], came(2.0, intact=False), [life(tmp_path, 0, 0.0, None)])
    assert account.damaged == [f"{TO}: abc"]


def test_who_sent_to_nobody_must_be_told(tmp_path: Path) -> None:
    lives = [life(tmp_path, 0, 0.0, None)]
    assert len(ledger.settle([sent(REFUSED)], Arrivals(), lives).not_told) == 1
    arrivals = Arrivals()
    arrivals.told[REFUSED] += 1
    assert ledger.settle([sent(REFUSED)], arrivals, lives).complaints == []


def test_a_second_copy_is_explained_by_a_kill_before_it_was_written_down(tmp_path: Path) -> None:
    lives = [life(tmp_path, 0, 0.0, 2.5), life(tmp_path, 1, 2.6, None, DELIVERED)]
    account = ledger.settle([sent()], came(2.0, 3.0), lives)
    assert (account.duplicates, account.longest_gap, account.complaints) == (1, 0.5, [])


@pytest.mark.parametrize(
    ("killed", "first", "events", "why"),
    [
        (None, (2.0, 3.0), (), "was not killed"),
        (4.0, (2.0, 3.0), (), "twice in one life"),
        (2.5, (2.0, 3.0), (DELIVERED,), "although recorded"),
    ],
)
def test_any_other_second_copy_is_not(
    tmp_path: Path, killed: float | None, first: tuple[float, ...], events: tuple[dict[str, str], ...], why: str
) -> None:
    lives = [life(tmp_path, 0, 0.0, killed, *events)]
    if killed == 2.5:
        lives.append(life(tmp_path, 1, 2.6, None))
    account = ledger.settle([sent()], came(*first), lives)
    assert len(account.unexplained) == 1
    assert why in account.unexplained[0]


def test_what_a_start_had_to_set_aside_is_a_complaint(tmp_path: Path) -> None:
    event = {"event": "found damaged and set aside", "what": "the database was damaged"}
    account = ledger.settle([], Arrivals(), [life(tmp_path, 0, 0.0, None, event)])
    assert isinstance(account, Account)
    assert account.complaints == ["set aside: the database was damaged"]
