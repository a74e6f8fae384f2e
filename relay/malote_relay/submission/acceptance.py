"""The door: the one way in for mail, whatever protocol it came by.

`begin` opens a transaction (policy, size, room, does the sender exist), `add_recipient` takes a unit of the hour for
each recipient, `accept` looks at the content, sets it right, signs it, charges the hour and commits. Only then is
there a positive answer. Whatever ends earlier is given back: units, memory, files.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import structlog

from malote_relay.clock import Clock
from malote_relay.config import Account
from malote_relay.metrics import Refused
from malote_relay.quota import OverLimit, Reservation
from malote_relay.store.contents import checksum
from malote_relay.store.model import NO_DSN, DsnRequest, NewMessage, NewRecipient, Notify
from malote_relay.store.names import new_message_id
from malote_relay.submission import headers, hygiene, replies
from malote_relay.submission.address import Mailbox
from malote_relay.submission.body import Body, NoRoom, Spool, finish_behind
from malote_relay.submission.commands import Mail, Rcpt
from malote_relay.submission.desk import Desk
from malote_relay.submission.headers import HeaderError
from malote_relay.submission.policy import Rules, over_limit
from malote_relay.submission.replies import Reply

_random = random.Random()  # noqa: S311  # names, not secrets: without a system call for each message
_log = structlog.get_logger("malote.submission")


class Signs(Protocol):
    """What adds DKIM signatures; `malote_relay.signing.Signer` does it."""

    async def sign(self, domain: str, content: bytes | Path) -> bytes:
        """The header fields to put in front of `content`."""
        ...


class ChecksSenders(Protocol):
    """What knows whether a sender address exists; `malote_relay.senders.Senders` does it."""

    async def check(self, sender: Mailbox) -> tuple[Reply | None, bool]:
        """The refusal, if any, and whether the sender's existence is unknown."""
        ...


class ChecksRecipients(Protocol):
    """What knows who is not to be sent to; `malote_relay.suppression.Suppressions` does it."""

    async def check(self, recipient: Mailbox) -> Reply | None:
        """The refusal, if any."""
        ...


class ChecksAccounts(Protocol):
    """What knows which accounts are paused; `malote_relay.pausing.Pauses` does it."""

    async def check(self, account: Account) -> Reply | None:
        """The refusal, if any."""
        ...


class Counts(Protocol):
    """What counts refusals; `malote_relay.metrics.Metrics` does it."""

    def refused(self, reason: Refused) -> None:
        """Count one refusal."""
        ...


@dataclass(slots=True)
class Transaction:
    """From MAIL to the end of the content: the envelope, and the units of the hour it has reserved."""

    account: Account
    mail: Mail
    sender_unknown: bool = False
    recipients: dict[Mailbox, DsnRequest] = field(default_factory=dict)
    units: list[Reservation] = field(default_factory=list)

    @property
    def sender(self) -> Mailbox | None:
        """The reverse-path; None for the null one."""
        return self.mail.sender

    @property
    def smtputf8(self) -> bool:
        """Whether the client asked for SMTPUTF8."""
        return self.mail.smtputf8


