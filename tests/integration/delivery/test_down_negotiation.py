"""What a host does not take (RFC 6152, RFC 6531): sent in a form that it takes, or the sender is told why."""

from __future__ import annotations

from typing import Any

import pytest

from malote_relay.store.model import Result

EIGHT_BIT = "Subject: x\r\nContent-Transfer-Encoding: 8bit\r\n\r\nolá\r\n".encode()
UTF8_HEADERS = "Subject: olá\r\n\r\nx\r\n".encode()


@pytest.mark.parametrize(
    ("lacking", "recipient", "content", "code"),
    [
        ("8BITMIME", "bia@shop.example", EIGHT_BIT, b"Status: 5.6.3"),
        ("SMTPUTF8", "bia@shop.example", UTF8_HEADERS, b"Status: 5.6.7"),
        ("SMTPUTF8", "josé@shop.example", b"Subject: x\r\n\r\nx\r\n", b"Status: 5.6.7"),
    ],
)
async def test_what_a_host_cannot_take_is_told_to_the_sender(
    world: Any, lacking: str, recipient: str, content: bytes, code: bytes
) -> None:
    mx, home = await world.domain("shop.example"), await world.domain("acme.example")
    mx.lacking = [lacking]
    await world.start()
    await world.send(recipient, content=content, eight_bit=content is EIGHT_BIT, smtputf8=lacking == "SMTPUTF8")
    (outcome,) = await world.ended(1)
    assert (outcome.result, outcome.bounce_class) == (Result.FAILED, "protocol")
    report = (await home.wait_for(1))[0].content
    assert code in report
    assert b"Diagnostic-Code: x-malote; 55" in report
    assert b"Diagnostic-Code: smtp" not in report
    assert b"This relay itself found:" in report
    assert mx.messages == []
    mx.lacking = []
    await world.send("rui@shop.example")
    await mx.wait_for(1)


async def test_what_it_takes_is_announced(world: Any) -> None:
    mx = await world.domain("shop.example")
    await world.start()
    await world.send("josé@shop.example", content=EIGHT_BIT, eight_bit=True, smtputf8=True)
    (message,) = await mx.wait_for(1)
    assert {"BODY=8BITMIME", "SMTPUTF8"} <= set(message.mail_options)
    assert message.recipients == ("josé@shop.example",)


async def test_a_domain_of_other_letters_goes_in_ascii_where_it_must(world: Any) -> None:
    mx = await world.domain("xn--bcher-kva.example")
    mx.lacking = ["SMTPUTF8"]
    await world.start()
    await world.send("bia@bücher.example", smtputf8=True, content=b"Subject: x\r\n\r\nx\r\n")
    (message,) = await mx.wait_for(1)
    assert message.recipients == ("bia@xn--bcher-kva.example",)
    assert (await world.ended(1))[0].recipient.address == "bia@bücher.example"
