"""SMTP replies: a code, an enhanced status code (RFC 2034, RFC 3463) and words that a sender can act on."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from functools import lru_cache

from malote_relay.metrics import Refused

_TEXT_WIDTH = 480
"""RFC 5321 section 4.5.3.1.5 limits a reply line to 512 octets, code and CRLF included."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply. `refused` says which refusal it counts as, if it is one."""

    code: int
    enhanced: str
    text: str
    refused: Refused | None = None

    @property
    def positive(self) -> bool:
        """Whether the command was carried out, or may be gone on with."""
        return self.code < 400

    def wire(self) -> bytes:
        """The octets to send. Words that came from elsewhere can never start a line of their own."""
        return _wire(self.code, self.enhanced, self.text)


@lru_cache(maxsize=64)  # three of four replies are always the same
def _wire(code: int, enhanced: str, text: str) -> bytes:
    if not (text.isascii() and text.isprintable() and len(text) <= _TEXT_WIDTH):
        text = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
    start = f"{enhanced} " if enhanced else ""
    if len(text) <= _TEXT_WIDTH:
        return f"{code} {start}{text}\r\n".encode("ascii")
    lines = textwrap.wrap(text, _TEXT_WIDTH)
    last = len(lines) - 1
    return "".join(
        f"{code}{' ' if index == last else '-'}{start}{line}\r\n" for index, line in enumerate(lines)
    ).encode("ascii")


OK = Reply(250, "2.0.0", "OK")
SENDER_OK = Reply(250, "2.1.0", "sender OK")
RECIPIENT_OK = Reply(250, "2.1.5", "recipient OK")
RESET = Reply(250, "2.0.0", "reset: nothing is pending")
BYE = Reply(221, "2.0.0", "bye")
GO_AHEAD = Reply(354, "", "go ahead; end with <CRLF>.<CRLF>")
START_TLS = Reply(220, "2.0.0", "ready to start TLS")
SIGNED_IN = Reply(235, "2.7.0", "signed in")
HELP = Reply(214, "2.0.0", "EHLO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT; RFC 6409")
NOT_VERIFIED = Reply(252, "2.1.5", "addresses are not verified here: send the message and see")

NOT_A_COMMAND = Reply(500, "5.5.2", "this is not a command known here")
NOT_IMPLEMENTED = Reply(502, "5.5.1", "this command is not offered here")
LINE_TOO_LONG = Reply(500, "5.5.2", "the command line is too long")
BAD_LINE_END = Reply(500, "5.5.2", "end every line with CR LF; a CR, LF or NUL alone is not taken")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "too many bad commands: goodbye")
TOO_MUCH_REFUSED = Reply(
    421, "4.7.0", "too many recipients and messages were refused in this session: see the replies to them; goodbye"
)
IDLE_TOO_LONG = Reply(421, "4.4.2", "what was waited for did not come in time: goodbye")
STOPPING = Reply(421, "4.3.2", "the relay is being restarted: try again in a minute")
TOO_MANY_SESSIONS = Reply(
    421, "4.7.0", "too many sessions are open: close some, or try again in a minute", Refused.SESSIONS
)
TOO_MANY_SESSIONS_HERE = Reply(
    421,
    "4.7.0",
    "too many sessions are open from your address: close some, or try again in a minute",
    Refused.SESSIONS,
)
TOO_MANY_CONNECTIONS = Reply(
    421,
    "4.7.0",
    "too many connections came from your address without signing in: try again in a minute",
    Refused.SESSIONS,
)
INTERNAL_ERROR = Reply(451, "4.3.0", "the relay failed to carry this out: try again later", Refused.ERROR)