class Door:
    """Takes mail in. `rules` and `signer` are replaced as a whole when the configuration changes."""

    def __init__(
        self,
        *,
        rules: Rules,
        signer: Signs,
        senders: ChecksSenders,
        recipients: ChecksRecipients,
        accounts: ChecksAccounts,
        desk: Desk,
        spool: Spool,
        clock: Clock,
        metrics: Counts,
    ) -> None:
        self.spool = spool
        self.reconfigure(rules, signer)
        self._metrics = metrics
        self._senders = senders
        self._recipients = recipients
        self._accounts = accounts
        self._desk = desk
        self._clock = clock

    def reconfigure(self, rules: Rules, signer: Signs) -> None:
        """Put a new configuration in force, from the next command of every session on."""
        self.rules, self.signer = rules, signer
        self.spool.limits, self.spool.largest = rules.config.limits, rules.config.plan.max_message_bytes

    async def begin(self, account: Account, mail: Mail) -> Transaction | Reply:
        """MAIL FROM: a transaction, or why there is none."""
        rules = self.rules
        if refusal := rules.may_submit(account) or rules.reverse_path(mail.sender):
            return refusal
        if refusal := await self._accounts.check(account):
            return refusal
        limit = rules.config.plan.max_message_bytes
        if mail.size > limit:
            return replies.too_big(limit)
        if not self.spool.has_room(mail.size):
            return replies.NO_ROOM
        unknown = False
        if mail.sender is not None:
            refusal, unknown = await self._senders.check(mail.sender)
            if refusal is not None:
                return refusal
        return Transaction(account, mail, unknown)

    async def add_recipient(self, transaction: Transaction, rcpt: Rcpt) -> Reply:
        """RCPT TO: takes a unit of the hour.

        A recipient named twice gets one message and costs one unit. Its sender then hears what either asked for,
        under the first one's ORCPT.
        """
        recipient, request = rcpt.recipient, _dsn_request(transaction.mail, rcpt)
        if (before := transaction.recipients.get(recipient)) is not None:
            transaction.recipients[recipient] = _either(before, request)
            return replies.RECIPIENT_OK
        plan = self.rules.config.plan
        if len(transaction.recipients) >= plan.max_recipients:
            return replies.too_many_recipients(plan.max_recipients)
        if refusal := await self._recipients.check(recipient):
            return refusal
        unit = await self._desk.reserve()
        if isinstance(unit, OverLimit):
            return over_limit(plan, unit)
        transaction.recipients[recipient] = request
        transaction.units.append(unit)
        return replies.RECIPIENT_OK

    def abandon(self, transaction: Transaction) -> None:
        """Give back what an unfinished transaction has taken. Harmless after `accept`."""
        self._desk.release(transaction.units)
        transaction.units.clear()

    def body(self) -> Body:
        """A place for a message's content."""
        return Body(self.spool, f"{self.spool.prefix}{_random.getrandbits(96):024x}")

    async def accept(
        self, transaction: Transaction, body: Body, protocol: str, client: hygiene.Client | None = None
    ) -> Reply:
        """The content is complete: refuse it, or keep it. A positive reply means on disk, synced.

        `protocol` and, if the configuration wants it, `client` go into the Received field.
        """
        rules, signer = self.rules, self.signer
        # Asked again: the configuration may have changed, or the account be paused, while the message came in.
        account = rules.accounts.get(transaction.account.username)
        if account is None:
            return replies.account_gone(transaction.account.username)
        if refusal := rules.may_submit(account) or rules.reverse_path(transaction.sender):
            return refusal
        if refusal := await self._accounts.check(account):
            return refusal
        try:
            fields, offset = headers.split(body.head)
            headers.refuse_repeated(fields)
        except HeaderError as error:
            return replies.malformed(str(error))
        if body.on_disk and offset >= len(body.head):
            return replies.malformed("the header section is too large")
        author = rules.header(fields, account)
        if isinstance(author, Reply):
            return author
        unknown = transaction.sender_unknown
        if author != transaction.sender:
            refusal, author_unknown = await self._senders.check(author)
            if refusal is not None:
                return refusal
            unknown = unknown or author_unknown
        now = self._clock.now()
        queue_id = new_message_id(now)
        header, message_id = hygiene.prepared(
            fields,
            by=rules.config.delivery.helo_name,
            protocol=protocol,
            queue_id=queue_id,
            from_domain=author.domain,
            at=now,
            client=client if rules.config.trace.client else None,
        )
        try:
            content, summed = await _signed(body, header, offset, author.domain, signer)
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
        except (OSError, NoRoom):
            _log.warning("no room for a message", account=transaction.account.username, exc_info=True)
            return replies.NO_ROOM
        addresses = [str(recipient) for recipient in transaction.recipients]
        non_ascii = not (header.isascii() and "".join((*addresses, str(transaction.sender))).isascii())
        message = NewMessage(
            id=queue_id,
            account=account.name,
            reverse_path=str(transaction.sender or ""),
            header_from=str(author),
            message_id=message_id,
            recipients=[  # the desk charges them
                NewRecipient(address, hour=0, dsn=request)
                for address, request in zip(addresses, transaction.recipients.values(), strict=True)
            ],
            content=content,
            size=size,
            received_at=now,
            eight_bit=body.eight_bit,
            smtputf8=transaction.smtputf8 and non_ascii,
            sender_unknown=unknown,
            checksum=summed,
        )
        units, transaction.units = transaction.units, []
        return await self._desk.take(message, units)

    def turned_away(self, reply: Reply) -> None:
        """Count a refusal that is not worth a line in the log: there may be very many."""
        if reply.refused is not None:
            self._metrics.refused(reply.refused)

    def refused(self, reply: Reply, account: Account | None) -> None:
        """Count a refusal, and say it in the log."""
        if reply.refused is not None:
            self._metrics.refused(reply.refused)
            name = account.name if account is not None else ""
            _log.info("refused", reason=reply.refused.value, account=name, reply=f"{reply.code} {reply.text}")


def _dsn_request(mail: Mail, rcpt: Rcpt) -> DsnRequest:
    if rcpt.notify is None and not (rcpt.orcpt or mail.envid or mail.ret):
        return NO_DSN
    notify = Notify.DEFAULT if rcpt.notify is None else rcpt.notify
    return DsnRequest(notify, rcpt.notify is not None, rcpt.orcpt, mail.envid, mail.ret)


def _either(first: DsnRequest, second: DsnRequest) -> DsnRequest:
    return replace(
        first,
        notify=first.notify | second.notify,
        asked=first.asked or second.asked,
        orcpt=first.orcpt or second.orcpt,
    )


async def _signed(body: Body, header: bytes, offset: int, domain: str, signer: Signs) -> tuple[bytes | Path, int]:
    """The message exactly as it will be sent, and its checksum. Raises OSError."""
    if not body.on_disk:
        content = body.with_header(header, offset)
        assert isinstance(content, bytes)  # noqa: S101  # not on disk
        signed = await signer.sign(domain, content) + content
        return signed, checksum(signed)
    unsigned = await asyncio.to_thread(body.with_header, header, offset)
    assert isinstance(unsigned, Path)  # noqa: S101  # on disk
    signature = await signer.sign(domain, unsigned)
    final = body.final
    return final, await asyncio.to_thread(finish_behind, signature, unsigned, final)


__all__ = ["Door", "Refused", "Signs", "Transaction"]
