"""Whether a server can take a message at all, by the extensions it offers: what no retry would change. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from malote_relay.delivery.dialogue.envelope import Envelope
from malote_relay.delivery.peer import Peer
from malote_relay.delivery.reply import Reply

Extensions = Mapping[str, str]
"""What the server offers: the keywords of its answer to EHLO (RFC 5321 section 4.1.1.1), with their parameters."""

FORBIDDEN_REPLY = Reply(553, ("5.1.3 the address has a control character in it",))
FORBIDDEN = re.compile(r"[\x00-\x1f\x7f]")


def unfit(envelope: Envelope, extensions: Extensions, peer: Peer) -> Reply | None:
    """Why this server cannot take this message whatever it would say, as a reply."""
    if FORBIDDEN.search(envelope.reverse_path):
        return FORBIDDEN_REPLY
    if envelope.smtputf8 and "SMTPUTF8" not in extensions:
        # RFC 6531 section 3.2. A client may have asked for SMTPUTF8 without needing it.
        if not envelope.reverse_path.isascii():
            return _takes_no_utf8(peer, "addresses")
        if not envelope.content.headers().isascii():
            return _takes_no_utf8(peer, "headers", 554)
    if envelope.eight_bit and "8BITMIME" not in extensions:
        # RFC 6152 section 3: converting would break the DKIM signature.
        return Reply(554, (f"5.6.3 {peer} takes no 8-bit content, and conversion would break its signature",))
    limit = extensions.get("SIZE", "")
    if limit.isdigit() and 0 < int(limit) < envelope.size:
        return Reply(552, (f"5.3.4 {peer} takes {limit} octets at most, the message has {envelope.size}",))
    return None


def unfit_recipient(recipient: str, extensions: Extensions, peer: Peer) -> Reply | None:
    """Why this server cannot take the message for this recipient."""
    if FORBIDDEN.search(recipient):
        return FORBIDDEN_REPLY
    if not recipient.isascii() and "SMTPUTF8" not in extensions:
        return _takes_no_utf8(peer, "addresses")
    return None


def _takes_no_utf8(peer: Peer, what: str, code: int = 553) -> Reply:
    return Reply(code, (f"5.6.7 {peer} takes no internationalised {what} (SMTPUTF8)",))
