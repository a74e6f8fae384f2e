"""When an account is paused, and what counts as a bounce. Pure."""

from __future__ import annotations

from typing import Final

from malote_relay.config import AccountPause
from malote_relay.pausing.window import Tally

COUNTED: Final = frozenset(("bad-mailbox", "bad-domain", "inactive", "policy", "spam-content"))
"""Bounces that say something about the account's recipients or its mail (classes of `delivery/answers/classify.py`).

A full mailbox, a host in trouble, a missing SPF record or a listed address of the platform's do not: pausing the
account would help nobody.
"""


def verdict(tally: Tally, config: AccountPause) -> str:
    """Why an account with these counts is to be paused, with the figures; "" for not."""
    if tally.ended < config.min_recipients:
        return ""
    bounced = 100 * tally.bounced / tally.ended
    if bounced > config.bounce_percent:
        return (
            f"{tally.bounced} of {tally.ended} recipients within {config.window_hours} hours bounced: {bounced:.3g} %"
            f", and {config.bounce_percent:g} % is the limit"
        )
    complained = 100 * tally.complained / max(1, tally.delivered)
    if tally.complained >= config.min_complaints and complained > config.complaint_percent:
        return (
            f"{tally.complained} of {tally.delivered} recipients within {config.window_hours} hours complained:"
            f" {complained:.3g} %, and {config.complaint_percent:g} % is the limit"
        )
    return ""
