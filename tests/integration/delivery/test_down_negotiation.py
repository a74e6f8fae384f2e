"""What a host does not take (RFC 6152, RFC 6531): sent in a form that it takes, or the sender is told why."""

from __future__ import annotations

import base64
import email
import os
from typing import Any

import dkim
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from malote_dev.mailworld.behaviour import Action, Behaviour, Stage
from malote_relay.config import Limits
from malote_relay.signing.keys import SigningKey
from malote_relay.signing.signer import Signer
from malote_relay.store.model import DsnRequest, Result, Return

TEXT = "olá, mundo\r\n".encode()
EIGHT_BIT = b"Subject: x\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + TEXT
UTF8_HEADERS = "Subject: olá\r\n\r\nx\r\n".encode()
SIGNED = (
    b"Subject: x\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + TEXT + b"--b\r\n\r\nsignature\r\n--b--\r\n"
)


@pytest.mark.parametrize(
    ("lacking", "recipient", "content", "code", "words"),
    [
        ("8BITMIME", "bia@shop.example", SIGNED, b"Status: 5.6.3", b"multipart/signed"),
        ("8BITMIME", "bia@shop.example", UTF8_HEADERS, b"Status: 5.6.3", b"header field Subject"),
        ("SMTPUTF8", "bia@shop.example", UTF8_HEADERS, b"Status: 5.6.7", b"internationalised headers"),
        ("SMTPUTF8", "josé@shop.example", b"Subject: x\r\n\r\nx\r\n", b"Status: 5.6.7", b"addresses"),
        ("8BITMIME SMTPUTF8", "josé@shop.example", EIGHT_BIT, b"Status: 5.6.7", b"addresses"),
        ("8BITMIME SMTPUTF8", "bia@shop.example", UTF8_HEADERS, b"Status: 5.6.7", b"internationalised headers"),
    ],
)
async def test_what_a_host_cannot_take_is_told_to_the_sender(
    world: Any, lacking: str, recipient: str, content: bytes, code: bytes, words: bytes
) -> None:
    mx, home = await world.domain("shop.example"), await world.domain("acme.example")
    mx.lacking = lacking.split()
    await world.start()
    await world.send(recipient, content=content, eight_bit=not content.isascii(), smtputf8="SMTPUTF8" in lacking)
    (outcome,) = await world.ended(1)
    assert (outcome.result, outcome.bounce_class) == (Result.FAILED, "protocol")
    report = (await home.wait_for(1))[0].content
    assert code in report
    assert words in b" ".join(report.split())
    assert b"Diagnostic-Code: x-malote; 55" in report
    assert b"Diagnostic-Code: smtp" not in report
    assert b"This relay itself found:" in report
    assert mx.messages == []
    mx.lacking = []
    await world.send("rui@shop.example")
    await mx.wait_for(1)


