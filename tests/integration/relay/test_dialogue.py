"""What the relay answers to clients that do it right, do it wrong, or do nothing at all."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from malote_relay.submission.session import MAX_BAD_COMMANDS, MAX_IDLE_COMMANDS

ENHANCED = re.compile(r"[245]\d\d [245]\.\d{1,3}\.\d{1,3} \S")


async def nothing_kept(relay: Any) -> None:
    """No unit reserved or charged, nothing queued, no file left."""
    for _ in range(200):
        if not relay.reserved():
            break
        await asyncio.sleep(0.02)
    assert relay.reserved() == 0
    assert await relay.stored() == 0
    state = await relay.relay._store.queue_state(time.time())
    assert (state.ready, state.deferred, state.held) == (0, 0, 0)
    assert not list(relay.site.spool.joinpath("incoming").iterdir())
    assert relay.relay._door.spool.in_flight == 0


async def healthy(relay: Any, compose: Any) -> None:
    assert (await relay.send(compose())).accepted


# What EHLO offers.


async def test_before_tls_auth_is_not_offered_and_starttls_is(relay: Any) -> None:
    dialogue = await relay.plain()
    offered = await dialogue.say("EHLO client.example")
    assert [line[4:] for line in offered.splitlines()] == [
        "acme.smtp.example", "PIPELINING", "SIZE 2000000", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN",
        "ENHANCEDSTATUSCODES", "STARTTLS",
    ]  # fmt: skip


async def test_after_tls_auth_is_offered_and_starttls_is_not(relay: Any) -> None:
    dialogue = await relay.secure()
    offered = await dialogue.say("EHLO client.example")
    assert [line[4:] for line in offered.splitlines()] == [
        "acme.smtp.example", "PIPELINING", "SIZE 2000000", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN",
        "ENHANCEDSTATUSCODES", "AUTH PLAIN LOGIN",
    ]  # fmt: skip


# TLS.


@pytest.mark.parametrize(
    "command", ["AUTH PLAIN AGEAYg==", "MAIL FROM:<ana@acme.example>", "DATA", "RCPT TO:<a@b.c>"]
)
async def test_without_tls_nothing_is_taken(relay: Any, command: str) -> None:
    dialogue = await relay.plain()
    await dialogue.say("EHLO client.example")
    assert (await dialogue.say(command)).startswith("530 5.7.0 send STARTTLS first")


async def test_commands_put_in_before_the_handshake_are_dropped(relay: Any) -> None:
    dialogue = await relay.plain()
    await dialogue.say("EHLO client.example")
    dialogue.send(b"STARTTLS\r\nNOOP\r\nEHLO injected.example\r\n")
    assert (await dialogue.read()).startswith("220 2.0.0")
    await dialogue.writer.start_tls(relay.site.client_context(), server_hostname="acme.smtp.example")
    assert (await dialogue.say("MAIL FROM:<a@acme.example>")).startswith("503 5.5.1 send EHLO first")


async def test_starttls_forgets_what_was_said_before(relay: Any) -> None:
    dialogue = await relay.secure()
    assert (await dialogue.say("AUTH PLAIN AGEAYg==")).startswith("503 5.5.1 send EHLO first")


async def test_tls_is_not_begun_twice(relay: Any) -> None:
    dialogue = await relay.secure()
    await dialogue.say("EHLO client.example")
    assert (await dialogue.say("STARTTLS")).startswith("503 5.5.1")


# AUTH.


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
    assert (await dialogue.say(token("", "app@acme", relay.site.password))).startswith("235 2.7.0")


async def test_a_wrong_password_and_an_unknown_user_read_the_same(relay: Any) -> None:
    answers, seconds = [], []
    for username in ("app@acme", "nobody@acme"):
        dialogue = await relay.secure()
        relay.relay.server.guard.__init__()
        await dialogue.say("EHLO client.example")
        begun = time.monotonic()
        answers.append(await dialogue.say(f"AUTH PLAIN {token('', username, 'wrong')}"))
        seconds.append(time.monotonic() - begun)
    assert answers == ["535 5.7.8 user name or password is wrong"] * 2
    assert abs(seconds[0] - seconds[1]) < 0.2
    assert min(seconds) > 0.49  # uvloop counts in whole milliseconds


async def test_failures_take_longer_and_longer_and_end_the_session(start: Callable[[], Any], site: Any) -> None:
    site.change(limits={"max_auth_failures_per_session": 2})
    relay = await start()
    dialogue = await relay.secure()
    await dialogue.say("EHLO client.example")
    seconds = []
    for _ in range(2):
        begun = time.monotonic()
        assert (await dialogue.say(f"AUTH PLAIN {token('', 'app@acme', 'wrong')}")).startswith("535 5.7.8")
        seconds.append(time.monotonic() - begun)
    assert seconds[1] > seconds[0] + 0.3
    right = f"AUTH PLAIN {token('', 'app@acme', site.password)}"
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


# Malformed commands.


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (b"\r\n", "500 5.5.2"),
        (b"WHAT\r\n", "500 5.5.2"),
        (b"MAIL\xff\xfe FROM\r\n", "500 5.5.2"),
        (b"NOOP\n", "500 5.5.2 end every line with CR LF"),
        (b"NO\rOP\r\n", "500 5.5.2 end every line with CR LF"),
        (b"NO\0OP\r\n", "500 5.5.2 end every line with CR LF"),
        (b"NOOP " + b"x" * 2048 + b"\r\n", "500 5.5.2 the command line is too long"),
        (b"NOOP " + b"x" * 300_000 + b"\r\n", "500 5.5.2 the command line is too long"),
        (b"EXPN staff\r\n", "502 5.5.1"),
        (b"BDAT 3 LAST\r\nabc", "503 5.5.1"),
        (b"EHLO\r\n", "501 5.5.4"),
        (b"RSET now\r\n", "501 5.5.4"),
        (b"QUIT now\r\n", "501 5.5.4"),
        (b"VRFY ana\r\n", "252 2.1.5"),
        (b"HELP\r\n", "214 2.0.0"),
        (b"RCPT TO:<bob@dest.example>\r\n", "503 5.5.1"),
        (b"DATA\r\n", "503 5.5.1"),
        (b"MAIL\r\n", "501 5.5.4"),
        (b"MAIL FROM ana@acme.example\r\n", "501 5.5.4"),
        (b"MAIL FROM:ana@acme.example\r\n", "553 5.1.7"),
        (b"MAIL FROM:<ana@acme.example\r\n", "553 5.1.7"),
        (b"MAIL FROM:<ana>\r\n", "553 5.1.7"),
        (b"MAIL FROM:<ana@acme_example>\r\n", "553 5.1.7"),
        (b"MAIL FROM:<ana@acme.example> SIZE=x\r\n", "501 5.5.4"),
        (b"MAIL FROM:<ana@acme.example> BODY=BINARYMIME\r\n", "555 5.6.1"),
        (b"MAIL FROM:<ana@acme.example> BODY=9BIT\r\n", "501 5.5.4"),
        (b"MAIL FROM:<ana@acme.example> RET=SOME\r\n", "501 5.5.4 write RET=FULL or RET=HDRS"),
        (b"MAIL FROM:<ana@acme.example> RET\r\n", "501 5.5.4"),
        (b"MAIL FROM:<ana@acme.example> RET=FULL RET=FULL\r\n", "501 5.5.4"),
        (b"MAIL FROM:<ana@acme.example> ENVID=\r\n", "501 5.5.4"),
        (b"MAIL FROM:<ana@acme.example> ENVID=a+b\r\n", "501 5.5.4 ENVID must be xtext"),
        (b"MAIL FROM:<ana@acme.example> NOTIFY=NEVER\r\n", "555 5.5.4"),
        (b"MAIL FROM:<ana@acme.example> SIZE=2000001\r\n", "552 5.3.4"),
        ("MAIL FROM:<joão@acme.example>\r\n".encode(), "553 5.6.7"),
    ],
)
async def test_a_malformed_command_gets_the_right_code(relay: Any, command: bytes, answer: str) -> None:
    dialogue = await relay.signed_in()
    reply = await dialogue.say(command)
    assert reply.startswith(answer)
    assert ENHANCED.match(reply)
    assert (await dialogue.say("NOOP")).startswith("250 2.0.0")
    await nothing_kept(relay)


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("RCPT TO:<>", "553 5.1.3"),
        ("RCPT TO:<bob@[127.0.0.1]>", "553 5.1.3"),
        ("RCPT TO:<bob@localhost>", "553 5.1.3"),
        ("RCPT TO:<postmaster>", "250 2.1.5"),
        ("RCPT TO:<josé@dest.example>", "553 5.6.7"),
        ("RCPT TO:<bob@dest.example> NOTIFY=NEVER,DELAY", "501 5.5.4 write NOTIFY=NEVER, or"),
        ("RCPT TO:<bob@dest.example> NOTIFY=", "501 5.5.4"),
        ("RCPT TO:<bob@dest.example> NOTIFY=NEVER NOTIFY=NEVER", "501 5.5.4"),
        ("RCPT TO:<bob@dest.example> ORCPT=bob@dest.example", "501 5.5.4"),
        ("RCPT TO:<bob@dest.example> RET=FULL", "555 5.5.4"),
        ("RCPT TO:<@relay.example:bob@dest.example>", "250 2.1.5"),
        ('RCPT TO:<"b>ob"@dest.example>', "250 2.1.5"),
        ("MAIL FROM:<ana@acme.example>", "503 5.5.1"),
        ("AUTH PLAIN", "503 5.5.1"),
        ("DATA", "503 5.5.1"),
    ],
)
async def test_a_malformed_recipient_gets_the_right_code(relay: Any, command: str, answer: str) -> None:
    dialogue = await relay.signed_in()
    assert (await dialogue.say("MAIL FROM:<ana@acme.example>")).startswith("250 2.1.0")
    assert (await dialogue.say(command)).startswith(answer)


async def test_international_addresses_are_taken_with_smtputf8(relay: Any, world: Any) -> None:
    world.dns.set("xn--nandu-pta.example", "MX", "10 mx.dest.example.")
    dialogue = await relay.signed_in()
    assert (await dialogue.say("MAIL FROM:<ana@acme.example> SMTPUTF8 BODY=8BITMIME")).startswith("250")
    assert (await dialogue.say("RCPT TO:<josé@ñandu.example>")).startswith("250")
    await dialogue.say("DATA")
    assert (await dialogue.say("From: Ana <ana@acme.example>\r\n\r\nolá\r\n.")).startswith("250 2.0.0")


async def test_too_many_bad_commands_end_the_session(relay: Any) -> None:
    dialogue = await relay.plain()
    for _ in range(MAX_BAD_COMMANDS):
        assert (await dialogue.say("WHAT")).startswith("500")
    assert (await dialogue.say("WHAT")).startswith("500")
    assert (await dialogue.read()).startswith("421 4.7.0")
    assert await dialogue.closed()


@pytest.mark.parametrize("command", ["NOOP", "EHLO client.example", "HELO client.example", "RSET", "HELP"])
async def test_commands_that_lead_nowhere_end_the_session(relay: Any, command: str) -> None:
    dialogue = await relay.plain()
    dialogue.send(f"{command}\r\n".encode() * 150)
    replies = [(await dialogue.read())[:2] for _ in range(MAX_IDLE_COMMANDS + 1)]
    assert set(replies) <= {"25", "21"}
    assert (await dialogue.read()).startswith("421 4.7.0")
    assert await dialogue.closed()


# Content.


@pytest.mark.parametrize(
    "variant",
    [
        b"\n.\n",
        b"\r.\r",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r\n.\r",
        b"\r.\r\n",
        b"\r\n\0.\r\n",
        b"\n\n.\r\n",
        b"\r\n.\r\r\n",
        b"\n.\r\r\n",
        b"\r.\n",
        b"\r\n.\0\r\n",
        b"\r\n.\r\0\n",
        b"\r\0\n.\r\n",
        b"\r\n. \r\n\n",
        b"\n\r.\n\r",
        b"\x0b.\x0b\n",
        b"\xc2\x85.\xc2\x85\r",
    ],
)
@pytest.mark.parametrize("split", [False, True])
async def test_no_variant_of_the_end_smuggles_a_message_in(
    relay: Any, world: Any, compose: Any, variant: bytes, split: bool
) -> None:
    dialogue = await relay.at_data()
    smuggled = b"MAIL FROM:<ceo@acme.example>\r\nRCPT TO:<eve@dest.example>\r\nDATA\r\nFrom: x@y.z\r\n\r\nboo"
    octets = b"From: ana@acme.example\r\n\r\nfirst" + variant + smuggled + b"\r\n.\r\n"
    for piece in [octets[i : i + 1] for i in range(len(octets))] if split else [octets]:
        dialogue.send(piece)
        if split:
            await asyncio.sleep(0)
    reply = await dialogue.read()
    assert reply.startswith("550 5.6.0 ")
    assert (await dialogue.say("NOOP")).startswith("250 2.0.0")
    await nothing_kept(relay)
    await healthy(relay, compose)
    assert [one.recipients for one in await world.mx.wait_for(1)] == [("bob@dest.example",)]


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (
            b"From: ana@acme.example\r\n\r\n" + b"x" * 999 + b"\r\n",
            "550 5.6.0 the message is refused: a line is longer",
        ),
        (b"From: ana@acme.example\r\n\r\na\0b\r\n", "550 5.6.0 the message is refused: it contains a NUL"),
        (
            b"From: ana@acme.example\r\n\r\n" + b"x" * 70 * 30_000,
            "550 5.6.0 the message is refused: a line is longer",
        ),
        (b"From: ana@acme.example\r\n\r\n" + (b"x" * 70 + b"\r\n") * 30_000, "552 5.3.4"),
        (b"From: ana@acme.example\r\nSubject: a\r\nSUBJECT: b\r\n\r\nx\r\n", "550 5.6.0 the message has 2 Subject"),
        (
            "From: ana@ａcme.example\r\n\r\nx\r\n".encode(),
            "550 5.6.0 From: '?cme.example' is not a valid international",
        ),
        (b"no header at all\r\n", "550 5.6.0 line 1 is no header field"),
        (b"From : ana@acme.example\r\n\r\nx\r\n", "550 5.6.0 line 1"),
        (b" folded\r\nFrom: ana@acme.example\r\n\r\n", "550 5.6.0 the first line is a continuation"),
        (b"From: ana@acme.example\r\n \t\r\nSubject: x\r\n\r\n", "550 5.6.0 line 2 of the header consists of blanks"),
        (b"Received: x\r\n" * 51 + b"From: ana@acme.example\r\n\r\nx\r\n", "554 5.4.6"),
        (b"From: ana@acme.example\r\n" + b"X: y\r\n" * 1000, "550 5.6.0 the message has 1001 header fields"),
        (
            b"From: ana@acme.example\r\n" + (b"X: " + b"y" * 990 + b"\r\n") * 300,
            "550 5.6.0 the header section is too large",
        ),
        (
            b"From: " + b"\r\n ".join([b"a" * 900] * 5) + b" <ana@acme.example>\r\n\r\n",
            "550 5.6.0 From is too long",
        ),
    ],
)
async def test_bad_content_is_refused_and_the_session_goes_on(
    relay: Any, compose: Any, content: bytes, answer: str
) -> None:
    dialogue = await relay.at_data()
    reply = await dialogue.say(content + (b"" if content.endswith(b"\r\n") else b"\r\n") + b".\r\n")
    assert reply.startswith(answer)
    await nothing_kept(relay)
    assert (await dialogue.say("MAIL FROM:<ana@acme.example>")).startswith("250")


async def test_lines_of_998_octets_are_taken(relay: Any) -> None:
    dialogue = await relay.at_data()
    assert (await dialogue.say(b"From: ana@acme.example\r\n\r\n" + b"x" * 998 + b"\r\n.\r\n")).startswith("250")


async def test_a_client_that_never_stops_sending_is_cut_off(start: Callable[[], Any], site: Any) -> None:
    site.change(plan={"max_message_bytes": 100_000})
    relay = await start()
    dialogue = await relay.at_data()
    for _ in range(40):
        dialogue.send(b"x" * 70 + b"\r\n" + b"y" * 65_000 + b"\r\n")
    assert (await dialogue.read())[:3] in {"550", "552"}
    assert await dialogue.closed()
    await nothing_kept(relay)


# Clients that leave, or say nothing.


@pytest.mark.parametrize("content", [b"", b"From: ana@acme.example\r\n\r\nhalf", b"x" * 50 + b"\r\n"])
async def test_a_connection_that_breaks_in_data_leaves_nothing(relay: Any, compose: Any, content: bytes) -> None:
    dialogue = await relay.at_data()
    assert relay.reserved() == 1
    dialogue.send(content)
    await asyncio.sleep(0.05)
    dialogue.close()
    await nothing_kept(relay)
    await healthy(relay, compose)


async def test_a_large_message_cut_off_leaves_no_file(relay: Any, eventually: Any) -> None:
    dialogue = await relay.at_data()
    dialogue.send(b"From: ana@acme.example\r\n\r\n" + (b"x" * 70 + b"\r\n") * 15_000)
    await eventually(lambda: list(relay.site.spool.joinpath("incoming").iterdir()))
    dialogue.close()
    await nothing_kept(relay)


async def test_a_message_whose_client_leaves_while_it_is_committed_is_delivered(
    relay: Any, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = relay.relay._store.accept

    async def slowly(message: Any) -> Any:
        await asyncio.sleep(0.3)
        return await accept(message)

    monkeypatch.setattr(relay.relay._store, "accept", slowly)
    dialogue = await relay.at_data()
    dialogue.send(b"From: ana@acme.example\r\n\r\nx\r\n.\r\n")
    await asyncio.sleep(0.1)
    dialogue.close()
    [arrived] = await world.mx.wait_for(1)
    assert arrived.recipients == ("bob@dest.example",)
    assert relay.counted("malote_messages_accepted_total", account="app") == 1


@pytest.mark.parametrize("end", ["RSET", "EHLO client.example", "QUIT"])
async def test_units_go_back_when_a_transaction_is_given_up(relay: Any, end: str) -> None:
    dialogue = await relay.signed_in()
    await dialogue.say("MAIL FROM:<ana@acme.example>")
    await dialogue.say("RCPT TO:<bob@dest.example>")
    assert relay.reserved() == 1
    await dialogue.say(end)
    await nothing_kept(relay)


async def test_a_client_that_never_speaks_is_cut_off(start: Callable[[], Any], site: Any) -> None:
    site.change(limits={"command_timeout": 0.3, "data_timeout": 0.3})
    relay = await start()
    silent = await relay.plain()
    assert (await silent.read()).startswith("421 4.4.2")
    assert await silent.closed()
    dripping = await relay.plain()
    for _ in range(5):
        dripping.send(b"N")
        await asyncio.sleep(0.05)
    assert (await dripping.read()).startswith("421 4.4.2")
    sending = await relay.at_data()
    sending.send(b"From: ana@acme.example\r\n")
    assert (await sending.read()).startswith("421 4.4.2")
    await nothing_kept(relay)


async def test_a_client_that_shuts_its_side_still_gets_its_replies(relay: Any) -> None:
    dialogue = await relay.plain()
    dialogue.send(b"EHLO client.example\r\nNOOP\r\nQUIT\r\n")
    dialogue.writer.write_eof()
    assert (await dialogue.read()).startswith("250-acme.smtp.example")
    assert await dialogue.read() == "250 2.0.0 OK"
    assert (await dialogue.read()).startswith("221 2.0.0")


async def test_a_client_that_does_not_read_its_replies_does_not_fill_the_memory(relay: Any) -> None:
    dialogue = await relay.plain()
    for _ in range(200):
        dialogue.send(b"HELP\r\n" * 2000)
    await asyncio.sleep(0.3)
    [session] = relay.relay.server._sessions or [None]
    assert session is None or len(session._incoming) < 2_000_000


# Limits.


async def test_sessions_are_limited_in_all_and_per_client(start: Callable[[], Any], site: Any, compose: Any) -> None:
    site.change(limits={"max_sessions": 3, "max_sessions_per_client": 2})
    relay = await start()
    first, second = await relay.plain(), await relay.plain()
    third = await relay.plain(greet=False)
    assert (await third.read()).startswith("421 4.7.0 too many sessions are open from your address")
    assert await third.closed()
    first.close()
    await asyncio.sleep(0.1)
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
    await nothing_kept(relay)


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
        await nothing_kept(relay)
        assert (await dialogue.say("NOOP")).startswith("250")
