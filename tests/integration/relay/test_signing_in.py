"""Failed sign-ins are capped per client and per account; nobody else notices."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.relay.running import plain

from malote_relay import passwords

OTHER = "127.0.0.9"


async def sign_in(relay: Any, username: str, password: str = "", *, source: str = "127.0.0.1") -> str:
    """What AUTH is answered on a connection of its own."""
    dialogue = await relay.secure(source=source)
    await dialogue.say("EHLO client.example")
    answer: str = await dialogue.say(f"AUTH PLAIN {plain(username, password or relay.site.password)}")
    if answer.startswith("421 "):
        assert await dialogue.closed()
    return answer[:9]


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passwords that were compared with a verifier."""
    matches, seen = passwords.matches, []

    def compare(password: str, verifier: str) -> bool:
        seen.append(password)
        return matches(password, verifier)

    monkeypatch.setattr(passwords, "matches", compare)
    return seen


async def test_a_client_that_failed_too_often_is_turned_away_unlooked_at(
    start: Callable[[], Any], site: Any, compared: list[str]
) -> None:
    site.change(sign_in={"max_failures_per_client": 2})
    relay = await start()
    assert [await sign_in(relay, f"nobody{n}@acme", "wrong") for n in range(2)] == ["535 5.7.8"] * 2
    assert [await sign_in(relay, name) for name in ("app@acme", "nobody@acme")] == ["421 4.7.0"] * 2
    assert compared == ["wrong"] * 2
    assert await sign_in(relay, "app@acme", source=OTHER) == "235 2.7.0"
    assert relay.counted("malote_messages_refused_total", reason="auth") == 2
    assert relay.counted("malote_messages_refused_total", reason="auth_capped") == 2


async def test_a_client_that_signed_in_before_is_never_turned_away(start: Callable[[], Any], site: Any) -> None:
    site.change(sign_in={"max_failures_per_client": 1, "max_failures_per_client_and_account": 1})
    relay = await start()
    assert await sign_in(relay, "app@acme") == "235 2.7.0"
    assert await sign_in(relay, "app@acme", "wrong") == "535 5.7.8"
    assert await sign_in(relay, "news@acme") == "421 4.7.0"
    assert await sign_in(relay, "app@acme") == "235 2.7.0"


async def test_an_account_under_attack_is_open_to_its_users_and_reads_like_a_name_that_does_not_exist(
    start: Callable[[], Any], site: Any
) -> None:
    site.change(sign_in={"max_failures_per_account": 1})
    relay = await start()
    for username in ("app@acme", "nobody@acme"):
        assert await sign_in(relay, username, "wrong") == "535 5.7.8"
        assert await sign_in(relay, username, "wrong") == "421 4.7.0"
    assert await sign_in(relay, "app@acme") == "421 4.7.0"
    assert await sign_in(relay, "app@acme", source=OTHER) == "235 2.7.0"


async def test_a_suspended_account_may_sign_in_and_reads_why_it_may_not_send(relay: Any) -> None:
    dialogue = await relay.signed_in("old@acme")
    assert (await dialogue.say("MAIL FROM:<ana@acme.example>")).startswith("550 5.7.1 the account old@acme is susp")


async def test_who_does_not_sign_in_has_a_limited_time_in_all(start: Callable[[], Any], site: Any) -> None:
    relay = await start()
    guest = await relay.signed_in()
    site.change(limits={"sign_in_timeout": 0.5})
    await relay.relay._watcher.look()
    stranger = await relay.plain()
    reply = ""
    async with asyncio.timeout(60):
        while not reply.startswith("421 "):
            reply = await stranger.say("NOOP")
            await asyncio.sleep(0.1)
    assert reply.startswith("421 4.4.2")
    assert await stranger.closed()
    assert (await guest.say("NOOP")).startswith("250 ")


async def test_connections_that_never_sign_in_are_limited(start: Callable[[], Any], site: Any) -> None:
    site.change(limits={"max_connections_without_sign_in_per_minute": 3})
    relay = await start()
    relay.relay.server._admission._monotonic = lambda: 30.0
    for _ in range(5):
        (await relay.signed_in()).close()
    for _ in range(3):
        (await relay.plain()).close()
    turned_away = await relay.plain(greet=False)
    assert (await turned_away.read()).startswith("421 4.7.0 too many connections")
    assert await turned_away.closed()
    assert relay.counted("malote_messages_refused_total", reason="sessions") == 1
    (await relay.plain(source=OTHER)).close()


