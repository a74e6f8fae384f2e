"""Command lines, paths and addresses: taken apart, or refused in a reply that is one."""

from __future__ import annotations

import re
from typing import Any

from tests.fuzz.target import Target

from malote_relay.submission import commands
from malote_relay.submission.address import MAX_PATH, Mailbox, mailbox
from malote_relay.submission.commands import CommandError
from malote_relay.submission.replies import Reply

_WIRE = re.compile(rb"(?:[245][0-9]{2}[ -][\x20-\x7e]*\r\n)+\Z")


def check(data: bytes) -> None:
    try:
        verb, argument = commands.split(data)
    except CommandError as error:
        _is_a_reply(error.reply)
        return
    assert verb == verb.upper()
    for read in (commands.mail, _rcpt):
        try:
            found: Any = read(argument)
        except CommandError as error:
            _is_a_reply(error.reply)
            continue
        box = getattr(found, "sender", None) or getattr(found, "recipient", None)
        if isinstance(box, Mailbox):
            _is_an_address(box)


def _rcpt(argument: str) -> Any:
    found = commands.rcpt(argument, smtputf8=True)
    try:
        again: Any = commands.rcpt(argument, smtputf8=False)
    except CommandError as error:
        _is_a_reply(error.reply)
    else:
        assert again == found
    return found


def _is_an_address(box: Mailbox) -> None:
    text = str(box)
    assert mailbox(text) == box
    assert len(text.encode()) <= MAX_PATH + 2
    assert box.domain == box.domain.lower()
    assert box.domain.isascii()
    # Written between angle brackets it ends where it ends, whoever reads it.
    assert not any(octet < " " or octet == "\x7f" for octet in text)
    if not box.local.startswith('"'):
        assert not set(box.local) & set('<>()[]\\,;:@" ')


def _is_a_reply(reply: Reply) -> None:
    wire = reply.wire()
    assert _WIRE.match(wire), wire
    assert not reply.positive
    lines = wire.split(b"\r\n")[:-1]
    assert all(len(line) <= 510 for line in lines)
    assert all(line[:3] == lines[0][:3] for line in lines)


TARGET = Target(
    "commands",
    check,
    words=(
        b"MAIL ",
        b"RCPT ",
        b"FROM:",
        b"TO:",
        b"<>",
        b"<ana@acme.example>",
        b'<"a b"@acme.example>',
        b" SIZE=1",
        b" BODY=",
        b"8BITMIME",
        b" SMTPUTF8",
        b" AUTH=<>",
        b" NOTIFY=NEVER",
        b",DELAY",
        b" ORCPT=rfc822;",
        b" RET=HDRS",
        b" ENVID=",
        b"+3D",
        b"postmaster",
        b"@a.example,@b.example:",
        b"[127.0.0.1]",
        "é".encode(),
        "ｅxample".encode(),
        b"xn--",
        b"acme.example",
        b"l" * 64,
        b"d" * 63 + b".",
        b"\\",
        b'"',
        "\u3002".encode(),
        "\u00ad".encode(),
        "\u202e".encode(),
        b"999999",
    ),
    seeds=(
        b"MAIL FROM:<ana@acme.example> SIZE=100 BODY=8BITMIME SMTPUTF8",
        b"RCPT TO:<@a.example:bob@dest.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;bob+2Bx@dest.example",
        'RCPT TO:<"josé \\" b"@ñandu.example>'.encode(),
        b"MAIL FROM:<> RET=FULL ENVID=a+3D",
    ),
    most=15,
)
