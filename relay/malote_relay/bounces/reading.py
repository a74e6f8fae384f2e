"""What a message is: a complaint, a report on delivery, or neither. Pure; never raises.

It is taken apart into its MIME parts once, which is most of the work, whatever it turns out to be.
"""

from __future__ import annotations

from malote_relay.bounces import arf, dsn, mime
from malote_relay.bounces.arf import Feedback
from malote_relay.bounces.dsn import Dsn
from malote_relay.bounces.text import Kind


def understood(content: bytes) -> Feedback | Dsn | Kind:
    """What a message says; of one that is no report, what it is."""
    message = mime.read(content)
    return Kind.UNKNOWN if message is None else arf.feedback(message) or dsn.report(message)
