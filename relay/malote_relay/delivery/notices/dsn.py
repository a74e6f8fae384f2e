"""Delivery status notifications: telling the sender what became of a message (RFC 3461, 3464, 6522, 6533).

A notification goes to the reverse-path with a null reverse-path of its own, so that it can never cause another
(RFC 5321 section 4.5.5); who sent with a null reverse-path gets none. It carries words for people, the status of each
recipient for programs, and the message or its headers, by which both find out which one it was. Where the message
came to us from is not told: that is the client's own affair.
"""

from __future__ import annotations

import quopri
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.header import Header
from email.utils import format_datetime

from malote_relay.clock import moment
from malote_relay.config import Language
from malote_relay.delivery.answers.outcome import EXPIRED
from malote_relay.delivery.notices.allowance import Withheld
from malote_relay.delivery.notices.due import Due, Kind
from malote_relay.delivery.notices.words import WORDS, Words
from malote_relay.delivery.parameters import from_xtext, to_utf8_xtext
from malote_relay.delivery.reply import parse
from malote_relay.store.model import NewMessage, NewRecipient, Outcome

MAX_HEADERS = 32 * 1024
"""Octets of the original headers that are returned."""

_CRLF = "\r\n"
_WIDTH = 76
_LONGEST = 900
"""Octets of a line at most, with room to the limit of 998."""

_QUOTED = "Content-Transfer-Encoding: quoted-printable"
_OUTSIDE_ASCII = re.compile(r"[^\x20-\x7e]")
_FAILURE = re.compile(r"[45]\.[0-9]{1,3}\.[0-9]{1,3}")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who reports: the name that remote hosts know the relay by, and the language of its words."""

    egress_name: str
    language: Language = Language.ENGLISH


@dataclass(frozen=True, slots=True)
class Returned:
    """What comes back of the message: its header section, or all of it."""

    octets: bytes
    whole: bool = False


def notice(
    due: Due, returned: Returned | None, reporter: Reporter, *, retry_until: float, now: float, id: str
) -> NewMessage:
    """The notification about recipients of one message. Its reverse-path must not be null.

    `returned` is None when the message is gone; `id` is the new message's; `retry_until` is when a delayed one
    will be given up.
    """
    words = WORDS[reporter.language]
    fields, text = _plain(_text(due, reporter.egress_name, words, retry_until))
    part, eight_bit = _returned(returned)
    boundary = f"=_{secrets.token_hex(16)}"
    subject = {
        Kind.FAILED: words.failed_subject,
        Kind.BOUNCED: words.failed_subject,
        Kind.DELAYED: words.delayed_subject,
        Kind.RELAYED: words.relayed_subject,
    }[due.kind]
    body = [
        b"This is a report in MIME format.",
        f"--{boundary}".encode(),
        "\r\n".join([*fields, "Content-Description: Notification", "", ""]).encode("ascii") + text,
        f"--{boundary}".encode(),
        b"Content-Type: message/delivery-status\r\nContent-Description: Delivery report\r\n",
        "\r\n".join([*_status(due, reporter.egress_name, retry_until), ""]).encode("ascii"),
        f"--{boundary}".encode(),
        part,
        f"--{boundary}--\r\n".encode(),
    ]
    kind = f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"'
    if eight_bit:
        kind += "\r\nContent-Transfer-Encoding: 8bit"
    head = _head(due.sender, subject, reporter.egress_name, "auto-replied", now, id)
    return _message(due.sender, head, kind, b"\r\n".join(body), reporter, now=now, id=id, eight_bit=eight_bit)


def summary(withheld: Withheld, reporter: Reporter, *, now: float, id: str) -> NewMessage:
    """One message in place of the many notices that a sender did not get."""
    words = WORDS[reporter.language]
    said = words.summary.format(sender=withheld.sender, since=moment(withheld.since), count=withheld.count)
    fields, text = _plain([words.this_is.format(name=reporter.egress_name), "", *_fold(said, "")])
    head = _head(withheld.sender, words.summary_subject, reporter.egress_name, "auto-generated", now, id)
    return _message(withheld.sender, head, "\r\n".join(fields), text, reporter, now=now, id=id, eight_bit=False)


def status(words: str, digit: str = "5") -> str:
    """The Status field: the reply's enhanced code when it is of the class `digit`, else that class's x.0.0."""
    try:
        code = parse(words).enhanced
    except ValueError:
        code = ""
    return code if code.startswith(f"{digit}.") else f"{digit}.0.0"


def _head(to: str, subject: str, name: str, submitted: str, now: float, id: str) -> list[str]:
    return [
        f"From: Mail Delivery System <MAILER-DAEMON@{name}>",
        f"To: <{to}>",
        f"Subject: {subject if subject.isascii() else Header(subject, 'utf-8').encode(linesep=_CRLF)}",
        f"Date: {_date(now)}",
        f"Message-ID: <{id}.{secrets.token_hex(4)}@{name}>",
        f"Auto-Submitted: {submitted}",
        "MIME-Version: 1.0",
    ]


def _message(
    to: str, head: list[str], kind: str, body: bytes, reporter: Reporter, *, now: float, id: str, eight_bit: bool
) -> NewMessage:
    content = "\r\n".join([*head, kind, "", ""]).encode("utf-8") + body
    message_id = next(line for line in head if line.startswith("Message-ID: ")).partition(" ")[2]
    return NewMessage(
        id=id,
        account="",
        reverse_path="",
        header_from=f"MAILER-DAEMON@{reporter.egress_name}",
        message_id=message_id,
        recipients=[NewRecipient(to, hour=int(now // 3600))],
        content=content,
        size=len(content),
        received_at=now,
        eight_bit=eight_bit,
        smtputf8=not to.isascii(),
    )


def _text(due: Due, name: str, words: Words, retry_until: float) -> list[str]:
    intro, end = {
        Kind.FAILED: (words.failed, words.failed_end),
        Kind.BOUNCED: (words.bounced, words.failed_end),
        Kind.DELAYED: (words.delayed, words.delayed_end),
        Kind.RELAYED: (words.relayed, words.relayed_end),
    }[due.kind]
    waited = words.span(max(0.0, due.outcomes[0].at - due.outcomes[0].recipient.received_at))
    lines = [words.this_is.format(name=name), "", *_fold(intro.format(waited=waited), ""), ""]
    for one in due.outcomes:
        lines.append(f"  {_shown(one.recipient.address)}")
        reason = words.reason(one.bounce_class, late=due.kind is Kind.DELAYED)
        if reason and due.kind is not Kind.RELAYED:
            lines += _fold(f"    {reason}", "    ")
        lines += [*(_who_said_what(one, words) if due.reported is None else _who_reported(one, words)), ""]
    return [*lines, *_fold(end.format(until=moment(retry_until)), "")]


def _who_said_what(one: Outcome, words: Words) -> list[str]:
    """The last answer, the host's or the relay's own; before it that the relay gave up, if that is what ended it."""
    first, given_up, last = one.reply.partition(EXPIRED)
    lines = [f"    {words.gave_up}", *_fold(f"    {first}", "    ")] if given_up else []
    who = words.said.format(host=_shown(_host(one))) if _remote(one) else words.found
    return [*lines, f"    {who}", *_fold(f"    {_shown(last if given_up else one.reply)}", "    ")]


def _who_reported(one: Outcome, words: Words) -> list[str]:
    """Others' words, whatever they are; not every report says whose."""
    lines = [f"    {words.said.format(host=_shown(_host(one)))}"] if one.host else []
    return [*lines, *_fold(f"    {_shown(one.reply)}", "    ")]


