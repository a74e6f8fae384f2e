"""What a report means: which class of bounce, by the rules that replies in a delivery are read by. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from malote_relay.bounces.dsn import Action, Dsn
from malote_relay.delivery.answers.classify import classify
from malote_relay.delivery.reply import Reply

_REPLY = re.compile(r"(?<![0-9.])([45][0-5][0-9])[ -]+(?:#?([45]\.[0-9]{1,3}\.[0-9]{1,3}) ?)?")


@dataclass(frozen=True, slots=True)
class Bounce:
    """A failure told of after delivery. `words` read like a reply; `host` is who refused or reports.

    `status` is the enhanced code, `diagnostic` what was said behind its type, as reported; each may be "".
    """

    bounce_class: str
    permanent: bool
    words: str
    host: str
    status: str = ""
    diagnostic: str = ""


_MAX_TEXT = 800
"""Characters of what was said: they go into a line of a mail, in whatever form."""

_UNTOLD = {"4": 499, "5": 599}
"""Stand for a reply code that nobody told: no rule goes by them."""


def verdict(dsn: Dsn) -> Bounce | None:
    """The failure a report tells of; None when it tells of none: a delay or a success."""
    failed = next((one for one in dsn.recipients if one.action is Action.FAILED), None)
    if failed is None:
        return None
    text = " ".join(failed.diagnostic.split())[:_MAX_TEXT]
    found = _REPLY.search(text)
    code, enhanced = (int(found[1]), found[2] or "") if found else (0, "")
    said = text[found.end() :] if found else text
    status = failed.status or enhanced
    if code and status[:1] not in ("", str(code)[0]):
        code = 0  # given up after temporary replies, or the other way round: the report's own status decides
    if enhanced and enhanced[2:] != "0.0" and (not code or enhanced[0] == str(code)[0]):
        status = enhanced if code else status
    said = f"{status} {said.removeprefix(status).strip()}".strip()
    host = failed.remote or dsn.reporter
    read = classify(Reply(code or _UNTOLD.get(status[:1], 599), (said,)), host)
    words = Reply(code or (450 if status[:1] == "4" else 550), (said,))
    kind = failed.diagnostic_type or ("smtp" if found and not found.start() else "x-text")
    told = f"{kind}; {text}" if text else ""
    return Bounce(read.bounce_class, words.permanent, str(words), host, failed.status or enhanced, told)
