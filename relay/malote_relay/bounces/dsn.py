"""Reports on delivery taken apart (RFC 3461, 3464, 6522, 6533), as servers really write them. Pure; never raises.

What is read leniently: a report whose outer type is not multipart/report, fields of recipients without the empty
line before them, addresses with or without a type, actions and codes with comments, a status only in the diagnostic,
groups of fields that are encoded. What is no structured report may still be a bounce in words (`text.recognise`).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message

from malote_relay.bounces import mime
from malote_relay.bounces.mime import Fields, first
from malote_relay.bounces.text import MAX_TEXT, Kind, recognise
from malote_relay.delivery.parameters import from_utf8_xtext, from_xtext

MAX_RECIPIENTS = 100
"""Recipients that are read of one report."""

_REPORTS = ("message/delivery-status", "message/global-delivery-status")
_STATUS = re.compile(r"(?<![0-9.])([245])\.([0-9]{1,3})\.([0-9]{1,3})(?![0-9.])")
_TAG = re.compile(r"<[^>]{0,1000}>")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class Action(enum.StrEnum):
    """What a server did with a recipient (RFC 3464 section 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


@dataclass(frozen=True, slots=True)
class RecipientStatus:
    """What became of one recipient. `status` is an enhanced code, `diagnostic` what was said; both may be "".

    `diagnostic_type` is how it was said ("smtp" for a reply); "" for a report in words alone.
    """

    action: Action
    status: str = ""
    diagnostic: str = ""
    final_recipient: str = ""
    original_recipient: str = ""
    remote: str = ""
    diagnostic_type: str = ""


@dataclass(frozen=True, slots=True)
class Dsn:
    """A report: who reports, the sender's name for the envelope, and what became of the recipients."""

    recipients: Sequence[RecipientStatus]
    reporter: str = ""
    envelope_id: str = ""


def report(message: Message) -> Dsn | Kind:
    """The report in a message; for none, what the message is: an automatic reply, for one."""
    for part in mime.parts(message):
        if mime.kind(part) in _REPORTS and (found := _structured(mime.groups(part))) is not None:
            return found
    kind, said = recognise(mime.fields(message), plain_text(message))
    if kind is not Kind.BOUNCE:
        return kind
    named = [one.strip(" <>") for one in first(mime.fields(message), "x-failed-recipients").split(",") if one.strip()]
    return Dsn([RecipientStatus(Action.FAILED, _status(said), said, one) for one in (named or [""])[:MAX_RECIPIENTS]])


def plain_text(message: Message) -> str:
    """The first text of a message; of one in HTML what stands between the tags."""
    html = ""
    for part in mime.parts(message):
        kind = mime.kind(part)
        if kind == "text/plain" and (text := mime.text(part)).strip():
            return text.replace("\r\n", "\n")
        if kind == "text/html" and not html:
            html = _TAG.sub(" ", mime.text(part)[: 2 * MAX_TEXT])
    return html


def _structured(groups: Sequence[Fields]) -> Dsn | None:
    reporter, envelope_id = "", ""
    recipients: list[RecipientStatus] = []
    for group in groups:
        reporter = reporter or _untyped(first(group, "reporting-mta"))
        envelope_id = envelope_id or first(group, "original-envelope-id")
        if len(recipients) < MAX_RECIPIENTS and (one := _recipient(group)) is not None:
            recipients.append(one)
    return Dsn(recipients, reporter[:255], envelope_id[:255]) if recipients else None


def _recipient(group: Fields) -> RecipientStatus | None:
    final, original = first(group, "final-recipient"), first(group, "original-recipient")
    said, status = first(group, "diagnostic-code"), _status(first(group, "status"))
    if not (final or original or first(group, "action")):
        return None
    diagnostic = _untyped(said)
    status = status or _status(diagnostic)
    action = _action(first(group, "action"), status)
    if action is None:
        return None
    return RecipientStatus(
        action,
        status,
        _CONTROLS.sub(" ", diagnostic)[:1000],
        _address(final),
        _address(original),
        _untyped(first(group, "remote-mta"))[:255],
        _type(said),
    )


def _action(written: str, status: str) -> Action | None:
    word = re.match(r"[a-z]*", written.strip().lower())
    try:
        return Action(word[0] if word else "")
    except ValueError:
        return {"5": Action.FAILED, "4": Action.DELAYED, "2": Action.DELIVERED}.get(status[:1])


def _status(text: str) -> str:
    found = _STATUS.search(text)
    return found[0] if found else ""


def _untyped(value: str) -> str:
    """What stands after the type (`dns;`, `smtp;`)."""
    kind, semicolon, rest = value.partition(";")
    return rest.strip() if semicolon and re.fullmatch(r"\s*[\w-]{1,20}\s*", kind) else value.strip()


def _type(value: str) -> str:
    """The type, in lower case; "" for none."""
    found = re.match(r"\s*([\w-]{1,20})\s*;", value, re.ASCII)
    return found[1].lower() if found else ""


def _address(value: str) -> str:
    kind, semicolon, _ = value.partition(";")
    address = _untyped(value).strip(" <>")[:1000]
    if not semicolon:
        return address
    return from_utf8_xtext(address) if kind.strip().lower() == "utf-8" else from_xtext(address)
