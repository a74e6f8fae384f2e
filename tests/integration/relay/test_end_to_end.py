"""Submit, sign, deliver: what a recipient's host finds."""

from __future__ import annotations

import contextlib
import email
import sqlite3
import zlib
from typing import Any

import pytest

from malote_dev.mailworld.behaviour import Action, Behaviour
from malote_dev.mailworld.client import Security
from malote_dev.mailworld.verify import verify


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.TLS])
async def test_a_message_arrives_signed_at_the_recipients_mx(
    relay: Any, world: Any, compose: Any, security: Security
) -> None:
    sent = await relay.send(compose("Olá\r\n.dots\r\n..stay"), security=security)
    assert sent.accepted, sent
    [arrived] = await world.mx.wait_for(1)
    assert arrived.mail_from == "ana@acme.example"
    assert arrived.recipients == ("bob@dest.example",)
    assert arrived.helo == "out.acme.smtp.example"
    assert arrived.content.endswith("\r\n\r\nOlá\r\n.dots\r\n..stay\r\n".encode())
    verdict = await verify(arrived.content, arrived.peer, arrived.helo, arrived.mail_from, world.dns)
    assert verdict.all_pass, verdict


async def test_a_large_message_arrives_whole_and_signed(relay: Any, world: Any, compose: Any) -> None:
    text = "\r\n".join(f"{number:07} {'x' * 60}" for number in range(20_000))
    sent = await relay.send(compose(text))
    assert sent.accepted, sent
    [arrived] = await world.mx.wait_for(1)
    assert arrived.content.partition(b"\r\n\r\n")[2] == text.encode() + b"\r\n"
    verdict = await verify(arrived.content, arrived.peer, arrived.helo, arrived.mail_from, world.dns)
    assert verdict.all_pass, verdict
    assert not list(relay.site.spool.joinpath("incoming").iterdir())


@pytest.mark.parametrize("lines", [1, 20_000])
async def test_a_host_that_takes_seven_bits_gets_them_signed_and_whole(
    relay: Any, world: Any, compose: Any, lines: int
) -> None:
    world.mx.lacking = ["8BITMIME"]
    text = "Olá, são só umas linhas com acentos.\r\n" * lines
    assert (await relay.send(compose(text))).accepted
    [arrived] = await world.mx.wait_for(1)
    assert arrived.content.isascii()
    parsed = email.message_from_bytes(arrived.content)
    assert parsed.get_payload(decode=True) == text.encode() + b"\r\n"
    assert parsed.get_content_charset() == "utf-8"
    verdict = await verify(arrived.content, arrived.peer, arrived.helo, arrived.mail_from, world.dns)
    assert verdict.all_pass, verdict
    assert not list(relay.site.spool.joinpath("incoming").iterdir())


@pytest.mark.parametrize("size", [10, 1_500_000])
async def test_a_bit_that_flips_in_a_message_that_waits_is_seen(
    relay: Any, world: Any, compose: Any, size: int
) -> None:
    """The checksum is that of what was signed, wherever the message was put together."""
    world.mx.behaviour = Behaviour(action=Action.DEFER)
    text = "\r\n".join(["x" * 70] * (size // 70 + 1))
    assert (await relay.send(compose(text))).accepted
    with contextlib.closing(sqlite3.connect(relay.site.spool / "relay.db")) as database:
        ((id, content, kept),) = database.execute("SELECT id, content, checksum FROM messages").fetchall()
    octets = content if content is not None else (relay.site.spool / "spool" / id).read_bytes()
    assert kept == zlib.crc32(octets)
    assert octets.startswith(b"DKIM-Signature:")


async def test_what_goes_out_has_a_date_and_an_id_but_no_bcc_and_no_client_address(
    relay: Any, world: Any, compose: Any
) -> None:
    header = "From: ana@acme.example\r\nBcc: secret@dest.example\r\nSubject: x\r\n"
    assert (await relay.send(compose(header=header))).accepted
    [arrived] = await world.mx.wait_for(1)
    lines = arrived.content.partition(b"\r\n\r\n")[0]
    assert lines.startswith(b"DKIM-Signature:")
    assert b"\r\nDate: " in lines
    assert b"@acme.example>\r\n" in lines
    assert b"Message-ID: <" in lines
    assert b"secret" not in arrived.content
    assert b"127.0.0.1" not in lines
    assert b"client" not in lines
    assert b"Received: by out.acme.smtp.example with ESMTPSA id " in lines
    assert b"acme.smtp.example" not in lines.replace(b"out.acme.smtp.example", b"")


async def test_several_messages_go_over_one_connection_with_pipelined_commands(relay: Any, world: Any) -> None:
    dialogue = await relay.signed_in()
    for _ in range(3):
        dialogue.send(b"MAIL FROM:<ana@acme.example>\r\nRCPT TO:<bob@dest.example>\r\nDATA\r\n")
        assert [(await dialogue.read())[:3] for _ in range(3)] == ["250", "250", "354"]
        dialogue.send(b"From: ana@acme.example\r\n\r\nx\r\n.\r\nNOOP\r\n")
        assert [(await dialogue.read())[:9] for _ in range(2)] == ["250 2.0.0", "250 2.0.0"]
    assert len(await world.mx.wait_for(3)) == 3


async def test_the_metrics_tell_what_happened(start: Any, site: Any, world: Any, compose: Any) -> None:
    site.begin_an_hour()
    relay = await start()
    assert (await relay.send(compose(), to=("bob@dest.example", "eve@dest.example"))).accepted
    await world.mx.wait_for(1)
    assert relay.counted("malote_messages_accepted_total", account="app") == 1
    assert relay.counted("malote_recipients_accepted_total", account="app") == 2
    await relay.relay._refresh()
    assert relay.counted("malote_hour_charged") == 2
    assert relay.counted("malote_hour_limit") == 1000
    assert relay.counted("malote_hour_tolerance") == 200
