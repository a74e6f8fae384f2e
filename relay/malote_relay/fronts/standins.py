"""What a front has instead of the desk, the checks and the metrics: it asks the core, and tells it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from malote_relay.config import Account, RelayConfig, SenderMode
from malote_relay.fronts.protocol import Answer, Asked, BadFrame, Check, Checked, Frame, Refusal, Take
from malote_relay.fronts.purse import Purse
from malote_relay.metrics import Refused
from malote_relay.quota import OverLimit, Reservation
from malote_relay.signing.signer import Signer
from malote_relay.store.model import NewMessage, NewRecipient
from malote_relay.store.requests import packed, unpacked
from malote_relay.submission import replies
from malote_relay.submission.address import Mailbox
from malote_relay.submission.replies import Reply

_BELIEVED_SECONDS: Final = {Asked.SENDER: 10.0, Asked.RECIPIENT: 1.0, Asked.ACCOUNT: 1.0}
"""How long what was let pass is not asked for again."""

_MAX_BELIEVED: Final = 10_000


class RemoteDesk:
    """`submission.desk.Desk`, kept by the core."""

    def __init__(self, purse: Purse, say: Callable[[Frame], None]) -> None:
        self._purse = purse
        self._say = say
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Reply]] = {}

    async def reserve(self) -> Reservation | OverLimit:
        """See `Desk`."""
        return await self._purse.reserve()

    def release(self, units: Sequence[Reservation]) -> None:
        """See `Desk`."""
        if units:
            self._purse.release(len(units))

    async def take(self, message: NewMessage, units: Sequence[Reservation]) -> Reply:
        """See `Desk`."""
        self._number += 1
        number = self._number
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._say(taken(number, message))
            return await future
        except BadFrame:
            self.release(units)
            return replies.TOO_MANY_AT_ONCE
        finally:
            del self._waiting[number]

    def answered(self, answer: Answer) -> None:
        """The core has answered."""
        future = self._waiting.get(answer.number)
        if future is not None and not future.done():
            future.set_result(answer.reply)


class RemoteChecks:
    """Asks the core what its checks say; what was let pass is believed for some seconds.

    The core knows for how long it is to be believed, and learns of bounces and pauses.
    """

    def __init__(self, say: Callable[[Frame], None], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._monotonic = monotonic
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Checked]] = {}
        self._believed: dict[tuple[Asked, str], tuple[float, Checked]] = {}

    def forget(self) -> None:
        """Believe nobody any more: the configuration is another."""
        self._believed.clear()

    async def ask(self, about: Asked, name: str) -> Checked:
        """What the core says."""
        until, believed = self._believed.get((about, name), (0.0, None))
        if believed is not None and self._monotonic() < until:
            return believed
        self._number += 1
        number = self._number
        future: asyncio.Future[Checked] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._say(Check(number, about, name))
        try:
            checked = await future
        finally:
            del self._waiting[number]
        if checked.refusal is None:
            if len(self._believed) >= _MAX_BELIEVED:
                self._believed.clear()
            self._believed[about, name] = (self._monotonic() + _BELIEVED_SECONDS[about], checked)
        return checked

    def answered(self, checked: Checked) -> None:
        """The core has answered."""
        future = self._waiting.get(checked.number)
        if future is not None and not future.done():
            future.set_result(checked)


class RemoteSenders:
    """`submission.acceptance.ChecksSenders`, by the core."""

    def __init__(self, config: RelayConfig, checks: RemoteChecks) -> None:
        self._checks = checks
        self.reconfigure(config)

    def reconfigure(self, config: RelayConfig) -> None:
        """Another policy."""
        self._off = config.sender_verification.mode is SenderMode.OFF

    async def check(self, sender: Mailbox) -> tuple[Reply | None, bool]:
        """See `ChecksSenders`."""
        if self._off:
            return None, False
        checked = await self._checks.ask(Asked.SENDER, str(sender))
        return checked.refusal, checked.unknown


class RemoteRecipients:
    """`submission.acceptance.ChecksRecipients`, by the core."""

    def __init__(self, checks: RemoteChecks) -> None:
        self._checks = checks

    async def check(self, recipient: Mailbox) -> Reply | None:
        """See `ChecksRecipients`."""
        return (await self._checks.ask(Asked.RECIPIENT, str(recipient))).refusal


class RemoteAccounts:
    """`submission.acceptance.ChecksAccounts`, by the core."""

    def __init__(self, checks: RemoteChecks) -> None:
        self._checks = checks

    async def check(self, account: Account) -> Reply | None:
        """See `ChecksAccounts`."""
        return (await self._checks.ask(Asked.ACCOUNT, account.username)).refusal


class HereSigner:
    """`submission.acceptance.Signs`, in the front's own thread: to hand so little on to another costs more.

    There is a front for each core; threads beside it would only take the interpreter's lock from each other.
    """

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    async def sign(self, domain: str, content: bytes | Path) -> bytes:
        """See `Signs`; a file is read in a thread."""
        if isinstance(content, bytes):
            return self._signer.sign_here(domain, content)
        return await self._signer.sign(domain, content)


class RemoteCounts:
    """`submission.acceptance.Counts`, in the core's metrics."""

    def __init__(self, say: Callable[[Frame], None]) -> None:
        self._say = say

    def refused(self, reason: Refused) -> None:
        """Count one refusal."""
        self._say(Refusal(reason.value))


def taken(number: int, message: NewMessage) -> Take:
    """A message as it is handed over."""
    content = message.content
    return Take(
        number,
        message.id,
        message.account,
        message.reverse_path,
        message.header_from,
        message.message_id,
        tuple((one.address, packed(one.dsn)) for one in message.recipients),
        content if isinstance(content, bytes) else b"",
        "" if isinstance(content, bytes) else content.name,
        message.size,
        message.received_at,
        message.eight_bit,
        message.smtputf8,
        message.sender_unknown,
        message.checksum,
    )


def message(take: Take, incoming: Path) -> NewMessage:
    """The message that was handed over. Raises ValueError for a file that lies elsewhere than in `incoming`."""
    if take.file and (take.file == ".." or Path(take.file).name != take.file):
        raise ValueError(f"{take.file!r} is not a plain file name")
    return NewMessage(
        id=take.id,
        account=take.account,
        reverse_path=take.reverse_path,
        header_from=take.header_from,
        message_id=take.message_id,
        recipients=[NewRecipient(address, hour=0, dsn=unpacked(dsn)) for address, dsn in take.recipients],
        content=incoming / take.file if take.file else take.content,
        size=take.size,
        received_at=take.received_at,
        eight_bit=take.eight_bit,
        smtputf8=take.smtputf8,
        sender_unknown=take.sender_unknown,
        checksum=take.checksum,
    )