def _status(due: Due, name: str, retry_until: float) -> list[str]:
    """RFC 3464 section 2: the fields of the message, then those of each recipient."""
    first = due.outcomes[0].recipient
    lines = []
    if first.dsn.envid:
        lines.append(f"Original-Envelope-Id: {_ascii(from_xtext(first.dsn.envid))}")
    lines += [f"Reporting-MTA: dns; {name}", f"Arrival-Date: {_date(first.received_at)}"]
    lines.append(f"X-Malote-Queue-ID: {first.message_id}")
    digit = {Kind.DELAYED: "4", Kind.RELAYED: "2"}.get(due.kind, "5")
    action = Kind.FAILED if due.kind is Kind.BOUNCED else due.kind
    for one in due.outcomes:
        lines.append("")
        if one.recipient.dsn.orcpt:
            lines.append(f"Original-Recipient: {_original(one.recipient.dsn.orcpt)}")
        address = one.recipient.address
        # RFC 6533 section 3: an internationalised address in a form that any path carries.
        lines.append(f"Final-Recipient: {f'rfc822; {address}' if address.isascii() else _utf8(address)}")
        lines += [f"Action: {action.value}", f"Status: {_reported_status(due) or status(one.reply, digit)}"]
        if one.host:
            lines.append(f"Remote-MTA: dns; {_ascii(_host(one))}")
        if due.reported is not None:
            if due.reported.diagnostic:
                lines += _fold(f"Diagnostic-Code: {_ascii(due.reported.diagnostic)}", " ")
            continue
        # Section 2.3.6: what a remote never said is no SMTP diagnostic; of what was given up its last words are.
        last = one.reply.partition(EXPIRED)[2] or one.reply
        said = f"smtp; {last}" if _remote(one) else f"x-malote; {one.reply}"
        lines += _fold(f"Diagnostic-Code: {_ascii(said)}", " ")
        lines.append(f"Last-Attempt-Date: {_date(one.at)}")
        if due.kind is Kind.DELAYED:
            lines.append(f"Will-Retry-Until: {_date(retry_until)}")
    return lines


