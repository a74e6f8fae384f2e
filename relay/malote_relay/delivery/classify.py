"""What a refusal means: permanent or not, and one of a few classes that people and rules can act on.

The rules are data: the first that fits decides. Text comes before codes, because many servers say in words what
their codes do not (RFC 3463 codes are often missing, and 5.7.1 stands for everything from spam to a missing DMARC).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from malote_relay.delivery.reply import Answer, Failure, Reply

CLASSES = (
    "bad-mailbox",  # no such user
    "bad-domain",  # the domain does not exist or takes no mail
    "inactive",  # the mailbox is disabled or abandoned
    "quota",  # the mailbox is full
    "policy",  # refused by a rule of the receiver that is none of the below
    "spam",  # content or reputation
    "auth",  # SPF, DKIM, DMARC, reverse DNS
    "routing",  # relaying denied, loops, DNS trouble
    "tls",  # encryption could not be had
    "too-big",
    "rate-limit",
    "greylist",
    "connection",  # no connection, or it was lost
    "timeout",
    "other",
)


@dataclass(frozen=True, slots=True)
class Rule:
    """Fits a reply when each part that is given does: the enhanced code's subject and detail, reply codes, text."""

    bounce_class: str
    text: re.Pattern[str] | None = None
    enhanced: frozenset[str] = frozenset()
    codes: frozenset[int] = frozenset()
    temporary: bool | None = None

    def fits(self, reply: Reply, words: str) -> bool:
        """Whether the rule decides this reply; `words` is its text in lower case."""
        if self.temporary is not None and self.temporary == reply.permanent:
            return False
        if self.codes and reply.code not in self.codes:
            return False
        if self.enhanced and reply.enhanced[2:] not in self.enhanced:
            return False
        return self.text is None or self.text.search(words) is not None


def _says(bounce_class: str, *phrases: str, temporary: bool | None = None) -> Rule:
    return Rule(bounce_class, text=re.compile("|".join(phrases)), temporary=temporary)


def _status(bounce_class: str, *details: str, temporary: bool | None = None) -> Rule:
    return Rule(bounce_class, enhanced=frozenset(details), temporary=temporary)


def _code(bounce_class: str, *codes: int) -> Rule:
    return Rule(bounce_class, codes=frozenset(codes))


_WHO = r"(mailbox|account|user|address|recipient)"

