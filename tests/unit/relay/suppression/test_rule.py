"""What bounces, complaints and deliveries make of an address's entry."""

from __future__ import annotations

from dataclasses import replace

import pytest

from malote_relay.config import Suppression
from malote_relay.store.suppressions import Entry, Reason
from malote_relay.suppression.rule import Bounced, Complained, Delivered, after, bounces_needed

DAY = 86_400.0
NOW = 1_800_000_000.0
CONFIG = Suppression()
BOB = "bob@dest.example"


def bounced(bounce_class: str = "bad-mailbox", at: float = NOW, *, after_delivery: bool = False) -> Bounced:
    return Bounced(BOB, at, bounce_class, "550 5.1.1 no such user", f"m{at - NOW:g}", after_delivery)


def test_a_bad_mailbox_is_suppressed_at_once_for_thirty_days_and_says_why() -> None:
    entry = after(None, bounced(), CONFIG)
    assert entry == Entry(
        BOB, Reason.BOUNCE, NOW, NOW + 30 * DAY, "bad-mailbox", "550 5.1.1 no such user", "m0", bounces=0, times=1
    )
    assert entry.suppressed(NOW + 30 * DAY - 1)
    assert not entry.suppressed(NOW + 30 * DAY)


@pytest.mark.parametrize("bounce_class", ["inactive", "bad-domain"])
def test_what_may_mend_is_suppressed_after_the_third_bounce(bounce_class: str) -> None:
    entry = None
    for number in (1, 2):
        entry = after(entry, bounced(bounce_class, NOW + number), CONFIG)
        assert entry is not None
        assert not entry.suppressed(NOW + number)
    entry = after(entry, bounced(bounce_class, NOW + 3), CONFIG)
    assert entry is not None
    assert entry.suppressed(NOW + 3)


@pytest.mark.parametrize("bounce_class", ["quota", "policy", "spam-content", "reputation", "connection", "other", ""])
def test_what_says_nothing_about_the_address_changes_nothing(bounce_class: str) -> None:
    assert bounces_needed(bounce_class, CONFIG) == 0
    assert after(None, bounced(bounce_class), CONFIG) is None


def test_each_further_time_lasts_twice_as_long_up_to_a_year() -> None:
    entry = None
    at, spans = NOW, []
    for _ in range(6):
        entry = after(entry, bounced(at=at), CONFIG)
        assert entry is not None
        assert entry.until is not None
        spans.append((entry.until - at) / DAY)
        at = entry.until
    assert spans == [30, 60, 120, 240, 365, 365]


def test_bounces_of_what_was_queued_meanwhile_do_not_lengthen_it() -> None:
    entry = after(None, bounced(), CONFIG)
    assert after(entry, bounced(at=NOW + 60), CONFIG) is entry


def test_a_delivery_lifts_what_bounces_did_and_nothing_else() -> None:
    delivered = Delivered(BOB, NOW)
    assert after(after(None, bounced(), CONFIG), delivered, CONFIG) is None
    assert after(after(None, bounced("inactive"), CONFIG), delivered, CONFIG) is None
    late = after(None, bounced(at=NOW + 1), CONFIG)
    assert after(late, delivered, CONFIG) is late, "the delivery that the bounce is about"
    complaint = after(None, Complained(BOB, NOW, "m1"), CONFIG)
    assert after(complaint, delivered, CONFIG) is complaint
    manual = Entry(BOB, Reason.MANUAL, NOW, None)
    assert after(manual, delivered, CONFIG) is manual


@pytest.mark.parametrize("bounce_class", ["inactive", "bad-domain"])
def test_a_host_that_takes_each_message_and_bounces_it_later_comes_to_the_end_too(bounce_class: str) -> None:
    entry = None
    for day in range(3):
        entry = after(entry, Delivered(BOB, NOW + day * DAY), CONFIG)
        entry = after(entry, bounced(bounce_class, NOW + day * DAY + 60, after_delivery=True), CONFIG)
    assert entry is not None
    assert entry.suppressed(NOW + 2 * DAY + 60)
    assert after(entry, Delivered(BOB, NOW + 3 * DAY), CONFIG) is entry, "a further one proves as little"


def test_bounces_told_later_lengthen_the_next_time_although_the_host_took_mail_meanwhile() -> None:
    first = after(None, bounced(after_delivery=True), CONFIG)
    assert first is not None
    assert first.until is not None
    between = after(first, Delivered(BOB, first.until + 1), CONFIG)
    second = after(between, bounced(at=first.until + 2, after_delivery=True), CONFIG)
    assert second is not None
    assert second.until == first.until + 2 + 60 * DAY


def test_a_report_that_is_brought_again_counts_once() -> None:
    entry = after(None, bounced("inactive", after_delivery=True), CONFIG)
    assert entry is not None
    assert after(entry, replace(bounced("inactive", after_delivery=True), at=NOW + 60), CONFIG) is entry


def test_a_refusal_or_a_complaint_afterwards_does_not_make_the_host_s_word_good_again() -> None:
    entry = after(None, bounced("inactive", after_delivery=True), CONFIG)
    entry = after(entry, bounced("inactive", NOW + 1), CONFIG)
    assert after(entry, Delivered(BOB, NOW + 2), CONFIG) is entry
    entry = after(entry, Complained(BOB, NOW + 3, "m2"), CONFIG)
    ended = NOW + 3 + CONFIG.complaint_days * DAY
    entry = after(entry, bounced("inactive", ended), CONFIG)
    assert after(entry, Delivered(BOB, ended + 1), CONFIG) is entry


def test_a_complaint_suppresses_for_a_year_and_never_shortens() -> None:
    entry = after(None, Complained(BOB, NOW, "m1"), CONFIG)
    assert entry == Entry(BOB, Reason.COMPLAINT, NOW, NOW + 365 * DAY, message="m1")
    longer = Entry(BOB, Reason.MANUAL, NOW, NOW + 1000 * DAY)
    assert after(longer, Complained(BOB, NOW, "m1"), CONFIG).until == NOW + 1000 * DAY  # type: ignore[union-attr]


def test_what_a_person_put_there_for_good_stays_as_it_is() -> None:
    manual = Entry(BOB, Reason.MANUAL, NOW, None, detail="asked by phone")
    assert after(manual, bounced(), CONFIG) is manual
    assert after(manual, Complained(BOB, NOW, "m1"), CONFIG) is manual
