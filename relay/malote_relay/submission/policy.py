"""Who may send what: pure decisions on the configuration in force. Each gives None (yes) or the refusal.

The rules, in the order in which a client meets them: the tenant may send at all (submission is open, the account is
not suspended); the reverse-path is of a verified domain of the tenant's; the header's From is one mailbox of such
a domain, and Sender, Resent-From and Resent-Sender, where present, are too; an account of class Bulk offers
one-click unsubscription (RFC 8058). Domains match exactly: a subdomain is a domain of its own.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from malote_relay.clock import moment
from malote_relay.config import Account, AccountClass, Domain, OverLimitReply, Plan, RelayConfig
from malote_relay.metrics import Refused
from malote_relay.quota import OverLimit
from malote_relay.submission.address import Mailbox, mailbox
from malote_relay.submission.headers import Field, HeaderError, mailboxes, named, only_mailbox
from malote_relay.submission.hygiene import MAX_RECEIVED, is_looping
from malote_relay.submission.replies import Reply, malformed

_OTHER_ORIGINATORS = (b"sender", b"resent-from", b"resent-sender")
_OTHERS = frozenset(_OTHER_ORIGINATORS)
_HTTPS_URI = re.compile(r"<\s*https://[^\s<>]+\s*>", re.IGNORECASE)


class Rules:
    """A configuration, indexed for the questions that each message asks."""

    def __init__(self, config: RelayConfig) -> None:
        self.config = config
        self.accounts = {account.username: account for account in config.accounts}
        self.domains = {domain.name: domain for domain in config.domains}
        postmaster = config.submission.postmaster
        self._postmaster = mailbox(postmaster) if postmaster else None
        self.proxy_networks = tuple(ipaddress.ip_network(network) for network in config.listen.proxy_networks)

    def may_submit(self, account: Account) -> Reply | None:
        """Whether this account may start a transaction now."""
        if not self.config.submission.open:
            reason = self.config.submission.reason
            return Reply(550, "5.7.1", f"sending is not open yet: {reason}", Refused.SUBMISSION_CLOSED)
        if account.suspended:
            text = f"the account {account.username} is suspended: ask your platform"
            return Reply(550, "5.7.1", text, Refused.ACCOUNT_SUSPENDED)
        return None

    def reverse_path(self, sender: Mailbox | None) -> Reply | None:
        """Whether mail may come from this reverse-path; the null one may: its header From will be looked at."""
        if sender is None:
            return None
        if problem := self._domain_problem(sender.domain):
            return Reply(550, "5.7.1", f"the sender <{sender}> is refused: {problem}", Refused.DOMAIN)
        return None

    def postmaster(self, sender: Mailbox | None) -> Mailbox | None:
        """Who gets mail for <postmaster> without a domain (RFC 5321 section 4.5.1), from this reverse-path.

        The relay is one tenant's: without anybody named for it, the postmaster is that of the sender's own domain.
        """
        if self._postmaster is not None or sender is None:
            return self._postmaster
        return Mailbox("postmaster", sender.domain)

    def header(self, fields: Sequence[Field], account: Account) -> Mailbox | Reply:
        """The author's mailbox when the header section is acceptable from this account, else the refusal."""
        if is_looping(fields):
            text = f"the message has passed more than {MAX_RECEIVED} servers: a mail loop"
            return Reply(554, "5.4.6", text, Refused.LOOP)
        try:
            author = _author(fields)
            others = _other_originators(fields)
        except HeaderError as error:
            return Reply(550, "5.6.0", f"{error}", Refused.HEADER_FROM)
        if problem := self._domain_problem(author.domain):
            return Reply(550, "5.7.1", f"the header From <{author}> is refused: {problem}", Refused.HEADER_FROM)
        for field, other in others:
            if problem := self._domain_problem(other.domain):
                name = field.name.decode("ascii")
                text = f"the header field {name} <{other}> is refused: {problem}"
                return Reply(550, "5.7.1", text, Refused.HEADER_FROM)
        if account.account_class is AccountClass.BULK:
            return _bulk_problem(fields) or author
        return author

    def _domain_problem(self, name: str) -> str:
        domain: Domain | None = self.domains.get(name)
        if domain is None:
            return f"{name} is not a sending domain of {self.config.tenant}"
        if not domain.sending:
            return f"{name} is not verified" + (f": {domain.refusal}" if domain.refusal else "")
        return ""


def over_limit(plan: Plan, limit: OverLimit) -> Reply:
    """No unit is left in this hour and its tolerance."""
    permanent = plan.over_limit_reply is OverLimitReply.PERMANENT
    back = moment(limit.returns_at)
    held = f" and {limit.tolerance} more held for the next hour" if limit.tolerance else ""
    return Reply(
        550 if permanent else 451,
        "5.7.1" if permanent else "4.7.1",
        f"hourly limit reached: plan {plan.display_name or plan.name} takes {limit.limit} accepted recipients "
        f"per clock hour (UTC){held}; capacity returns at {back}",
        Refused.OVER_LIMIT,
    )


def _author(fields: Sequence[Field]) -> Mailbox:
    found = named(fields, b"from")
    if len(found) != 1:
        count = "no" if not found else "more than one"
        raise HeaderError(f"the message has {count} From field: exactly one is needed")
    return only_mailbox(found[0])


def _other_originators(fields: Sequence[Field]) -> list[tuple[Field, Mailbox]]:
    if all(field.name not in _OTHERS for field in fields):  # as in nearly every message
        return []
    return [(field, box) for name in _OTHER_ORIGINATORS for field, box in _originators(fields, name)]


def _originators(fields: Sequence[Field], name: bytes) -> list[tuple[Field, Mailbox]]:
    found = named(fields, name)
    if name == b"sender" and len(found) > 1:
        raise HeaderError("the message has more than one Sender field")
    return [(field, box) for field in found for box in mailboxes(field)]


def _bulk_problem(fields: Sequence[Field]) -> Reply | None:
    """RFC 8058 section 3.1: an https URI in List-Unsubscribe, and exactly this List-Unsubscribe-Post."""
    addresses, post = named(fields, b"list-unsubscribe"), named(fields, b"list-unsubscribe-post")
    try:
        good = (
            len(addresses) == 1
            and len(post) == 1
            and _HTTPS_URI.search(addresses[0].value) is not None
            and post[0].value.lower() == "list-unsubscribe=one-click"
        )
    except HeaderError as error:
        return malformed(str(error))
    if good:
        return None
    return Reply(
        550,
        "5.7.1",
        "bulk mail needs one-click unsubscription: List-Unsubscribe with an https address in <>, and "
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click (RFC 8058)",
        Refused.BULK_RULES,
    )