@pytest.mark.parametrize("named", [False, True])
async def test_received_names_the_client_only_when_configured(
    start: Callable[[], Any], site: Any, world: Any, compose: Any, named: bool
) -> None:
    site.change(trace={"client": named})
    relay = await start()
    dialogue = await relay.signed_in()
    for command in ("MAIL FROM:<ana@acme.example>", "RCPT TO:<bob@dest.example>", "DATA"):
        await dialogue.say(command)
    assert (await dialogue.say(compose() + b".\r\n")).startswith("250 ")
    [arrived] = await world.mx.wait_for(1)
    received = next(part for part in arrived.content.split(b"\r\nFrom:")[0].split(b"\r\n") if b"eceived" in part)
    assert (received == b"Received: from client.example ([127.0.0.1])") is named
    assert (b"127.0.0.1" in arrived.content) is named
    assert b"app@acme" not in arrived.content


def token(*parts: str) -> str:
    return base64.b64encode("\0".join(parts).encode()).decode()


async def test_login_signs_in_with_and_without_an_initial_response(relay: Any) -> None:
    name, password = (base64.b64encode(text.encode()).decode() for text in ("app@acme", relay.site.password))
    for first in (["AUTH LOGIN", name], [f"AUTH LOGIN {name}"]):
        dialogue = await relay.secure()
        await dialogue.say("EHLO client.example")
        for line in first:
            assert (await dialogue.say(line)).startswith("334 ")
        assert (await dialogue.say(password)).startswith("235 2.7.0")


async def test_plain_signs_in_without_an_initial_response(relay: Any) -> None:
    dialogue = await relay.secure()
    await dialogue.say("EHLO client.example")
    assert await dialogue.say("AUTH PLAIN") == "334 "
    assert (await dialogue.say(plain("app@acme", relay.site.password))).startswith("235 2.7.0")


async def test_a_wrong_password_and_an_unknown_user_read_the_same(relay: Any, compared: list[str]) -> None:
    answers, seconds = [], []
    for username in ("app@acme", "nobody@acme"):
        dialogue = await relay.secure()
        relay.relay.server.guard.__init__()
        await dialogue.say("EHLO client.example")
        begun = time.monotonic()
        answers.append(await dialogue.say(f"AUTH PLAIN {plain(username, 'wrong')}"))
        seconds.append(time.monotonic() - begun)
    assert answers == ["535 5.7.8 user name or password is wrong"] * 2
    assert compared == ["wrong"] * 2, "and take the same time"
    assert min(seconds) > 0.49  # uvloop counts in whole milliseconds


async def test_failures_take_longer_and_longer_and_end_the_session(start: Callable[[], Any], site: Any) -> None:
    site.change(limits={"max_auth_failures_per_session": 2})
    relay = await start()
    dialogue = await relay.secure()
    await dialogue.say("EHLO client.example")
    seconds = []
    for _ in range(2):
        begun = time.monotonic()
        assert (await dialogue.say(f"AUTH PLAIN {plain('app@acme', 'wrong')}")).startswith("535 5.7.8")
        seconds.append(time.monotonic() - begun)
    assert seconds[0] > 0.49
    assert seconds[1] > 0.99
    right = f"AUTH PLAIN {plain('app@acme', site.password)}"
    assert (await dialogue.say(right)).startswith("421 4.7.0")
    assert await dialogue.closed()
    assert relay.counted("malote_messages_refused_total", reason="auth") == 2
    # Nobody is locked out by the failures of others.
    await relay.signed_in()


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (["AUTH PLAIN ###"], "501 5.5.2"),
        (["AUTH PLAIN", "*"], "501 5.7.0"),
        (["AUTH PLAIN", "x" * 13_000], "500 5.5.6"),
        (["AUTH PLAIN " + token("somebody", "app@acme", "a-password-of-the-tenants")], "535 5.7.8"),
        (["AUTH PLAIN " + token("just one")], "535 5.7.8"),
        (["AUTH PLAIN ="], "535 5.7.8"),
        (["auth login ###"], "501 5.5.2"),
        (["auth Login", "eA==", "###"], "501 5.5.2"),
        (["AUTH LOGIN", "*"], "501 5.7.0"),
        (["AUTH CRAM-MD5"], "504 5.5.4"),
        (["AUTH"], "501 5.5.4"),
        (["AUTH PLAIN eA== eA=="], "501 5.5.4"),
        (["HELO client.example", "AUTH PLAIN"], "503 5.5.1 send EHLO first"),
    ],
)
async def test_a_malformed_sign_in_gets_the_right_code(relay: Any, said: list[str], answer: str) -> None:
    dialogue = await relay.secure()
    await dialogue.say("EHLO client.example")
    for line in said:
        reply = await dialogue.say(line)
    assert reply.startswith(answer)
