"""A command line taken apart (RFC 5321 section 4.1.1, RFC 3030, RFC 3461). Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from malote_relay.store.model import Notify, Return
from malote_relay.submission import dsn
from malote_relay.submission.address import AddressError, Mailbox, mailbox, take_path
from malote_relay.submission.replies import NO_BINARY, NO_POSTMASTER, Reply, syntax

T = TypeVar("T")

_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e\u0080-\U0010ffff]+))?\Z")
_MAIL = "MAIL FROM:<user@domain> [SIZE=bytes] [BODY=7BIT|8BITMIME] [SMTPUTF8] [RET=FULL|HDRS] [ENVID=id], each once"
_RCPT = "RCPT TO:<user@domain> [NOTIFY=NEVER|SUCCESS,FAILURE,DELAY] [ORCPT=rfc822;user@domain], each once"
_BDAT = re.compile(r"([0-9]+)(?: +(LAST))?\Z", re.IGNORECASE)


class CommandError(Exception):
    """The command cannot be carried out as written; `reply` is the answer.

    `last`: nothing that follows may be read as a command, since where the next one begins is not known.
    """

    def __init__(self, reply: Reply, *, last: bool = False) -> None:
        super().__init__(reply.text)
        self.reply = reply
        self.last = last


@dataclass(frozen=True, slots=True)
class Mail:
    """MAIL FROM: the reverse-path (None: the null sender `<>`) and its parameters."""

    sender: Mailbox | None
    size: int = 0
    smtputf8: bool = False
    ret: Return = Return.UNSAID
    envid: str = ""


@dataclass(frozen=True, slots=True)
class Rcpt:
    """RCPT TO: the recipient, and what the sender wants to hear of it (None: nothing was said)."""

    recipient: Mailbox
    notify: Notify | None = None
    orcpt: str = ""


def announces_content(line: bytes) -> bool:
    """Whether octets that are no commands follow a line that begins like this, as many as it says."""
    return line[:4].upper() == b"BDAT"


def split(line: bytes) -> tuple[str, str]:
    """The verb in capitals and its argument. Raises CommandError for octets that are no text."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        reply = Reply(500, "5.5.2", "the command is neither ASCII nor UTF-8")
        raise CommandError(reply, last=announces_content(line)) from None
    verb, _, argument = text.partition(" ")
    return verb.upper(), argument.strip(" ")


def mail(argument: str) -> Mail:
    """The argument of MAIL. Raises CommandError."""
    path, parameters = _path(argument, "FROM:", _MAIL, Reply(553, "5.1.7", ""))
    size, smtputf8, ret, envid = 0, False, Return.UNSAID, ""
    for key, value in _parameters(parameters, _MAIL).items():
        match key, value:
            case "SIZE", str() if value.isascii() and value.isdigit() and len(value) <= 20:
                size = int(value)
            case "BODY", str() if value.upper() in {"7BIT", "8BITMIME"}:
                pass  # the content itself is looked at: clients are known to declare the wrong one
            case "BODY", str() if value.upper() == "BINARYMIME":
                raise CommandError(NO_BINARY)
            case "SMTPUTF8", None:
                smtputf8 = True
            case "AUTH", str():
                pass  # RFC 4954 section 5: understood, and not passed on, since nobody further trusts it
            case "RET", str():
                ret = _read(dsn.ret, value)
            case "ENVID", str():
                envid = _read(dsn.envid, value)
            case (("SIZE" | "BODY" | "SMTPUTF8" | "AUTH" | "RET" | "ENVID"), _):
                raise CommandError(Reply(501, "5.5.4", f"the value of {key} is not valid"))
            case _:
                raise CommandError(Reply(555, "5.5.4", f"the parameter {key} is not offered here"))
    if not path:
        return Mail(None, size, smtputf8, ret, envid)
    sender = _mailbox(path, Reply(553, "5.1.7", "the sender: "))
    if not (smtputf8 or path.isascii()):
        raise CommandError(Reply(553, "5.6.7", "a sender that is not ASCII needs the parameter SMTPUTF8"))
    return Mail(sender, size, smtputf8, ret, envid)


def rcpt(argument: str, *, smtputf8: bool, postmaster: Mailbox | None = None) -> Rcpt:
    """The argument of RCPT. `postmaster` stands in for the name without a domain. Raises CommandError."""
    path, parameters = _path(argument, "TO:", _RCPT, Reply(553, "5.1.3", ""))
    notify, orcpt = None, ""
    if parameters:
        for key, value in _parameters(parameters, _RCPT).items():
            match key, value:
                case "NOTIFY", str():
                    notify = _read(dsn.notify, value)
                case "ORCPT", str():
                    orcpt = _read(partial(dsn.orcpt, smtputf8=smtputf8), value)
                case (("NOTIFY" | "ORCPT"), _):
                    raise CommandError(Reply(501, "5.5.4", f"the value of {key} is not valid"))
                case _:
                    raise CommandError(Reply(555, "5.5.4", f"the parameter {key} is not offered here"))
    if path.lower() == "postmaster":
        # RFC 5321 section 4.5.1 reserves it; there are no mailboxes here, but somebody may have been named.
        if postmaster is None:
            raise CommandError(NO_POSTMASTER)
        return Rcpt(postmaster, notify, orcpt)
    if not (smtputf8 or path.isascii()):
        raise CommandError(
            Reply(553, "5.6.7", "a recipient that is not ASCII needs the parameter SMTPUTF8 in MAIL FROM")
        )
    return Rcpt(_mailbox(path, Reply(553, "5.1.3", "the recipient: ")), notify, orcpt)


def bdat(argument: str) -> tuple[int, bool]:
    """The argument of BDAT: the chunk's octets, and whether it is the last. Raises CommandError.

    How many octets follow a size that cannot be read is not known: whoever went on with the session would read a
    message's content as commands.
    """
    match = _BDAT.match(argument)
    if match is None:
        raise CommandError(syntax("BDAT bytes [LAST]"), last=True)
    return int(match[1]), match[2] is not None


def _read(reader: Callable[[str], T], value: str) -> T:
    try:
        return reader(value)
    except dsn.ParameterError as error:
        raise CommandError(Reply(501, "5.5.4", str(error))) from None


def _path(argument: str, keyword: str, form: str, invalid: Reply) -> tuple[str, str]:
    if argument[: len(keyword)].upper() != keyword:
        raise CommandError(syntax(form))
    try:
        return take_path(argument[len(keyword) :])
    except AddressError as error:
        raise CommandError(Reply(invalid.code, invalid.enhanced, str(error))) from None


def _mailbox(path: str, invalid: Reply) -> Mailbox:
    try:
        return mailbox(path)
    except AddressError as error:
        raise CommandError(Reply(invalid.code, invalid.enhanced, f"{invalid.text}{error}")) from None


def _parameters(text: str, form: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for word in filter(None, text.split(" ")):
        match = _PARAMETER.match(word)
        if match is None or match[1].upper() in found:
            raise CommandError(syntax(form))
        found[match[1].upper()] = match[2]
    return found
