"""Whether a server can take a message at all, by the extensions it offers: what no retry would change. Pure.

What is found here is the relay's own refusal: the server has not been asked, and its words would be others. So each
has its class here, and no rule about replies looks at it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from malote_relay.delivery.dialogue.envelope import Envelope
from malote_relay.delivery.peer import Peer
from malote_relay.delivery.reply import Failure, Reply

Extensions = Mapping[str, str]
"""What the server offers: the keywords of its answer to EHLO (RFC 5321 section 4.1.1.1), with their parameters."""

FORBIDDEN_REPLY = Reply(553, ("5.1.3 the address has a control character in it",))
FORBIDDEN = re.compile(r"[\x00-\x1f\x7f]")


def unfit(envelope: Envelope, extensions: Extensions, peer: Peer) -> Failure | None:
    """Why this server cannot take this message whatever it would say."""
    if FORBIDDEN.search(envelope.reverse_path):
        return _final(str(FORBIDDEN_REPLY), "bad-sender")
    if envelope.smtputf8 and "SMTPUTF8" not in extensions:
        # RFC 6531 section 3.2. A client may have asked for SMTPUTF8 without needing it.
        if not envelope.reverse_path.isascii():
            return _takes_no_utf8(peer, "addresses")
        if not envelope.content.headers().isascii():
            return _takes_no_utf8(peer, "headers", 554)
    limit = extensions.get("SIZE", "")
    if limit.isascii() and limit.isdigit() and 0 < int(limit) < envelope.size:
        return _final(f"552 5.3.4 {peer} takes {limit} octets at most, the message has {envelope.size}", "too-big")
    if envelope.eight_bit and "8BITMIME" not in extensions:
        return _lacking(f"554 5.6.3 {peer} takes no 8-bit content")
    return None


def lacking(envelope: Envelope, extensions: Extensions) -> str:
    """The extension that this server would have to offer for the message as it is and does not; "" for none."""
    if envelope.smtputf8 and "SMTPUTF8" not in extensions and envelope.in_ascii().needs_utf8():
        return "SMTPUTF8"
    return "8BITMIME" if envelope.eight_bit and "8BITMIME" not in extensions else ""


def in_seven_bits(envelope: Envelope, extensions: Extensions, peer: Peer) -> bool:
    """Whether this server would take the message once it is converted to 7 bits (RFC 6152 section 3)."""
    if not envelope.eight_bit or "8BITMIME" in extensions:
        return False
    if envelope.smtputf8 and "SMTPUTF8" not in extensions:
        envelope = envelope.in_ascii()
    return unfit(dataclasses.replace(envelope, eight_bit=False), extensions, peer) is None


def unconvertible(peer: Peer, why: str) -> Failure:
    """The refusal of a message that this server takes in 7 bits only, and that has no such form."""
    return _lacking(f"554 5.6.3 {peer} takes no 8-bit content, and the message cannot be converted: {why}")


def unfit_recipient(recipient: str, extensions: Extensions, peer: Peer) -> Failure | None:
    """Why this server cannot take the message for this recipient."""
    if FORBIDDEN.search(recipient):
        return _final(str(FORBIDDEN_REPLY), "bad-mailbox")
    if not recipient.isascii() and "SMTPUTF8" not in extensions:
        return _takes_no_utf8(peer, "addresses")
    return None


def _takes_no_utf8(peer: Peer, what: str, code: int = 553) -> Failure:
    return _lacking(f"{code} 5.6.7 {peer} takes no internationalised {what} (SMTPUTF8)")


def _lacking(words: str) -> Failure:
    return Failure(words, "protocol", permanent=True, lacking=True)


def _final(words: str, bounce_class: str) -> Failure:
    return Failure(words, bounce_class, permanent=True)
