"""What a client asks for with DSN (RFC 3461) is kept with each recipient."""

from __future__ import annotations

from typing import Any

import pytest

from malote_relay.store.model import NO_DSN, DsnRequest, Notify, Return

CONTENT = "From: ana@acme.example\r\n\r\nx\r\n."


@pytest.fixture
def kept(relay: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The messages that reach the store."""
    messages: list[Any] = []
    accept = relay.relay._store.accept

    async def note(message: Any) -> Any:
        messages.append(message)
        return await accept(message)

    monkeypatch.setattr(relay.relay._store, "accept", note)
    return messages


async def send(relay: Any, mail: str, *rcpts: str) -> None:
    dialogue = await relay.signed_in()
    for command in (f"MAIL FROM:<ana@acme.example>{mail}", *(f"RCPT TO:{rcpt}" for rcpt in rcpts)):
        assert (await dialogue.say(command)).startswith("250 "), command
    await dialogue.say("DATA")
    assert (await dialogue.say(CONTENT)).startswith("250 ")


async def test_each_recipient_keeps_what_was_asked_for_it(relay: Any, kept: list[Any]) -> None:
    await send(
        relay,
        " RET=hdrs ENVID=Q+2BQ",
        "<a@dest.example> NOTIFY=success,Failure ORCPT=rfc822;Bob+40old.example",
        "<b@dest.example> NOTIFY=NEVER",
        "<c@dest.example>",
    )
    [message] = kept
    assert [one.dsn for one in message.recipients] == [
        DsnRequest(Notify.SUCCESS | Notify.FAILURE, True, "rfc822;Bob+40old.example", "Q+2BQ", Return.HEADERS),
        DsnRequest(Notify.NEVER, True, "", "Q+2BQ", Return.HEADERS),
        DsnRequest(Notify.DEFAULT, False, "", "Q+2BQ", Return.HEADERS),
    ]


async def test_who_asks_for_nothing_keeps_nothing(relay: Any, kept: list[Any]) -> None:
    await send(relay, "", "<a@dest.example>")
    assert kept[0].recipients[0].dsn is NO_DSN


async def test_a_recipient_named_twice_hears_what_either_asked_for(relay: Any, kept: list[Any]) -> None:
    await send(
        relay,
        "",
        "<a@dest.example> NOTIFY=DELAY ORCPT=rfc822;first@x.example",
        "<a@DEST.example> NOTIFY=SUCCESS ORCPT=rfc822;second@x.example",
    )
    [recipient] = kept[0].recipients
    assert recipient.dsn == DsnRequest(Notify.SUCCESS | Notify.DELAY, True, "rfc822;first@x.example")