EHLO_FIRST = Reply(503, "5.5.1", "send EHLO first")
MAIL_FIRST = Reply(503, "5.5.1", "send MAIL FROM first")
RECIPIENT_FIRST = Reply(503, "5.5.1", "no recipient has been accepted: send RCPT TO first")
ALREADY_MAIL = Reply(503, "5.5.1", "a transaction is open already: send RSET to start anew")
IN_CHUNKS = Reply(503, "5.5.1", "the message has begun with BDAT: go on with BDAT, or send RSET")
NOTHING_MAY_FOLLOW = Reply(501, "5.5.4", "this command takes no argument")
TLS_FIRST = Reply(530, "5.7.0", "send STARTTLS first: this relay takes mail over TLS only")
TLS_ALREADY = Reply(503, "5.5.1", "TLS is on already")
AUTH_FIRST = Reply(530, "5.7.0", "sign in first (AUTH PLAIN or LOGIN)")
AUTH_ALREADY = Reply(503, "5.5.1", "you are signed in already")
CREDENTIALS_CHANGED = Reply(530, "5.7.0", "the credentials of this account have changed: sign in again")
AUTH_MECHANISM = Reply(504, "5.5.4", "unknown mechanism: use PLAIN or LOGIN")
AUTH_BASE64 = Reply(501, "5.5.2", "the AUTH response is not valid base64")
AUTH_CANCELLED = Reply(501, "5.7.0", "AUTH cancelled")
AUTH_LINE_TOO_LONG = Reply(500, "5.5.6", "the AUTH response is too long")
AUTH_FAILED = Reply(535, "5.7.8", "user name or password is wrong", Refused.AUTH)
AUTH_FAILED_TOO_OFTEN = Reply(421, "4.7.0", "too many failed sign-ins: goodbye")
AUTH_CAPPED = Reply(
    421, "4.7.0", "too many failed sign-ins from your address: try again in some minutes", Refused.AUTH_CAPPED
)
"""Unknown user and wrong password read the same and take the same time: no oracle for user names."""

NO_BINARY = Reply(555, "5.6.1", "BINARYMIME is not offered here: encode binary parts in base64")
NO_POSTMASTER = Reply(
    550, "5.1.1", "nobody is postmaster of the null sender: write postmaster@ and the domain you mean"
)
TOO_MUCH_DATA_IN_FLIGHT = Reply(
    452, "4.3.1", "too much mail is being received at this moment: try again in a minute", Refused.NO_ROOM
)
TOO_MANY_AT_ONCE = Reply(
    554, "5.5.3", "the message has too many recipients: send it in parts", Refused.TOO_MANY_RECIPIENTS
)
NO_ROOM = Reply(452, "4.3.1", "no room on the relay's disk: try again later", Refused.NO_ROOM)


def syntax(form: str) -> Reply:
    """The command is known but written wrongly; `form` is how to write it."""
    return Reply(501, "5.5.4", f"write it as: {form}")


def too_big(limit: int) -> Reply:
    """RFC 1870 section 6: the message exceeds the fixed maximum."""
    return Reply(552, "5.3.4", f"the message is larger than the {limit} bytes allowed by the plan", Refused.TOO_BIG)


def too_many_recipients(limit: int) -> Reply:
    """RFC 5321 section 4.5.3.1.10: the client sends the rest in another transaction."""
    return Reply(
        452,
        "4.5.3",
        f"a message may have {limit} recipients: send it again for the others",
        Refused.TOO_MANY_RECIPIENTS,
    )


def malformed(what: str) -> Reply:
    """The content breaks RFC 5322 in a way that would make others read it differently."""
    return Reply(550, "5.6.0", what, Refused.MALFORMED)


def chunk_taken(octets: int) -> Reply:
    """RFC 3030 section 2: the chunk has come, and more are waited for."""
    return Reply(250, "2.0.0", f"{octets} octets received")


def account_gone(username: str) -> Reply:
    """The account was there when the transaction began."""
    return Reply(550, "5.7.1", f"the account {username} does not exist any more", Refused.ACCOUNT_SUSPENDED)


def accepted(queue_id: str) -> Reply:
    """The message is on disk and synced."""
    return Reply(250, "2.0.0", f"accepted as {queue_id}")
