"""Arbitrary orders of commands, chunks and contents, said step by step or all at once, get the replies of a model.

What is content looks like commands throughout: one octet read in the wrong role, and replies and model part.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

import pytest

HEADER = b"From: ana@acme.example\r\nSubject: x\r\n\r\n"
LIKE_COMMANDS = (
    b"QUIT\r\n",
    b"RSET\r\nMAIL FROM:<ana@acme.example>\r\n",
    b".\r\nDATA\r\n",
    b"BDAT 5 LAST\r\nhello\r\n",
)
REPLY = re.compile(r"(?:354 |250[ -]|[45]\d\d [45]\.\d{1,3}\.\d{1,3} )")
MAX_BAD = 18


class Model:
    """The transaction as RFC 5321 and RFC 3030 have it, and the code that each step must get."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.mail, self.recipients, self.content, self.failed = False, 0, None, False

    content: bytes | None

    def said(self, verb: str, payload: bytes, last: bool) -> list[int]:
        match verb:
            case "NOOP":
                return [250]
            case "RSET" | "EHLO":
                self.reset()
                return [250]
            case "MAIL":
                code = 503 if self.mail else 250
                self.mail = True
                return [code]
            case "RCPT" | "BAD-RCPT":
                if not self.mail or self.content is not None:
                    return [503]
                self.recipients += verb == "RCPT"
                return [250 if verb == "RCPT" else 553]
            case "DATA":
                if not self.recipients or self.content is not None:
                    return [503]
                self.reset()
                return [354, 250 if payload.startswith(HEADER) and b"\n\n" not in payload else 550]
            case _:
                return [self.chunk(payload, last)]

    def chunk(self, payload: bytes, last: bool) -> int:
        if not self.recipients:
            return 503
        self.content = (self.content or b"") + payload
        self.failed = self.failed or b"\n\n" in payload
        code = 550 if self.failed or (last and not self.content.startswith(HEADER)) else 250
        if last:
            self.reset()
        return code


def steps(chance: random.Random) -> Iterator[tuple[bytes, list[int]]]:
    """What to send, and the codes that must come back."""
    model, bad = Model(), 0
    while bad < MAX_BAD:
        verb = chance.choice(["NOOP", "RSET", "EHLO", "BAD-RCPT", *["MAIL", "RCPT", "BDAT"] * 4, "DATA", "DATA"])
        begun = model.content is not None
        parts = [
            b"" if begun or chance.random() < 0.1 else HEADER,
            *chance.choices(LIKE_COMMANDS, k=chance.randrange(4)),
        ]
        if chance.random() < 0.1:
            parts.append(b"a\n\nb\r\n")
        payload, last = b"".join(parts), chance.random() < 0.4
        codes = model.said(verb, payload, last)
        octets = {
            "MAIL": b"MAIL FROM:<ana@acme.example>\r\n",
            "RCPT": b"RCPT TO:<bob@dest.example>\r\n",
            "BAD-RCPT": b"RCPT TO:<bob@[127.0.0.1]>\r\n",
            "BDAT": b"BDAT %d%s\r\n%s" % (len(payload), b" LAST" if last else b"", payload),
            "EHLO": b"EHLO client.example\r\n",
        }.get(verb, verb.encode() + b"\r\n")
        if codes[0] == 354:
            octets += b"\r\n".join(b"." + line if line.startswith(b".") else line for line in payload.split(b"\r\n"))
            octets += b".\r\n"
        bad = (
            0
            if codes[-1] == 250 and (codes[0] == 354 or (verb == "BDAT" and last))
            else bad + (codes[-1] in (503, 553))
        )
        yield octets, codes


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("at_once", [False, True])
async def test_every_dialogue_goes_as_the_model_has_it(relay: Any, seed: int, at_once: bool) -> None:
    said = [step for step, _ in zip(steps(random.Random(seed)), range(60), strict=False)]
    dialogue = await relay.signed_in()
    if at_once:
        dialogue.send(b"".join(octets for octets, _ in said))
    for number, (octets, codes) in enumerate(said):
        if not at_once:
            dialogue.send(octets)
        for code in codes:
            reply = await dialogue.read()
            assert reply.startswith(str(code)), f"step {number}: {octets!r} got {reply!r} instead of {code}"
            assert REPLY.match(reply), reply
    assert (await dialogue.say("NOOP")) == "250 2.0.0 OK"
    assert (await dialogue.say("RSET")).startswith("250 ")
    assert relay.reserved() == 0
    assert relay.relay._door.spool.in_flight == 0
