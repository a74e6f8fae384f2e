"""What a refusal means: permanent or not, and one of a few classes that people and rules can act on.

The code says whether it is permanent (RFC 5321 section 4.2.1); the class comes from the rules in `replies.toml`, by
the host's provider, the text, the enhanced code and the reply code. Text comes before codes, because many servers say
in words what their codes do not (RFC 3463 codes are often missing, and 5.7.1 stands for everything from spam to a
missing DMARC).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from malote_relay.delivery.answers.rules import load, reduced
from malote_relay.delivery.reply import About, Answer, Failure, Reply, parse

RULES: Final = load(Path(__file__).with_name("replies.toml"))

CLASSES: Final[Mapping[str, str]] = RULES.classes
"""Every class and what it means."""

_OF_A_MAILBOX: Final = frozenset({"bad-mailbox", "inactive"})
_OF_AN_ADDRESS: Final = _OF_A_MAILBOX | {"bad-domain", "quota"}
_TAKES_NO_MAIL: Final = frozenset({521, 556})

_TOO_MANY: Final = re.compile(
    " (too many|maximum|number of|limit of) (recipients?|rcpts?) | (recipients?|rcpts?) (limit|count|maximum) "
)


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer that is no acceptance means."""

    permanent: bool
    bounce_class: str


def classify(answer: Answer, host: str = "") -> Verdict:
    """Read a refusal: a reply other than 2yz, or a failure of ours. `host` is the MX host that gave it, if known."""
    if isinstance(answer, Failure):
        if answer.bounce_class:
            return Verdict(answer.permanent, answer.bounce_class)
        # Ours say at what the remote said it: "(mx.example, EHLO)" is no word about an EHLO name.
        reply = dataclasses.replace(parse(answer.said or answer.words), about=About.MESSAGE)
        return Verdict(answer.permanent, _bounce_class(reply, host))
    if too_many_recipients(answer):
        return Verdict(False, "rate-limit")
    return Verdict(answer.permanent, _bounce_class(answer, host))


def permanent(answer: Answer) -> bool:
    """Whether a refusal is final, without asking what it means."""
    return answer.permanent and not too_many_recipients(answer)


def too_many_recipients(answer: Answer) -> bool:
    """Whether a recipient was refused only because its transaction had enough of them: the next may take it.

    RFC 5321 section 4.5.3.1.10: 452, enhanced 4.5.3 (RFC 3463); 552 was once the code for it, and means 452 then.
    Either is said of full mailboxes too, so that without an enhanced code it is the words that tell.
    """
    if not isinstance(answer, Reply) or answer.code not in (452, 552):
        return False
    return answer.enhanced[2:] == "5.3" if answer.enhanced else bool(_TOO_MANY.search(reduced(str(answer))))


def _bounce_class(reply: Reply, host: str) -> str:
    rule = RULES.find(reply, host)
    found = rule.bounce_class if rule else "other"
    # What is said of a mailbox has consequences for the recipient: it must be the recipient's.
    if reply.about is About.SENDER and found in _OF_AN_ADDRESS and reply.code not in _TAKES_NO_MAIL:
        return "bad-sender"
    return "other" if reply.about is About.MESSAGE and found in _OF_A_MAILBOX else found
