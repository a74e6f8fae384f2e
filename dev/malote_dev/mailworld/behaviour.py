"""What a mail host does instead of simply taking mail: chosen per host and per recipient, at run time.

Every kind of trouble that a sending relay meets has a name here. Written as text (on a command line) a
behaviour is ``ACTION[@STAGE]``, for example ``drop@data`` or ``refuse``.
"""

from __future__ import annotations

import enum

import msgspec


class Stage(enum.StrEnum):
    """The points of a session at which a host can act (RFC 5321 section 3)."""

    CONNECT = "connect"
    EHLO = "ehlo"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    """After the command DATA, before any content."""
    MESSAGE = "message"
    """After the final dot."""


class Action(enum.StrEnum):
    """What the host does at the stage."""

    ACCEPT = "accept"
    DEFER = "defer"
    REFUSE = "refuse"
    REFUSE_POLICY = "refuse-policy"
    GREYLIST = "greylist"
    """Defer what is seen for the first time (client, sender, recipient), accept it when it comes again."""
    BUSY = "busy"
    """421, then close."""
    DROP = "drop"
    """Reset the connection without a reply."""
    SILENT = "silent"
    """Never reply; the connection stays open."""
    EMPTY = "empty"
    """Reply with an empty line, which no client can read as a reply."""
    AFFIRM = "affirm"
    """Reply 250, whatever was asked: to DATA (at that stage) it means nothing."""
    PREMATURE = "premature"
    """At DATA: the final 250 together with the 354, whatever may follow."""
    SLOW = "slow"
    """Accept, but take `delay` seconds for every reply of the session, whatever the stage."""


class TlsMode(enum.StrEnum):
    """What STARTTLS leads to."""

    GOOD = "good"
    """A certificate for the host's name, issued by the world's authority."""
    NONE = "none"
    """STARTTLS is not offered."""
    SELF_SIGNED = "self-signed"
    EXPIRED = "expired"
    WRONG_NAME = "wrong-name"
    UNAVAILABLE = "unavailable"
    """STARTTLS is offered and then refused with 454."""
    BROKEN = "broken"
    """STARTTLS is accepted, then the connection breaks in the handshake."""


REPLIES = {
    Action.DEFER: "451 4.3.0 Try again later",
    Action.REFUSE: "550 5.1.1 No such mailbox here",
    Action.REFUSE_POLICY: "550 5.7.1 Refused by local policy",
    Action.GREYLIST: "451 4.7.1 Greylisted, come back later",
    Action.BUSY: "421 4.3.2 Too busy, closing",
    Action.AFFIRM: "250 2.0.0 Ok",
    Action.PREMATURE: "354 Go on\r\n250 2.0.0 Taken",
}
_GREETINGS = {
    Action.DEFER: "421 4.3.2 Not now, come back later",
    Action.REFUSE: "554 5.3.2 No mail is taken here",
    Action.REFUSE_POLICY: "554 5.7.1 Your address is not welcome here",
}
"""In place of a greeting only 220, 421 and 554 have a meaning (RFC 5321 section 4.3.2)."""


class Behaviour(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do at one stage. `reply` replaces the action's own words, such as "452 4.2.2 Mailbox full".

    `times` ends it by itself: after so many uses the host accepts; 0 means always. `delay` (seconds) is for SLOW
    and, elsewhere, a pause before the action.
    """

    action: Action = Action.ACCEPT
    stage: Stage = Stage.RCPT
    reply: str = ""
    times: int = 0
    delay: float = 0.0

    @property
    def words(self) -> str:
        """The reply line that goes with the action; "" where the action has none."""
        greeting = _GREETINGS.get(self.action, "") if self.stage is Stage.CONNECT else ""
        return self.reply or greeting or REPLIES.get(self.action, "")


ACCEPT = Behaviour()


def parse(text: str) -> Behaviour:
    """Read ``ACTION[@STAGE]``. Raises ValueError naming what may be written."""
    action, _, stage = text.partition("@")
    try:
        return Behaviour(
            action=Action(action), stage=Stage(stage) if stage else _DEFAULT_STAGES.get(Action(action), Stage.RCPT)
        )
    except ValueError as error:
        actions, stages = ", ".join(Action), ", ".join(Stage)
        raise ValueError(f"{text!r}: write ACTION[@STAGE], ACTION of {actions}; STAGE of {stages}") from error


_DEFAULT_STAGES = {
    Action.BUSY: Stage.CONNECT,
    Action.SLOW: Stage.CONNECT,
    Action.AFFIRM: Stage.DATA,
    Action.PREMATURE: Stage.DATA,
}
