"""What the relay tells senders about their mail (RFC 3461, 3464): when, how much, in which language."""

from __future__ import annotations

import enum

from malote_relay.config.fields import NotNegative, Positive, Struct
from malote_relay.config.tenant import DkimKey


class Language(enum.StrEnum):
    """The language of the part of a notice that people read."""

    ENGLISH = "en"
    PORTUGUESE = "pt-BR"


class Notices(Struct, frozen=True, kw_only=True):
    """Delivery status notifications. `keys` sign them for `delivery.heloName`, from which they come; none: unsigned.

    TLS reports by mail are signed by the same keys; without one there are none (RFC 8460 section 3).

    `delay_after_seconds` is the age at which a sender is told that it takes longer, 0 for never. A message of more
    than `max_returned_bytes` does not come back whole, only its headers. Beyond `per_sender_per_hour` and `per_hour`
    nobody is told one by one: a summary says how many notices were left out.
    """

    language: Language = Language.ENGLISH
    keys: tuple[DkimKey, ...] = ()
    delay_after_seconds: NotNegative = 4 * 3_600
    max_returned_bytes: NotNegative = 65_536
    per_sender_per_hour: Positive = 100
    per_hour: Positive = 1_000
