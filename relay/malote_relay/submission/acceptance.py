"""The door: the one way in for mail, whatever protocol it came by.

`begin` opens a transaction (policy, size, room, does the sender exist), `add_recipient` takes a unit of the hour for
each recipient, `accept` looks at the content, sets it right, signs it, charges the hour and commits. Only then is
there a positive answer. Whatever ends earlier is given back: units, memory, files.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog

from malote_relay.clock import Clock
from malote_relay.config import Account
from malote_relay.metrics import Metrics, Refused
from malote_relay.quota import HourWindow, OverLimit, Reservation
from malote_relay.store.model import DiskFull, NewMessage, NewRecipient, Queued, Store, StoreError
from malote_relay.store.names import new_message_id
from malote_relay.submission import headers, hygiene, replies
from malote_relay.submission.address import Mailbox
from malote_relay.submission.body import Body, NoRoom, Spool, copy_behind
from malote_relay.submission.commands import Mail
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

    def check(self, account: Account) -> Reply | None:
        """The refusal, if any."""
        ...


Offer = Callable[[Sequence[Queued], bytes | Path], None]
"""Told of all that was just accepted, held recipients included, with the content at hand, so that delivery needs not
read it again. A file is no longer where it was written: the store has taken it over."""


@dataclass(slots=True)
class Transaction:
    """From MAIL to the end of DATA: the envelope, and the units of the hour it has reserved."""

    account: Account
    sender: Mailbox | None
    smtputf8: bool = False
    sender_unknown: bool = False
    recipients: list[Mailbox] = field(default_factory=list)
    units: list[Reservation] = field(default_factory=list)


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
        store: Store,
        window: HourWindow,
        clock: Clock,
        metrics: Metrics,
        offer: Offer,
    ) -> None:
        self.rules = rules
        self.signer = signer
        self.spool = Spool(store.incoming, rules.config.limits)
        self.metrics = metrics
        self._senders = senders
        self._recipients = recipients
        self._accounts = accounts
        self._store = store
        self._window = window
        self._clock = clock
        self._offer = offer

    def reconfigure(self, rules: Rules, signer: Signs) -> None:
        """Put a new configuration in force, from the next command of every session on."""
        self.rules, self.signer = rules, signer
        self.spool.limits = rules.config.limits

    async def begin(self, account: Account, mail: Mail) -> Transaction | Reply:
        """MAIL FROM: a transaction, or why there is none."""
        rules = self.rules
        if refusal := rules.may_submit(account) or self._accounts.check(account) or rules.reverse_path(mail.sender):
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
        return Transaction(account, mail.sender, mail.smtputf8, unknown)

    async def add_recipient(self, transaction: Transaction, recipient: Mailbox) -> Reply:
        """RCPT TO: takes a unit of the hour. A recipient named twice gets one message and costs one unit."""
        if recipient in transaction.recipients:
            return replies.RECIPIENT_OK
        plan = self.rules.config.plan
        if len(transaction.recipients) >= plan.max_recipients:
            return replies.too_many_recipients(plan.max_recipients)
        if refusal := await self._recipients.check(recipient):
            return refusal
        unit = self._window.reserve(self._clock.now())
        if isinstance(unit, OverLimit):
            return over_limit(plan, unit)
        transaction.recipients.append(recipient)
        transaction.units.append(unit)
        return replies.RECIPIENT_OK

    def abandon(self, transaction: Transaction) -> None:
        """Give back what an unfinished transaction has taken. Harmless after `accept`."""
        for unit in transaction.units:
            self._window.release(unit)
        transaction.units.clear()

    def body(self) -> Body:
        """A place for a message's content."""
        return Body(self.spool, f"{_random.getrandbits(96):024x}")

    async def accept(self, transaction: Transaction, body: Body, protocol: str) -> Reply:
        """The content is complete: refuse it, or keep it. A positive reply means on disk, synced."""
        rules, signer = self.rules, self.signer
        # Asked again: the configuration may have changed while the message came in.
        account = rules.accounts.get(transaction.account.username, transaction.account)
        if refusal := rules.may_submit(account) or rules.reverse_path(transaction.sender):
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
        )
        try:
            content = await _signed(body, header, offset, author.domain, signer)
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
        except (OSError, NoRoom):
            _log.warning("no room for a message", account=transaction.account.username, exc_info=True)
            return replies.NO_ROOM
        addresses = [str(recipient) for recipient in transaction.recipients]
        non_ascii = not (header.isascii() and "".join((*addresses, str(transaction.sender))).isascii())
        # Between charging and handing to the store nothing may be awaited: both see messages in one order.
        charges = self._window.charge(transaction.units, self._clock.now())
        transaction.units.clear()
        message = NewMessage(
            id=queue_id,
            account=account.name,
            reverse_path=str(transaction.sender or ""),
            header_from=str(author),
            message_id=message_id,
            recipients=[
                NewRecipient(address, charge.hour, charge.not_before)
                for address, charge in zip(addresses, charges, strict=True)
            ],
            content=content,
            size=size,
            received_at=now,
            eight_bit=body.eight_bit,
            smtputf8=transaction.smtputf8 and non_ascii,
            sender_unknown=unknown,
        )
        try:
            queued = await self._store.accept(message)
        except StoreError as error:
            self._window.refund(charges)
            _log.warning("not stored", account=transaction.account.username, error=str(error))
            return replies.NO_ROOM if isinstance(error, DiskFull) else replies.INTERNAL_ERROR
        # Held recipients too, and nothing awaited since `accept`: their hour may begin at any moment.
        self._offer(queued, content)
        self.metrics.accepted(account.name, len(addresses))
        held = sum(charge.held for charge in charges)
        _log.info(
            "accepted",
            id=queue_id,
            account=account.name,
            size=size,
            recipients=len(addresses),
            held=held,
            unknown=unknown,
        )
        return replies.accepted(queue_id)

    def refused(self, reply: Reply, account: Account | None) -> None:
        """Count a refusal, and say it in the log."""
        if reply.refused is not None:
            self.metrics.refused(reply.refused)
            name = account.name if account is not None else ""
            _log.info("refused", reason=reply.refused.value, account=name, reply=f"{reply.code} {reply.text}")


async def _signed(body: Body, header: bytes, offset: int, domain: str, signer: Signs) -> bytes | Path:
    """The message exactly as it will be sent. Raises OSError."""
    if not body.on_disk:
        content = body.with_header(header, offset)
        assert isinstance(content, bytes)  # noqa: S101  # not on disk
        return await signer.sign(domain, content) + content
    unsigned = await asyncio.to_thread(body.with_header, header, offset)
    assert isinstance(unsigned, Path)  # noqa: S101  # on disk
    signature = await signer.sign(domain, unsigned)
    final = body.final
    await asyncio.to_thread(copy_behind, signature, unsigned, 0, final, sync=True)
    return final


__all__ = ["Door", "Offer", "Refused", "Signs", "Transaction"]
