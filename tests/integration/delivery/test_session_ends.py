"""Sessions that end otherwise than they should, and what that says of the message: a script plays the server."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from tests.integration.delivery.sessions import PATIENT, envelope, session

from malote_dev.mailworld.scripted import Scripted, scripted
from malote_relay.delivery.dialogue.wire import SessionFailed
from malote_relay.delivery.reply import Failure, Reply


async def test_words_sent_ahead_of_the_tls_handshake_end_the_session() -> None:
    """CVE-2011-0411: clear text injected there would pose as protected."""

    async def script(it: Scripted) -> None:
        await it.greet("STARTTLS")
        await it.hear()
        it.say("220 go ahead", "250 injected")
        await it.hear()

    async with scripted(script) as (port, _):
        with pytest.raises(SessionFailed, match="before the TLS handshake") as caught:
            await session(port, tls=True)
        assert caught.value.tls


@pytest.mark.parametrize(
    ("said", "klass"),
    [("", "timeout"), ("hello there\r\n", "connection"), ("250 ok\r\n250-a\r\n251 b\r\n", "connection")],
)
async def test_silence_and_nonsense_end_in_a_temporary_failure_within_the_limits(said: str, klass: str) -> None:
    async def script(it: Scripted) -> None:
        await it.greet("PIPELINING")
        await it.hear()
        it.writer.write(said.encode())
        await it.hear_content()

    async with scripted(script) as (port, _):
        one = await session(port, timeouts=dataclasses.replace(PATIENT, command=30 if said else 0.5))
        (answer,) = await one.deliver(envelope())
        assert isinstance(answer, Failure)
        assert (answer.bounce_class, answer.permanent, answer.stale) == (klass, False, False)
        assert not one.usable


async def test_a_message_is_delivered_though_rubbish_follows_the_final_reply_in_its_packet() -> None:
    async def script(it: Scripted) -> None:
        await it.greet()
        for reply in ("250 ok", "250 ok", "354 go on"):
            await it.hear()
            it.say(reply)
        await it.hear_content()
        it.say("250 2.0.0 taken", "this is no reply")

    async with scripted(script) as (port, _):
        [only] = await (await session(port)).deliver(envelope("bia@shop.example"))
        assert only == Reply(250, ("2.0.0 taken",))


async def test_a_session_lost_after_the_final_dot_is_a_temporary_failure_but_keeps_what_was_refused() -> None:
    async def script(it: Scripted) -> None:
        await it.greet("PIPELINING")
        for _ in range(4):
            await it.hear()
        it.say("250 ok", "250 ok", "550 5.1.1 no such user", "354 go on")
        await it.hear_content()

    async with scripted(script) as (port, _):
        first, second = await (await session(port)).deliver(envelope("bia@shop.example", "rui@shop.example"))
        assert isinstance(first, Failure)
        assert "end of data" in first.words
        assert second == Reply(550, ("5.1.1 no such user",))


@pytest.mark.parametrize("farewell", ["421 4.4.2 idle for too long", ""])
async def test_a_kept_session_that_has_gone_is_stale_and_not_a_failure_of_the_message(farewell: str) -> None:
    async def script(it: Scripted) -> None:
        await it.greet("PIPELINING")
        for _ in range(3):
            await it.hear()
        it.say("250 ok", "250 ok", "354 go on")
        await it.hear_content()
        it.say("250 taken")
        await it.hear()
        if farewell:
            it.say(farewell)

    async with scripted(script) as (port, _):
        one = await session(port)
        await one.deliver(envelope())
        (answer,) = await one.deliver(envelope())
        assert isinstance(answer, Failure)
        assert answer.stale


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()])
async def test_a_session_that_cannot_be_reset_is_not_gone_on_with(extensions: Sequence[str]) -> None:
    async def script(it: Scripted) -> None:
        await it.greet(*extensions)
        for reply in ("250 ok", "550 5.1.1 no such user", *(["503 5.5.1 no recipient"] if extensions else [])):
            await it.hear()
            it.say(reply)
        await it.hear()
        it.say("502 5.5.1 not here", "503 5.5.1 nested MAIL command")

    async with scripted(script) as (port, _):
        one = await session(port)
        await one.deliver(envelope())
        (answer,) = await one.deliver(envelope())
        assert isinstance(answer, Failure)
        assert answer.stale
        assert not one.usable


@pytest.mark.parametrize(
    ("words", "permanent"),
    [
        ("421 4.3.2 busy", False),
        ("554 5.7.1 go away", False),
        ("550 5.7.1 not you", False),
        ("521 5.3.2 no mail here", True),
        ("556 5.1.10 no mail for that domain", True),
    ],
)
@pytest.mark.parametrize("greeted", [False, True], ids=["greeting", "EHLO and HELO"])
async def test_a_refused_session_is_refused_for_good_only_where_no_mail_is_taken_at_all(
    words: str, permanent: bool, greeted: bool
) -> None:
    """RFC 7504. A 554 in place of a greeting is about our address, today: nothing bounces for it."""

    async def script(it: Scripted) -> None:
        if greeted:
            it.say("220 mx.example ESMTP")
            await it.hear()
            it.say(words)
            await it.hear()
        it.say(words)

    async with scripted(script) as (port, _):
        with pytest.raises(SessionFailed) as caught:
            await session(port)
        assert caught.value.failure.permanent is permanent
        assert caught.value.failure.words.startswith(words)
        assert caught.value.host
