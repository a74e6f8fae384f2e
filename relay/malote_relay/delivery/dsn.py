"""Delivery status notifications: telling the sender that a message did not arrive (RFC 3461, 3464, 6522, 6533).

A notification goes to the reverse-path with a null reverse-path of its own, so that it can never cause another
(RFC 5321 section 4.5.5); who sent with a null reverse-path gets none. It carries words for people, the status of each
recipient for programs, and the headers of the message, by which both find out which one it was.
"""

from __future__ import annotations

import quopri
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime

from malote_relay.delivery.outcome import span
from malote_relay.delivery.reply import parse
from malote_relay.store.model import NewMessage, NewRecipient, Outcome, Queued

MAX_HEADERS = 32 * 1024
"""Octets of the original headers that are returned."""

_WIDTH = 76
_OUTSIDE_ASCII = re.compile(r"[^\x20-\x7e]")


def failure_notice(
    outcomes: Sequence[Outcome], headers: bytes | None, *, egress_name: str, now: float, id: str
) -> NewMessage:
    """The notification for the failed recipients of one message. Its reverse-path must not be null.

    `headers` is the message's header section, None when it is gone; `id` is the new message's; `egress_name` is who
    reports: the name that remote hosts know the relay by.
    """
    first = outcomes[0].recipient
    if not first.reverse_path:
        raise ValueError("a message with a null reverse-path gets no notification (RFC 5321 section 4.5.5)")
    message_id = f"<{id}.{secrets.token_hex(4)}@{egress_name}>"
    utf8 = not first.reverse_path.isascii()
    boundary = f"=_{secrets.token_hex(16)}"
    lines = [
        f"From: Mail Delivery System <MAILER-DAEMON@{egress_name}>",
        f"To: <{first.reverse_path}>",
        "Subject: Undelivered mail returned to sender",
        f"Date: {_date(now)}",
        f"Message-ID: {message_id}",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary}"',
        "",
        "This is a report in MIME format.",
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "Content-Description: Notification",
        "",
        *_words(outcomes, egress_name),
        "",
        f"--{boundary}",
        "Content-Type: message/delivery-status",
        "Content-Description: Delivery report",
        "",
        *_status(outcomes, egress_name),
        "",
        f"--{boundary}",
    ]
    end = [f"--{boundary}--", ""]
    text = "\r\n".join(lines).encode("utf-8") + b"\r\n" + _returned(headers) + b"\r\n" + "\r\n".join(end).encode()
    return NewMessage(
        id=id,
        account="",
        reverse_path="",
        header_from=f"MAILER-DAEMON@{egress_name}",
        message_id=message_id,
        recipients=[NewRecipient(first.reverse_path, hour=int(now // 3600))],
        content=text,
        size=len(text),
        received_at=now,
        eight_bit=False,
        smtputf8=utf8,
    )


def is_notice(recipient: Queued) -> bool:
    """Whether this is a notification of the relay's own: no account sent it, and its reverse-path is null."""
    return not recipient.account and not recipient.reverse_path


def _words(outcomes: Sequence[Outcome], egress_name: str) -> list[str]:
    waited = span(max(0.0, outcomes[0].at - outcomes[0].recipient.received_at))
    lines = [
        f"This is the mail relay {egress_name}.",
        "",
        f"Your message, accepted here {waited} ago, could not be delivered to:",
        "",
    ]
    for one in outcomes:
        lines += [f"  {_ascii(one.recipient.address)}", *_fold(f"    {_ascii(one.reply)}", "    "), ""]
    return [
        *lines,
        "Nothing more will be tried for these recipients. The report for programs and",
        "your message's headers follow.",
    ]


def _status(outcomes: Sequence[Outcome], egress_name: str) -> list[str]:
    """RFC 3464 section 2: the fields of the message, then those of each recipient."""
    lines = [f"Reporting-MTA: dns; {egress_name}", f"Arrival-Date: {_date(outcomes[0].recipient.received_at)}"]
    for one in outcomes:
        address = one.recipient.address
        # RFC 6533 section 3: an internationalised address in a form that any path carries.
        final = f"rfc822; {address}" if address.isascii() else f"utf-8; {_utf8_addr_xtext(address)}"
        lines += ["", f"Final-Recipient: {final}", "Action: failed", f"Status: {status(one.reply)}"]
        if one.host:
            lines.append(f"Remote-MTA: dns; {_ascii(one.host.partition('[')[0] or one.host)}")
        lines += _fold(f"Diagnostic-Code: smtp; {_ascii(one.reply)}", " ")
        lines.append(f"Last-Attempt-Date: {_date(one.at)}")
    return lines


def status(words: str) -> str:
    """The Status field for a failure: the reply's enhanced code when it is a permanent one, else 5.0.0."""
    try:
        code = parse(words).enhanced
    except ValueError:
        code = ""
    return code if code.startswith("5.") else "5.0.0"


def _returned(headers: bytes | None) -> bytes:
    """The third part (RFC 6522 section 3): the original headers, safe for a 7-bit path and for our line lengths."""
    if headers is None:
        return b"Content-Type: text/rfc822-headers\r\n\r\n(the message is no longer kept here)\r\n"
    if len(headers) > MAX_HEADERS:
        headers = headers[:MAX_HEADERS].rpartition(b"\r\n")[0] + b"\r\n"
    kind = b"Content-Type: text/rfc822-headers\r\nContent-Description: Headers of the message\r\n"
    if headers.isascii() and all(len(line) <= 998 for line in headers.split(b"\r\n")):
        return kind + b"\r\n" + headers
    encoded = quopri.encodestring(headers.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
    # RFC 6533 section 3 names the type for headers in UTF-8.
    kind = b"Content-Type: message/global-headers\r\nContent-Description: Headers of the message\r\n"
    return kind + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + encoded


def _fold(line: str, indent: str) -> list[str]:
    """Cut a long line at spaces; the parts after the first begin with `indent`."""
    lines: list[str] = []
    while len(line) > _WIDTH:
        cut = line.rfind(" ", len(indent) + 1, _WIDTH)
        if cut < 0 or not line[:cut].strip():
            cut = line.find(" ", _WIDTH)
        if cut < 0:
            break
        lines.append(line[:cut])
        line = indent + line[cut + 1 :]
    return [*lines, line]


def _utf8_addr_xtext(address: str) -> str:
    return "".join(c if "\x21" <= c <= "\x7e" and c not in "+=\\" else f"\\x{{{ord(c):X}}}" for c in address)


def _ascii(text: str) -> str:
    return _OUTSIDE_ASCII.sub("?", text)


def _date(at: float) -> str:
    return format_datetime(datetime.fromtimestamp(at, UTC))
