"""What bounces and complaints lead to: recipients that are no longer sent to, accounts that are paused."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from malote_relay.config.fields import NotNegative, Positive, Struct

Percent = Annotated[float, Meta(gt=0, le=100)]
WindowHours = Annotated[int, Meta(ge=1, le=168)]


class Suppression(Struct, frozen=True, kw_only=True):
    """Which recipients are refused because mail to them bounced or was complained about.

    An address enters after so many bounces of a class, without a delivery in between: for `bounce_days`, twice as
    long each further time, but never longer than `max_bounce_days`; after a complaint for `complaint_days`. A
    delivery by a host that has bounced mail after it took it counts for nothing. While `enabled` is false nobody
    enters by rule and nobody is refused; what is on the list stays there.
    """

    enabled: bool = True
    bad_mailbox_after: Positive = 1
    bad_domain_after: Positive = 3
    inactive_after: Positive = 3
    bounce_days: Positive = 30
    max_bounce_days: Positive = 365
    complaint_days: Positive = 365


class AccountPause(Struct, frozen=True, kw_only=True):
    """When an account is paused by itself: when too many of its recipients, within the window, bounced or complained.

    Nothing is judged below `min_recipients` (delivered and bounced together), no complaints below `min_complaints`.
    A pause lasts `pause_hours`; 0 means until somebody resumes the account.
    """

    enabled: bool = True
    window_hours: WindowHours = 24
    min_recipients: Positive = 100
    bounce_percent: Percent = 5.0
    min_complaints: Positive = 3
    complaint_percent: Percent = 0.3
    pause_hours: NotNegative = 0
