"""What a report means: which class of bounce, by the rules that replies in a delivery are read by. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from malote_relay.bounces.dsn import Action, Dsn, RecipientStatus
from malote_relay.delivery.classify import classify
from malote_relay.delivery.reply import Reply

_REPLY = re.compile(r"(?<![\d.])([45][0-5]\d)[ -]+(?:#?([45]\.\d{1,3}\.\d{1,3}) ?)?")


@dataclass(frozen=True, slots=True)
class Bounce:
    """A failure told of after delivery. `words` read like a reply; `host` is who refused or reports."""

    bounce_class: str
    permanent: bool
    words: str
    host: str


def verdict(dsn: Dsn) -> Bounce | None:
    """The failure a report tells of; None when it tells of none: a delay or a success."""
    failed = next((one for one in dsn.recipients if one.action is Action.FAILED), None)
    if failed is None:
        return None
    reply = _reply(failed)
    read = classify(reply)
    return Bounce(read.bounce_class, read.permanent, str(reply), failed.remote or dsn.reporter)


def _reply(one: RecipientStatus) -> Reply:
    """As the remote may have said it. A status that says more than the words' own code comes before it."""
    text = " ".join(one.diagnostic.split())
    found = _REPLY.search(text)
    code, enhanced = (int(found[1]), found[2] or "") if found else (0, "")
    said = text[found.end() :] if found else text
    status = one.status or enhanced
    if not code or status[:1] not in ("", str(code)[0]):
        # Given up after temporary replies (5.4.7), or no reply at all: the report's own code decides.
        code = {"4": 450, "5": 550}.get(status[:1], 550)
    best = enhanced if enhanced and enhanced[2:] != "0.0" and enhanced[0] == str(code)[0] else status
    return Reply(code, (f"{best} {said}".strip(),))
