"""What is TLS trouble and what is not: only the former may lead to clear text (RFC 3207, RFC 7435)."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import os
import socket
import ssl
import struct

import pytest

from malote_dev.mailworld.certificates import CertificateAuthority
from malote_dev.mailworld.scripted import Script, Scripted, scripted
from malote_relay.config import Delivery, Plan, RelayConfig
from malote_relay.delivery.dialogue.connection import open_session
from malote_relay.delivery.dialogue.wire import SessionFailed
from malote_relay.delivery.peer import Identity, Peer, Timeouts
from malote_relay.delivery.tls.handshake import opportunistic_tls
from malote_relay.resolver import IPAddress, Mx
from malote_relay.senders import CalloutProbe, Standing
from malote_relay.submission.address import Mailbox

PATIENT = Timeouts(connect=30, greeting=30, command=30, tls=30, data=30, block=30, final=30, quit=0.2)


@pytest.fixture
def context(authority: CertificateAuthority) -> ssl.SSLContext:
    return authority.server_context(["mx.example"])


async def failure(script: Script, timeouts: Timeouts = PATIENT) -> SessionFailed:
    async with scripted(script) as (port, _):
        peer = Peer("mx.example", ipaddress.ip_address("127.0.0.1"), port)
        with pytest.raises(SessionFailed) as caught:
            await open_session(peer, Identity("relay.example"), timeouts, opportunistic_tls())
    return caught.value


@pytest.mark.parametrize("hangs_up", [False, True])
@pytest.mark.parametrize("words", ["421 4.3.2 too busy", "451 4.7.1 later", "554 5.7.1 not you"])
async def test_a_reply_over_tls_means_what_it_would_mean_without(
    context: ssl.SSLContext, words: str, hangs_up: bool
) -> None:
    async def script(it: Scripted) -> None:
        await it.greet("STARTTLS")
        await it.secure(context)
        await it.hear()
        it.say(words)
        if words.startswith("5"):
            await it.hear()  # HELO
            it.say(words)
        if not hangs_up:
            await it.hear()

    failed = await failure(script)
    assert failed.tls is None
    assert failed.failure.words.startswith(words)
    assert failed.host


async def test_nor_is_silence_over_tls_tls_trouble(context: ssl.SSLContext) -> None:
    async def script(it: Scripted) -> None:
        await it.greet("STARTTLS")
        await it.secure(context)
        await it.hear()
        await it.hear()  # until the client has had enough

    failed = await failure(script, dataclasses.replace(PATIENT, command=0.5))
    assert (failed.tls, failed.failure.bounce_class) == (None, "timeout")


async def test_a_host_that_closes_at_starttls_is_busy_and_not_without_tls() -> None:
    async def script(it: Scripted) -> None:
        await it.greet("STARTTLS")
        await it.hear()
        it.say("421 4.3.2 too busy")

    failed = await failure(script)
    assert failed.tls is None
    assert failed.failure.words.startswith("421 4.3.2 too busy")


async def test_an_alert_is_lasting_trouble_even_after_our_side_of_the_handshake(
    authority: CertificateAuthority, context: ssl.SSLContext
) -> None:
    """A server that wants a certificate says so with TLS 1.3 once the handshake is over for us."""
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority.pem.decode())

    def shake_hands(connection: socket.socket) -> None:
        # The system's own sockets: asyncio's would close without sending the alert.
        connection.setblocking(True)
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(connection, server_side=True):
            pass

    async def script(it: Scripted) -> None:
        await it.greet("STARTTLS")
        await it.hear()
        it.pause()
        it.say("220 go ahead")
        carrier = socket.socket(fileno=os.dup(it.writer.get_extra_info("socket").fileno()))
        await asyncio.to_thread(shake_hands, carrier)

    failed = await failure(script)
    assert failed.tls is not None
    assert failed.tls.lasting


async def test_what_is_not_tls_is_lasting_trouble() -> None:
    async def script(it: Scripted) -> None:
        await it.greet("STARTTLS")
        await it.hear()
        it.say("220 go ahead")
        await it.reader.read(1)
        it.say("454 4.3.0 no after all")

    failed = await failure(script)
    assert failed.tls is not None
    assert failed.tls.lasting


@pytest.mark.parametrize("done", [False, True], ids=["in the handshake", "right after it"])
async def test_a_connection_that_is_cut_off_may_be_anybodys_doing(context: ssl.SSLContext, done: bool) -> None:
    async def script(it: Scripted) -> None:
        await it.greet("STARTTLS")
        if done:
            await it.secure(context)
        else:
            await it.hear()
            it.say("220 go ahead")
            await it.reader.read(1)
        at_once = struct.pack("ii", 1, 0)
        it.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        it.writer.transport.abort()

    failed = await failure(script)
    assert failed.tls is not None
    assert not failed.tls.lasting


class Names:
    async def mx(self, domain: str) -> tuple[Mx, ...]:
        return (Mx(10, "mx.example"),)

    async def addresses(self, host: str) -> tuple[IPAddress, ...]:
        return (ipaddress.ip_address("127.0.0.1"),)


async def test_a_call_out_that_is_answered_over_tls_is_not_made_again_in_clear(context: ssl.SSLContext) -> None:
    async def script(it: Scripted) -> None:
        await it.greet("STARTTLS")
        await it.secure(context)
        await it.hear()
        it.say("421 4.3.2 too busy")

    async with scripted(script) as (port, connections):
        config = RelayConfig(
            tenant="acme",
            hostname="relay.example",
            plan=Plan(name="p", messages_per_hour=1),
            delivery=Delivery(helo_name="out.relay.example", smtp_port=port, allow_networks=("127.0.0.0/8",)),
        )
        found = await CalloutProbe(Names(), config)(Mailbox("ana", "acme.example"))
    assert found.standing is Standing.UNKNOWN
    assert "too busy" in found.words
    assert len(connections) == 1
