"""Sessions with a server that a script plays, and messages to send over them."""

from __future__ import annotations

import ipaddress

from malote_relay.delivery.content import Content
from malote_relay.delivery.dialogue.connection import Session, open_session
from malote_relay.delivery.dialogue.envelope import Envelope
from malote_relay.delivery.peer import Identity, Peer, Timeouts
from malote_relay.delivery.tls.handshake import opportunistic_tls
from malote_relay.store.contents import StoredFile

CONTENT = b"Subject: x\r\n\r\n.hidden dot\r\n"
PATIENT = Timeouts(connect=30, greeting=30, command=30, tls=30, data=30, block=30, final=30, quit=0.2)
"""For whoever waits for what a server says; a slow machine says it late."""


def at(port: int) -> Peer:
    """The server, which listens on loopback."""
    return Peer("mx.example", ipaddress.ip_address("127.0.0.1"), port)


async def session(port: int, *, tls: bool = False, timeouts: Timeouts = PATIENT) -> Session:
    """A session with it, after EHLO."""
    return await open_session(at(port), Identity("relay.example"), timeouts, opportunistic_tls() if tls else None)


def envelope(
    *recipients: str,
    content: bytes | StoredFile = CONTENT,
    eight_bit: bool = False,
    smtputf8: bool = False,
    size: int = 0,
) -> Envelope:
    """A message to bia@shop.example unless others are named."""
    return Envelope(
        "app@acme.example",
        recipients or ("bia@shop.example",),
        Content(content),
        size or len(CONTENT),
        eight_bit,
        smtputf8,
    )
