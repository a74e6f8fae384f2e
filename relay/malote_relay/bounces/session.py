"""The dialogue with a server that brings a bounce (RFC 5321): no AUTH, TLS if it likes, and nothing is relayed.

Recipients are return paths, from the null sender only, and feedback addresses. What the content looks like does not
matter: lines of any length and line ends of any kind are taken, since only CRLF.CRLF ends it and nobody gets it.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

import structlog

from malote_relay.bounces.intake import FEEDBACK, Address, Intake
from malote_relay.bounces.mime import MAX_OCTETS
from malote_relay.config import RelayConfig
from malote_relay.returnpath import NotOurs
from malote_relay.store.model import StoreError
from malote_relay.submission import commands, replies
from malote_relay.submission.commands import CommandError
from malote_relay.submission.replies import Reply
from malote_relay.submission.wire import Gone, Wire

MAX_COMMAND: Final = 2048
MAX_RECIPIENTS: Final = 10
MAX_BAD_COMMANDS: Final = 10
MAX_COMMANDS: Final = 1000
MAX_SECONDS: Final = 600.0
"""How long a session may last: places are few, and who has much to bring can come again."""

_HANDSHAKE_SECONDS: Final = 30.0
_RCPT: Final = re.compile(r"TO:\s*<([^<>\s]+)>(?:\s.*)?", re.IGNORECASE)
_END: Final = b"\r\n.\r\n"

_SENDER_OK: Final = Reply(250, "2.1.0", "sender OK")
_TAKEN: Final = Reply(250, "2.0.0", "taken in")
_NULL_SENDER_ONLY: Final = Reply(550, "5.7.1", "only bounces, which have the null sender, are taken here")
_TOO_MANY_RECIPIENTS: Final = Reply(452, "4.5.3", "too many recipients: send it again for the others")
_TOO_OFTEN: Final = Reply(450, "4.7.0", "too many messages in a minute: try again later")
_TLS_NOT_NOW: Final = Reply(454, "4.7.0", "TLS is on already")

_log = structlog.get_logger("malote.bounces")


class BounceSession(Wire):
    """One server's dialogue.

    `place` keeps a place for it as long as it lasts, or gives the refusal; `may_send` is asked for each message.
    """

    def __init__(
        self,
        config: Callable[[], RelayConfig],
        intake: Intake,
        context: Callable[[], ssl.SSLContext],
        place: Callable[[BounceSession], AbstractContextManager[Reply | None]],
        may_send: Callable[[str], bool],
    ) -> None:
        super().__init__(
            object(),
            hostname=config().delivery.helo_name,
            tls_context=context(),
            enable_SMTPUTF8=True,
            timeout=config().bounces.command_timeout,
        )
        self.stopping = False
        self._config = config
        self._intake = intake
        self._context = context
        self._place = place
        self._may_send = may_send
        self._greeted = False
        self._null_sender: bool | None = None
        self._recipients: list[Address] = []
        self._bad = 0
        self._count = 0

    def stop(self) -> None:
        """End the session when nothing is being done."""
        self.stopping = True
        if self.waiting and self._null_sender is None:
            self.leave(replies.STOPPING)

    async def _handle_client(self) -> None:
        await self.serve(self._place(self), self._talk, _log)

    async def _talk(self) -> None:
        await self.push(Reply(220, "", f"{self._config().delivery.helo_name} ESMTP bounces"))
        began = self.loop.time()
        while not self._writer.is_closing():
            if self.loop.time() - began > MAX_SECONDS or (self.stopping and self._null_sender is None):
                self.leave(replies.STOPPING)
                return
            await self._next()
            self._count += 1
            if self._bad > MAX_BAD_COMMANDS or self._count > MAX_COMMANDS:
                self.leave(replies.TOO_MANY_ERRORS)

    async def _next(self) -> None:
        try:
            line = await self.line(MAX_COMMAND, self._config().bounces.command_timeout)
            verb, argument = commands.split(line)
            reply = await self._answer(verb, argument)
            if reply is not None:
                await self.push(reply)
                self._bad += reply.code >= 500
        except CommandError as error:
            self._bad += 1
            await self.push(error.reply)
        except Gone:
            raise
        except Exception:
            _log.exception("a command failed")
            self._reset()
            await self.push(replies.INTERNAL_ERROR)

    async def _answer(self, verb: str, argument: str) -> Reply | None:
        match verb:
            case "EHLO" | "HELO":
                return await self._hello(verb, argument)
            case "STARTTLS":
                return await self._start_tls(argument)
            case "MAIL":
                return self._mail(argument)
            case "RCPT":
                return self._rcpt(argument)
            case "DATA":
                return await self._data(argument)
            case "RSET":
                self._reset()
                return replies.RESET
            case "NOOP":
                return replies.OK
            case "VRFY":
                return replies.NOT_VERIFIED
            case "QUIT":
                self.leave(replies.BYE)
                return None
        return replies.NOT_A_COMMAND

    def _reset(self) -> None:
        self._null_sender = None
        self._recipients = []

    async def _hello(self, verb: str, name: str) -> Reply | None:
        if not name or " " in name or not name.isprintable():
            return replies.syntax(f"{verb} your.host.name")
        self._reset()
        self._greeted = True
        config = self._config()
        if verb == "HELO":
            return Reply(250, "", config.delivery.helo_name)
        offers = [config.delivery.helo_name, "PIPELINING", f"SIZE {config.bounces.max_message_bytes}", "8BITMIME"]
        offers += ["SMTPUTF8", *([] if self.tls else ["STARTTLS"]), "ENHANCEDSTATUSCODES"]
        await self.push("\r\n".join([*(f"250-{one}" for one in offers[:-1]), f"250 {offers[-1]}"]))
        return None

    async def _start_tls(self, argument: str) -> Reply | None:
        if argument:
            return replies.NOTHING_MAY_FOLLOW
        if self.tls:
            return _TLS_NOT_NOW
        await self.push(replies.START_TLS)
        self._reset()
        self._greeted = False
        await self.secure(self._context(), _HANDSHAKE_SECONDS)
        return None

    def _mail(self, argument: str) -> Reply:
        if not self._greeted:
            return replies.EHLO_FIRST
        if self._null_sender is not None:
            return replies.ALREADY_MAIL
        mail = commands.mail(argument)
        if mail.size > self._config().bounces.max_message_bytes:
            return self._too_big()
        if not self._may_send(self.client):
            return _TOO_OFTEN
        self._null_sender = mail.sender is None
        return _SENDER_OK

    def _rcpt(self, argument: str) -> Reply:
        if self._null_sender is None:
            return replies.MAIL_FIRST
        found = _RCPT.fullmatch(argument)
        if found is None:
            return replies.syntax("RCPT TO:<user@domain>")
        try:
            address = self._intake.address(found[1])
        except NotOurs as error:
            return Reply(550, "5.1.1", str(error))
        if address != FEEDBACK and not self._null_sender:
            return _NULL_SENDER_ONLY
        if len(self._recipients) >= MAX_RECIPIENTS:
            return _TOO_MANY_RECIPIENTS
        if address not in self._recipients:
            self._recipients.append(address)
        return replies.RECIPIENT_OK

    async def _data(self, argument: str) -> Reply:
        if argument:
            return replies.NOTHING_MAY_FOLLOW
        if not self._recipients:
            return replies.MAIL_FIRST if self._null_sender is None else replies.RECIPIENT_FIRST
        await self.push(replies.GO_AHEAD)
        recipients = self._recipients
        content = await self._content()
        self._reset()
        if content is None:
            return self._too_big()
        try:
            for address in recipients:
                await self._intake.take(address, content, self.client)
        except StoreError as error:
            _log.warning("a bounce could not be kept", error=str(error))
            return replies.INTERNAL_ERROR
        return _TAKEN

    async def _content(self) -> bytes | None:
        """The beginning of what comes up to CRLF.CRLF; None when it was too big. Raises Gone."""
        settings = self._config().bounces
        deadline = self.loop.time() + settings.data_timeout
        kept, tail, size = bytearray(), b"\r\n", 0
        while True:
            data = tail + await self.block(deadline)
            end = data.find(_END)
            new = data[len(tail) : end + 2 if end >= 0 else None]
            size += len(new)
            if len(kept) < MAX_OCTETS:
                kept += new[: MAX_OCTETS - len(kept)]
            if end >= 0:
                self.unread(data[end + len(_END) :])
                return None if size > settings.max_message_bytes else bytes(kept).replace(b"\r\n.", b"\r\n")
            if size > 2 * settings.max_message_bytes:
                self.leave(self._too_big())
                raise Gone
            tail = data[-(len(_END) - 1) :]

    def _too_big(self) -> Reply:
        limit = self._config().bounces.max_message_bytes
        return Reply(552, "5.3.4", f"the message is larger than the {limit} bytes taken here")