def _signed(world: Any, content: bytes) -> tuple[Signer, bytes]:
    """A signer for the sender's domain, whose key is published, and the message as the relay accepted it."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    der = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    record = f"v=DKIM1; k=rsa; p={base64.b64encode(private.public_key().public_bytes(*der)).decode()}"
    world.dns.set("m._domainkey.acme.example", "TXT", record)
    return Signer({"acme.example": [SigningKey("m", private)]}), content


def _verifies(world: Any, message: bytes) -> bool:
    """Whether an independent verifier finds its first signature right."""
    try:
        return bool(dkim.DKIM(message).verify(dnsfunc=lambda name, timeout=5: _record(world, name)))
    except dkim.ValidationError:
        return False


def _record(world: Any, name: bytes) -> bytes:
    return str(world.dns.get(name.decode().rstrip("."), "TXT")[0]).encode()


@pytest.mark.parametrize("how", ["EHLO without 8BITMIME", "HELO"])
async def test_eight_bit_content_is_converted_and_signed_again_where_a_host_takes_none(world: Any, how: str) -> None:
    mx = await world.domain("shop.example")
    if how == "HELO":
        mx.behaviour = Behaviour(action=Action.REFUSE, stage=Stage.EHLO, reply="502 5.5.1 what?", times=1)
    else:
        mx.lacking = ["8BITMIME"]
    signer, content = _signed(world, b"From: <app@acme.example>\r\n" + EIGHT_BIT)
    signed = await signer.sign("acme.example", content) + content
    await world.start(sign_again=signer.sign)
    await world.send("bia@shop.example", "rui@shop.example", content=signed, eight_bit=True)
    (message,) = await mx.wait_for(1)
    assert [one.result for one in await world.ended(2)] == [Result.DELIVERED] * 2
    assert message.content.isascii()
    assert "BODY=8BITMIME" not in message.mail_options
    assert message.content.count(b"DKIM-Signature:") == 1
    assert _verifies(world, message.content)
    assert not _verifies(world, message.content.replace(b"mundo", b"munda"))
    assert email.message_from_bytes(message.content).get_payload(decode=True) == TEXT


async def test_a_large_message_is_converted_in_a_file_that_is_gone_afterwards(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.lacking = ["8BITMIME"]
    octets = os.urandom(600_000)
    body = octets.translate(None, b"\r\n\0")
    lines = b"".join(body[at : at + 900] + b"\r\n" for at in range(0, len(body), 900))
    signer, content = _signed(
        world,
        b"From: <app@acme.example>\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + lines,
    )
    signed = await signer.sign("acme.example", content) + content
    await world.start(sign_again=signer.sign)
    await world.send("bia@shop.example", content=signed, eight_bit=True)
    (message,) = await mx.wait_for(1)
    await world.ended(1)
    assert _verifies(world, message.content)
    parsed = email.message_from_bytes(message.content)
    assert parsed["Content-Transfer-Encoding"] == "base64"
    assert parsed.get_payload(decode=True) == lines
    await world.wait(lambda: not list(world.store.incoming.iterdir()))


async def test_another_host_of_the_domain_that_takes_it_gets_it_as_it_is(world: Any) -> None:
    first, second = await world.domain("shop.example"), await world.domain("other.example")
    world.dns.set("shop.example", "MX", f"10 {first.hostname}.", f"20 {second.hostname}.")
    first.lacking = ["8BITMIME", "SMTPUTF8"]
    await world.start()
    await world.send("bia@shop.example", content=EIGHT_BIT, eight_bit=True)
    await world.send("josé@shop.example", content=UTF8_HEADERS, eight_bit=True, smtputf8=True)
    messages = await second.wait_for(2)
    assert {message.content for message in messages} == {EIGHT_BIT, UTF8_HEADERS}
    assert first.messages == []


@pytest.mark.parametrize("other", ["lacks it too", "is down"])
async def test_where_none_takes_it_the_others_are_not_asked_for_each_message(world: Any, other: str) -> None:
    first, second = await world.domain("shop.example"), await world.domain("other.example")
    world.dns.set("shop.example", "MX", f"10 {first.hostname}.", f"20 {second.hostname}.")
    first.lacking = second.lacking = ["8BITMIME"]
    if other == "is down":
        await second.stop()
    await world.start()
    for number in range(1, 4):
        await world.send(f"r{number}@shop.example", content=EIGHT_BIT, eight_bit=True)
        await world.ended(number)
    assert world.results() == [Result.DELIVERED] * 3
    assert len(first.messages) + len(second.messages) == 3
    assert first.connections + second.connections <= 3
    assert all(message.content.isascii() for message in (*first.messages, *second.messages))


async def test_what_it_takes_is_announced(world: Any) -> None:
    mx = await world.domain("shop.example")
    await world.start()
    await world.send("josé@shop.example", content=EIGHT_BIT, eight_bit=True, smtputf8=True)
    (message,) = await mx.wait_for(1)
    assert {"BODY=8BITMIME", "SMTPUTF8"} <= set(message.mail_options)
    assert message.recipients == ("josé@shop.example",)


async def test_smtputf8_that_only_another_domains_recipient_needs_is_not_announced(world: Any) -> None:
    mx, other = await world.domain("shop.example"), await world.domain("other.example")
    await world.start()
    await world.send("josé@shop.example", "bia@other.example", content=b"Subject: x\r\n\r\nx\r\n", smtputf8=True)
    assert "SMTPUTF8" in (await mx.wait_for(1))[0].mail_options
    assert "SMTPUTF8" not in (await other.wait_for(1))[0].mail_options


async def test_a_domain_of_other_letters_goes_in_ascii_where_it_must(world: Any) -> None:
    mx = await world.domain("xn--bcher-kva.example")
    mx.lacking = ["SMTPUTF8"]
    await world.start()
    await world.send("bia@bücher.example", smtputf8=True, content=b"Subject: x\r\n\r\nx\r\n")
    (message,) = await mx.wait_for(1)
    assert message.recipients == ("bia@xn--bcher-kva.example",)
    assert (await world.ended(1))[0].recipient.address == "bia@bücher.example"


async def test_a_notice_with_an_eight_bit_message_in_it_reaches_a_host_that_takes_none(world: Any) -> None:
    mx, home = await world.domain("shop.example"), await world.domain("acme.example")
    mx.behaviour = Behaviour(action=Action.REFUSE)
    home.lacking = ["8BITMIME"]
    await world.start()
    await world.send("bia@shop.example", content=EIGHT_BIT, eight_bit=True, dsn=DsnRequest(ret=Return.FULL))
    report = (await home.wait_for(1))[0].content
    assert report.isascii()
    returned = [part for part in email.message_from_bytes(report).walk() if part.get_content_type() == "text/plain"]
    assert returned[-1].get_payload(decode=True) == TEXT


async def test_without_room_for_the_converted_message_it_waits(world: Any) -> None:
    mx = await world.domain("shop.example")
    mx.lacking = ["8BITMIME"]
    scheduler = await world.start()
    scheduler.reconfigure(msgspec.structs.replace(world.config(), limits=Limits(min_free_bytes=1 << 62)))
    await world.send("bia@shop.example", content=EIGHT_BIT + TEXT * 30_000, eight_bit=True)
    (outcome,) = await world.ended(1)
    assert outcome.result is Result.DEFERRED
    assert outcome.reply.startswith("451 4.3.1 it cannot be converted to 7 bits now")
    scheduler.reconfigure(world.config())
    world.clock.ahead += 3600
    scheduler.clock_changed()
    (message,) = await mx.wait_for(1)
    assert message.content.isascii()
