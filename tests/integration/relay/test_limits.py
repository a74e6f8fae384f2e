"""What is limited: sessions, recipients, what is in flight, room on the disk; and a store that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

# Limits.


async def test_sessions_are_limited_in_all_and_per_client(
    start: Callable[[], Any], site: Any, eventually: Any
) -> None:
    site.change(limits={"max_sessions": 3, "max_sessions_per_client": 2})
    relay = await start()
    first, second = await relay.plain(), await relay.plain()
    third = await relay.plain(greet=False)
    assert (await third.read()).startswith("421 4.7.0 too many sessions are open from your address")
    assert await third.closed()
    first.close()
    await eventually(lambda: relay.counted("malote_sessions") < 2)
    await relay.plain()
    site.change(limits={"max_sessions_per_client": 50, "max_sessions": 2})
    await relay.relay._watcher.look()
    fourth = await relay.plain(greet=False)
    assert (await fourth.read()).startswith("421 4.7.0 too many sessions are open:")
    second.close()


async def test_recipients_of_a_message_are_limited(start: Callable[[], Any], site: Any) -> None:
    site.change(plan={"max_recipients": 2})
    relay = await start()
    dialogue = await relay.signed_in()
    await dialogue.say("MAIL FROM:<ana@acme.example>")
    answers = [(await dialogue.say(f"RCPT TO:<r{n}@dest.example>"))[:9] for n in range(3)]
    assert answers == ["250 2.1.5", "250 2.1.5", "452 4.5.3"]


@pytest.mark.parametrize(
    ("recipients", "command", "answer"),
    [
        (1, "RCPT TO:<gone@dest.example>", "550 5.7.1"),  # suppressed
        (2, "RCPT TO:<eve@dest.example>", "452 4.5.3"),  # one more than a message may have
        (1, "RCPT TO:<bob@dest.example>", "250 2.1.5"),  # named before
        (0, "MAIL FROM:<ana@other.example>", "550 5.7.1"),
    ],
)
async def test_refusals_without_end_end_the_session(
    site: Any, start: Callable[[], Any], recipients: int, command: str, answer: str
) -> None:
    site.change(limits={"max_refused_per_session": 30}, plan={"max_recipients": 2})
    relay = await start()
    await relay.relay.suppressions.add("gone@dest.example")
    dialogue = await relay.signed_in()
    if recipients:
        assert (await dialogue.say("MAIL FROM:<ana@acme.example>")).startswith("250 ")
    for recipient in ("bob@dest.example", "rui@dest.example")[:recipients]:
        assert (await dialogue.say(f"RCPT TO:<{recipient}>")).startswith("250 ")
    dialogue.send(f"{command}\r\n".encode() * 40)
    replies = [await dialogue.read() for _ in range(30)]
    assert {reply[:9] for reply in replies} == {answer}
    assert (await dialogue.read()).startswith("421 4.7.0 too many recipients and messages were refused")
    assert await dialogue.closed()
    await relay.keeps_nothing()


async def test_a_message_that_is_taken_forgives_what_was_refused_before_it(
    site: Any, start: Callable[[], Any]
) -> None:
    site.change(limits={"max_refused_per_session": 3})
    relay = await start()
    await relay.relay.suppressions.add("gone@dest.example")
    dialogue = await relay.signed_in()
    for _ in range(3):
        assert (await dialogue.say("MAIL FROM:<ana@acme.example>")).startswith("250 ")
        for _ in range(2):
            assert (await dialogue.say("RCPT TO:<gone@dest.example>")).startswith("550 ")
        assert (await dialogue.say("RCPT TO:<bob@dest.example>")).startswith("250 ")
        assert (await dialogue.say("DATA")).startswith("354 ")
        assert (await dialogue.say(b"From: <ana@acme.example>\r\n\r\nHello\r\n.\r\n")).startswith("250 ")


async def test_a_recipient_named_twice_costs_one_unit(start: Callable[[], Any], site: Any) -> None:
    site.begin_an_hour()
    relay = await start()
    dialogue = await relay.at_data("bob@dest.example", "bob@DEST.example")
    assert relay.reserved() == 1
    assert (await dialogue.say("From: ana@acme.example\r\n\r\nx\r\n.")).startswith("250")
    assert await relay.stored() == 1


async def test_too_much_in_flight_is_put_off(start: Callable[[], Any], site: Any) -> None:
    site.change(limits={"max_body_bytes_in_flight": 100_000})
    relay = await start()
    dialogue = await relay.at_data()
    dialogue.send(b"From: ana@acme.example\r\n\r\n" + (b"x" * 70 + b"\r\n") * 3000 + b".\r\n")
    assert (await dialogue.read()).startswith("452 4.3.1 too much mail")
    await relay.keeps_nothing()


async def test_a_floor_of_free_space_is_kept(start: Callable[[], Any], site: Any) -> None:
    site.change(limits={"min_free_bytes": 1 << 60})
    relay = await start()
    dialogue = await relay.signed_in()
    assert (await dialogue.say("MAIL FROM:<ana@acme.example>")).startswith("452 4.3.1 no room")


async def test_a_store_that_fails_gives_the_units_back(relay: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from malote_relay.store.model import DiskFull, StoreError

    for failure, answer in (
        (DiskFull("full"), "452 4.3.1"),
        (StoreError("broken"), "451 4.3.0"),
    ):

        async def fail(message: Any, failure: Exception = failure) -> None:
            raise failure

        with monkeypatch.context() as patch:
            patch.setattr(relay.relay._store, "accept", fail)
            dialogue = await relay.at_data()
            assert (await dialogue.say("From: ana@acme.example\r\n\r\nx\r\n.")).startswith(answer)
        await relay.keeps_nothing()
        assert (await dialogue.say("NOOP")).startswith("250")


async def test_a_message_that_is_kept_is_acknowledged_though_delivery_fails_to_take_it(
    relay: Any, world: Any, compose: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told anything else its client would bring it again. It is found in the store in its turn."""
    take, failed = relay.relay._scheduler._window.take, False

    def fails_first(job: Any) -> None:
        nonlocal failed
        if not failed:
            failed = True
            raise RuntimeError
        take(job)

    monkeypatch.setattr(relay.relay._scheduler._window, "take", fails_first)
    assert (await relay.send(compose())).accepted
    await world.mx.wait_for(1)
    assert failed
