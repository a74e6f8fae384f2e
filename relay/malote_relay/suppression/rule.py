"""What a bounce, a complaint, a delivery or a person's word makes of an address's entry. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from malote_relay.config import Suppression
from malote_relay.store.suppressions import Entry, Reason

_DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Bounced:
    """Mail to the address failed for good: was refused, or came back `after_delivery`."""

    address: str
    at: float
    bounce_class: str
    reply: str
    message: str
    after_delivery: bool = False


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
            # that the bounce itself is about, which may be written down after it; nor for a host that has taken mail
            # and bounced it later: that it takes more shows nothing.
            return None if entry is not None and _refuted(entry, event) else entry


def _refuted(entry: Entry, delivered: Delivered) -> bool:
    return entry.reason is Reason.BOUNCE and not entry.after_delivery and delivered.at >= entry.since


def _after_bounce(entry: Entry | None, bounce: Bounced, config: Suppression) -> Entry | None:
    needed = bounces_needed(bounce.bounce_class, config)
    if needed == 0 or (entry is not None and entry.suppressed(bounce.at)):
        return entry  # what else was queued when it entered does not count again
    if entry is not None and bounce.after_delivery and entry.message == bounce.message:
        return entry  # the same report, brought again
    counted = entry.bounces + 1 if entry is not None else 1
    times = entry.times if entry is not None else 0
    after_delivery = bounce.after_delivery or (entry is not None and entry.after_delivery)
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
        after_delivery,
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
    fresh = Entry(complaint.address, Reason.COMPLAINT, complaint.at, until, message=complaint.message)
    return replace(fresh, times=entry.times, after_delivery=entry.after_delivery) if entry is not None else fresh
