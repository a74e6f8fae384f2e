"""What a bounce, a complaint, a delivery or a person's word makes of an address's entry. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from malote_relay.config import Suppression
from malote_relay.store.suppressions import Entry, Reason

_DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Bounced:
    """Mail to the address failed for good."""

    address: str
    at: float
    bounce_class: str
    reply: str
    message: str


@dataclass(frozen=True, slots=True)
class Complained:
    """The address's owner called mail spam (RFC 5965)."""

    address: str
    at: float
    message: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """Mail to the address was taken."""

    address: str
    at: float


Event = Bounced | Complained | Delivered


def bounces_needed(bounce_class: str, config: Suppression) -> int:
    """After how many bounces of a class an address is suppressed; 0 for never: it says nothing about the address."""
    return {
        "bad-mailbox": config.bad_mailbox_after,
        "bad-domain": config.bad_domain_after,
        "inactive": config.inactive_after,
    }.get(bounce_class, 0)


def after(entry: Entry | None, event: Event, config: Suppression) -> Entry | None:
    """The address's entry after the event; None for none. `entry` itself when the event changes nothing."""
    match event:
        case Bounced():
            return _after_bounce(entry, event, config)
        case Complained():
            return _after_complaint(entry, event, config)
        case Delivered():
            # Mail that was queued before: what was said about the mailbox no longer holds. Not so for the delivery
            # that the bounce itself is about, which may be written down after it.
            lifted = entry is not None and entry.reason is Reason.BOUNCE and event.at >= entry.since
            return None if lifted else entry


def _after_bounce(entry: Entry | None, bounce: Bounced, config: Suppression) -> Entry | None:
    needed = bounces_needed(bounce.bounce_class, config)
    if needed == 0 or (entry is not None and entry.suppressed(bounce.at)):
        return entry  # what else was queued when it entered does not count again
    counted = entry.bounces + 1 if entry is not None else 1
    times = entry.times if entry is not None else 0
    found = Entry(
        bounce.address,
        Reason.BOUNCE,
        bounce.at,
        0.0,
        bounce.bounce_class,
        bounce.reply,
        bounce.message,
        counted,
        times,
    )
    if counted < needed:
        return found
    days = min(config.bounce_days * 2 ** min(times, 16), max(config.bounce_days, config.max_bounce_days))
    return replace(found, until=bounce.at + days * _DAY, bounces=0, times=times + 1)


def _after_complaint(entry: Entry | None, complaint: Complained, config: Suppression) -> Entry:
    if entry is not None and entry.until is None:
        return entry
    until = complaint.at + config.complaint_days * _DAY
    if entry is not None and entry.until is not None:
        until = max(until, entry.until)
    times = entry.times if entry is not None else 0
    return Entry(complaint.address, Reason.COMPLAINT, complaint.at, until, message=complaint.message, times=times)
