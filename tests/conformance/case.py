"""What a case is, and how the files in cases/ declare theirs."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.conformance.client import Reply

if TYPE_CHECKING:
    from tests.conformance.server import Server

Check = Callable[["Server"], None]


class Level(enum.StrEnum):
    """What the RFC makes of the requirement."""

    MUST = "MUST"
    SHOULD = "SHOULD"


MUST, SHOULD = Level.MUST, Level.SHOULD


class Broken(AssertionError):
    """The requirement is not met; the message says what was seen instead."""


@dataclass(frozen=True)
class Case:
    """One requirement. `check` raises Broken, or one of the client's errors, when it is not met."""

    section: str
    """Such as "RFC5321-4.1.1.2"."""
    name: str
    requirement: str
    check: Check
    level: Level = MUST
    needs: str = ""
    """The EHLO keyword without which the case says nothing; "implicit TLS" for the port of RFC 8314."""
    sees: bool = False
    """It asks what arrived at the other end."""
    guesses: bool = False
    """It signs in wrongly: such cases run last, since a server may slow down whoever does."""

    @property
    def id(self) -> str:
        return f"{self.section}/{self.name}"


ALL: list[Case] = []
"""Every case declared so far; importing `tests.conformance.cases` declares them all."""


def case(
    section: str,
    requirement: str,
    *,
    level: Level = MUST,
    needs: str = "",
    sees: bool = False,
    guesses: bool = False,
) -> Callable[[Check], Check]:
    """Declare the function as a case, named as the function is."""

    def declare(check: Check) -> Check:
        name = check.__name__.replace("_", "-")
        ALL.append(Case(section, name, requirement, check, level, needs, sees, guesses))
        return check

    return declare


@dataclass(frozen=True)
class Stage:
    """A state of the session to begin in: a name for people, and the way there."""

    name: str


CONNECTED = Stage("greeted by the server")
TLS = Stage("TLS on, nothing said since")
HELLO = Stage("EHLO said, over TLS where the server is asked for it")
SIGNED_IN = Stage("signed in")
MAIL = Stage("MAIL accepted")
RCPT = Stage("a recipient accepted")
DATA = Stage("354 given")


def exchange(
    section: str,
    name: str,
    requirement: str,
    at: Stage,
    say: str | bytes,
    expect: str,
    *,
    level: Level = MUST,
    needs: str = "",
    mail: str = "",
    usable: bool = True,
    guesses: bool = False,
) -> None:
    """Declare a case that is one line said in a state, and the codes that may answer it.

    `say` may contain {sender}, {recipient}, {local}, {domain} (of the recipient). `mail` are parameters of the MAIL
    before it. `expect` are codes and patterns, such as "250", "5xx", "500 501". Unless not `usable`, the session must
    answer NOOP with 250 afterwards.
    """

    def check(server: Server) -> None:
        client = server.at(at, mail=mail)
        reply = client.say(server.fill(say))
        matches(reply, expect)
        if usable:
            alive(client.say("NOOP"))

    ALL.append(Case(section, name, requirement, check, level, needs, guesses=guesses))


def matches(reply: Reply, expect: str, about: str = "") -> Reply:
    """The reply, whose code is one of those expected. Raises Broken."""
    code = str(reply.code)
    if not any(re.fullmatch(one.replace("x", r"\d"), code) for one in expect.split()):
        raise Broken(
            f"{about + ': ' if about else ''}{expect.replace(' ', ' or ')} expected, not {str(reply)[:200]!r}"
        )
    return reply


def alive(reply: Reply) -> None:
    """NOOP was answered as it must be."""
    matches(reply, "250", "NOOP afterwards")


def expect(true: object, otherwise: str) -> None:
    """Raises Broken with these words unless it is true."""
    if not true:
        raise Broken(otherwise)
