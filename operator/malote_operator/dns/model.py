"""What was learned from DNS: answers, and the two ways of not having one."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass


class Outcome(enum.StrEnum):
    """How a question ended. ABSENT is an answer (the name or type does not exist); FAILED is none."""

    ANSWERED = "answered"
    ABSENT = "absent"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Answer:
    """The TXT records at `name`: each with its strings joined, in the order of the answer; or those of another type.

    Of an MX record `texts` has preference and host, of a PTR record the host, in lower case and without a final dot:
    ``10 mx.example``. Of a host it has the addresses.
    `cname` is the chain of names that `name` leads to through CNAMEs (absolute, lower case, no final dot);
    `error` says for people what went wrong when `outcome` is FAILED.
    """

    name: str
    outcome: Outcome
    texts: tuple[str, ...] = ()
    cname: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """Which records of a domain are asked for: the key's of a selector, those of a return path, and so on.

    `host`: its addresses, and the names that these lead back to.
    """

    domain: str
    selector: str | None = None
    return_path: str = ""
    spf: bool = True
    dmarc: bool = True
    host: bool = False


@dataclass(frozen=True, slots=True)
class Observation:
    """What a domain's servers said at one time.

    None is what was not asked for: `dkim` without a selector, those of a return path without one. `host` are the
    addresses, A and AAAA, of the domain as a host; `reverse` is what the first of them lead back to, each.
    """

    at: dt.datetime
    spf: Answer | None = None
    dmarc: Answer | None = None
    dkim: Answer | None = None
    return_path_mx: Answer | None = None
    return_path_spf: Answer | None = None
    host: Answer | None = None
    reverse: tuple[Answer, ...] = ()

    @property
    def answers(self) -> tuple[Answer, ...]:
        """All that there are."""
        found = (self.spf, self.dkim, self.dmarc, self.return_path_mx, self.return_path_spf, self.host, *self.reverse)
        return tuple(answer for answer in found if answer is not None)
