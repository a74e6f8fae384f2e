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


async def test_a_recipient_named_twice_costs_one_unit(relay: Any) -> None:
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