def _reported_status(due: Due) -> str:
    """What was reported: of class 4 also, when a server gave up after temporary failures."""
    code = due.reported.status if due.reported is not None else ""
    return code if _FAILURE.fullmatch(code) else ""


def _original(orcpt: str) -> str:
    kind, _, address = orcpt.partition(";")
    return f"{_ascii(kind)}; {_ascii(address if kind.lower() == 'utf-8' else from_xtext(address))}"


def _utf8(address: str) -> str:
    return f"utf-8; {to_utf8_xtext(address)}"


def _remote(one: Outcome) -> bool:
    """Whether the last answer was given by a host."""
    return bool(one.host) and not one.own


def _host(one: Outcome) -> str:
    return one.host.partition("[")[0] or one.host


def _returned(returned: Returned | None) -> tuple[bytes, bool]:
    """The third part (RFC 6522 section 3), and whether it needs an 8-bit path."""
    if returned is None:
        return b"Content-Type: text/rfc822-headers\r\n\r\n(the message is no longer kept here)\r\n", False
    if returned.whole:
        return _whole(returned.octets)
    headers = returned.octets
    if len(headers) > MAX_HEADERS:
        headers = headers[:MAX_HEADERS].rpartition(b"\r\n")[0] + b"\r\n"
    described = b"Content-Description: Headers of the message\r\n"
    if headers.isascii() and all(len(line) <= 998 for line in headers.split(b"\r\n")):
        return b"Content-Type: text/rfc822-headers\r\n" + described + b"\r\n" + headers, False
    quoted = f"{_QUOTED}\r\n\r\n".encode()
    # RFC 6533 section 3 names the type for headers in UTF-8.
    return b"Content-Type: message/global-headers\r\n" + described + quoted + _encoded(headers), False


def _whole(message: bytes) -> tuple[bytes, bool]:
    described = b"Content-Description: The message\r\n"
    quoted = f"{_QUOTED}\r\n\r\n".encode()
    if not message.partition(b"\r\n\r\n")[0].isascii():
        return b"Content-Type: message/global\r\n" + described + quoted + _encoded(message), False
    # RFC 2046 section 5.2.1: this type may not be encoded, only marked as what it is.
    eight_bit = not message.isascii()
    encoding = b"Content-Transfer-Encoding: 8bit\r\n" if eight_bit else b""
    return b"Content-Type: message/rfc822\r\n" + described + encoding + b"\r\n" + message, eight_bit


def _plain(lines: Sequence[str]) -> tuple[list[str], bytes]:
    """A part of text for a 7-bit path: its header fields and its body."""
    text = "\r\n".join([*lines, ""])
    if text.isascii():
        return ["Content-Type: text/plain; charset=us-ascii"], text.encode("ascii")
    return ["Content-Type: text/plain; charset=utf-8", _QUOTED], _encoded(text.encode())


def _encoded(octets: bytes) -> bytes:
    return quopri.encodestring(octets.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")


def _fold(line: str, indent: str) -> list[str]:
    """Cut a long line at spaces; the parts after the first begin with `indent`.

    A word is only cut where no line could hold it (RFC 5322 section 2.1.1), so that an address in it can be used.
    """
    lines: list[str] = []
    while len(line) > _WIDTH:
        cut = line.rfind(" ", len(indent) + 1, _WIDTH)
        if cut < 0 or not line[:cut].strip():
            cut = line.find(" ", _WIDTH, _LONGEST)
        if cut < 0 and len(line) <= _LONGEST:
            break
        cut = _LONGEST if cut < 0 else cut
        lines.append(line[:cut])
        if not (rest := line[cut:].lstrip(" ")):
            return lines
        line = indent + rest
    return [*lines, line]


def _ascii(text: str) -> str:
    return _OUTSIDE_ASCII.sub("?", text)


def _shown(text: str) -> str:
    """Text for people: without what would break lines or turn the direction of writing."""
    return _CONTROLS.sub("?", text)


def _date(at: float) -> str:
    return format_datetime(datetime.fromtimestamp(at, UTC))