RULES: tuple[Rule, ...] = (
    # Words that leave no doubt.
    _says("greylist", r"gr[ea]y-?list", r"postgrey", temporary=True),
    _says(
        "rate-limit",
        r"rate.?limit",
        r"too (many|much) (connections|messages|mail|recipients|concurrent|errors|requests|emails)",
        r"throttl",
        r"sending rate",
        r"unusual rate",
        r"receiving mail (at too high a rate|too quickly)",
        r"exceeded .*(connection|message)s? ",
        r"\[tss?0[0-9]\]",
        r"too fast",
    ),
    _says(
        "quota",
        r"over ?-?quota",
        r"quota (exceeded|full)",
        r"(mailbox|inbox) (is |was |over )?full",
        r"mailbox .*exceeded",
        r"out of (storage|disk) space",
        r"insufficient (disk|storage|system storage)",
        r"not enough (disk )?space",
        r"exceed(s|ed)? .*quota",
        r"caixa .*cheia",
        r"storage (limit|allocation) .*exceeded",
    ),
    _says(
        "inactive",
        rf"{_WHO} (is |has been |was )?(temporarily )?(disabled|inactive|suspended|deactivated|locked|expired)",
        r"inactive (user|account|mailbox)",
        r"no longer (active|available|in use|valid|works|accept)",
        r"account (that you tried to reach )?is (disabled|over)",
        r"user has moved",
    ),
    _says(
        "auth",
        r"\b(spf|dkim|dmarc|ptr)\b",
        r"sender policy framework",
        r"unauthenticated (mail|email)",
        r"reverse dns",
        r"(sender|message) .*not authenticated",
        r"helo .*(invalid|reject|does not|denied)",
        r"cannot find your hostname",
    ),
    _says(
        "spam",
        r"\bspam",
        r"unsolicited",
        r"blocked using",
        r"(block|black|deny) ?list",
        r"\b(rbl|dnsbl|spamhaus|spamcop|barracuda|sorbs)\b",
        r"reputation",
        r"junk",
        r"\bbulk mail",
        r"virus|malware|phish",
        r"content (was )?(rejected|refused|blocked|filter)",
        r"poor (sender )?score",
        r"listed (in|on|at) ",
    ),
    _says(
        "bad-mailbox",
        rf"{_WHO}( address)?( is| was)? (unknown|not found|unavailable|invalid|does ?n[o']t exist)",
        rf"(no such|unknown|invalid|nonexist[ae]nt|undeliverable) ({_WHO}|local part|person)",
        r"does ?n[o']t (have|exist)",
        r"recipient ?not ?found|recipient .*not found",
        r"unrouteable address",
        rf"not? (our|a valid|a known) (customer|{_WHO})",
        r"recipient (address )?rejected: (user|undeliverable|access)",
        r"no (such )?mailbox (here )?(by that name)?",
        r"user .*(unknown|not found|does not exist)",
        r"usu[aá]rio .*(inexistente|n[aã]o existe|desconhecido)",
        r"unknown (to|in) (local|virtual)",
        r"that (email )?account .*does not exist",
    ),
    _says(
        "routing",
        r"relay(ing)? (access )?(is )?(denied|not permitted|prohibited|not allowed)",
        r"(unable to|not?|does not) relay",
        r"(mail|routing) loop",
        r"too many hops",
        r"loops back",
    ),
    _says("too-big", r"(message|size) .*(too (large|big)|exceed)", r"too large", r"maximum message size"),
    _says("bad-domain", r"(domain|host) (not found|does ?n[o']t exist|unknown)", r"null ?mx", r"no mail is accepted"),
    _says("tls", r"must issue a starttls", r"\btls (is )?required", r"encryption (is )?(required|needed)"),
    _says("policy", r"polic(y|ies)", r"administrative(ly)? (prohibition|denied)", r"not authori[sz]ed"),
    _says("policy", r"access denied"),
    # Enhanced codes (RFC 3463 and its registry), by subject.detail.
    _status("bad-mailbox", "1.0", "1.1", "1.3", "1.4"),
    _status("bad-domain", "1.2", "1.10"),
    _status("inactive", "1.6", "2.1"),
    _status("policy", "1.7", "1.8", "1.9"),
    _status("quota", "2.2", "3.1"),
    _status("too-big", "2.3", "3.4"),
    _status("routing", "4.3", "4.4", "4.6"),
    _status("rate-limit", "4.5", "5.3", "7.28"),
    _status("connection", "4.1", "4.2"),
    _status("timeout", "4.7"),
    _status("greylist", "7.1", temporary=True),
    _status("auth", "7.20", "7.21", "7.22", "7.23", "7.24", "7.25", "7.26", "7.27", "7.29"),
    _status("tls", "7.4", "7.5", "7.10", "7.11"),
    _status("policy", "7.0", "7.1", "7.2", "7.3", "7.7", "7.13", "7.14", "7.17", "7.18"),
    _status("policy", "6.0", "6.1", "6.2", "6.3", "6.6", "6.7"),
    # Reply codes alone (RFC 5321 section 4.2.2, RFC 7504).
    _code("quota", 452, 552),
    _code("bad-mailbox", 550, 551, 553),
    _code("bad-domain", 521, 556),
    _code("rate-limit", 421),
    _code("greylist", 450, 451),
    _code("policy", 554),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer that is no acceptance means."""

    permanent: bool
    bounce_class: str


def classify(answer: Answer) -> Verdict:
    """Read a refusal: a reply other than 2yz, or a failure of ours."""
    if isinstance(answer, Failure):
        if answer.bounce_class:
            return Verdict(answer.permanent, answer.bounce_class)
        reply = Reply(int(answer.words[:3]), (answer.words[4:],))
        return Verdict(answer.permanent, _bounce_class(reply))
    if too_many_recipients(answer):
        return Verdict(False, "rate-limit")
    return Verdict(answer.permanent, _bounce_class(answer))


def too_many_recipients(answer: Answer) -> bool:
    """Whether a recipient was refused only because its transaction had enough of them: the next may take it.

    RFC 5321 section 4.5.3.1.10: 452, enhanced 4.5.3 (RFC 3463); 552 was once the code for it, and means 452 then.
    """
    if not isinstance(answer, Reply) or answer.code not in (452, 552):
        return False
    return answer.enhanced[2:] == "5.3" if answer.enhanced else "recipients" in str(answer).lower()


def _bounce_class(reply: Reply) -> str:
    words = str(reply)[4:].lower()
    return next((rule.bounce_class for rule in RULES if rule.fits(reply, words)), "other")
