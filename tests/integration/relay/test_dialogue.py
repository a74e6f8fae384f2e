"""What the relay answers to clients that do it right, do it wrong, or do nothing at all."""

from __future__ import annotations

import re
from typing import Any

import pytest

from malote_relay.submission.session import MAX_BAD_COMMANDS, MAX_IDLE_COMMANDS

ENHANCED = re.compile(r"[245]\d\d [245]\.\d{1,3}\.\d{1,3} \S")


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
    await relay.keeps_nothing()


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
