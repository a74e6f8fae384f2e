"""The dialogue of one client: commands in order, the state between them, replies (RFC 5321, RFC 6409).

The commands are aiosmtpd's `smtp_*` and `auth_*` methods. EHLO, HELO, NOOP, RSET and AUTH with LOGIN run there, told
in our words (`Answers`, `_OUR_WORDS`); what a message depends on is written here.

The state is small: what the client called itself and who is signed in (aiosmtpd's session), whether TLS is on, the
open transaction, and the content that has come in chunks. STARTTLS resets all of it (RFC 3207 section 4.2); EHLO and
RSET end the transaction, and so does every end of the session, whatever its cause: reserved units always go back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import structlog
from aiosmtpd.smtp import Envelope
from aiosmtpd.smtp import Session as ClientState

from malote_relay.submission import commands, hygiene, replies
from malote_relay.submission.acceptance import Door, Transaction
from malote_relay.submission.commands import CommandError
from malote_relay.submission.replies import Reply
from malote_relay.submission.signin import MAX_AUTH_LINE, Host, SignsIn
from malote_relay.submission.transfer import Transfer
from malote_relay.submission.wire import Gone

MAX_COMMAND: Final = 2048
"""Octets in a command line. RFC 5321 section 4.5.3.1.4 says 512; the parameters of MAIL and RCPT add up to as much
again (RFC 1870, 3461, 4954, 6531)."""

MAX_BAD_COMMANDS: Final = 20
MAX_IDLE_COMMANDS: Final = 100
"""Commands that carry no message forward (NOOP, RSET, EHLO …) between two messages."""

_HANDSHAKE_SECONDS: Final = 30.0
_BAD: Final = frozenset((500, 501, 502, 503, 504, 530, 538, 553, 555))
_IDLE: Final = frozenset(("NOOP", "RSET", "EHLO", "HELO", "VRFY", "EXPN", "HELP"))

_ELSEWHERE: Final = frozenset(("EXPN", "ETRN", "TURN"))
"""Commands that other servers have."""

_OUR_WORDS: Final = {
    "501 Syntax: RSET": replies.NOTHING_MAY_FOLLOW,
    "503 Error: send EHLO first": replies.EHLO_FIRST,
    "500 Error: command 'AUTH' not recognized": replies.EHLO_FIRST,
    "538 5.7.11 Encryption required for requested authentication mechanism": replies.TLS_FIRST,
    "503 Already authenticated": replies.AUTH_ALREADY,
    "501 Not enough value": replies.syntax("AUTH PLAIN"),
    "501 Too many values": replies.syntax("AUTH PLAIN"),
    "504 5.5.4 Unrecognized authentication type": replies.AUTH_MECHANISM,
    "501 5.5.2 Can't decode base64": replies.AUTH_BASE64,
    "535 5.7.8 Authentication credentials invalid": replies.AUTH_FAILED,
    "235 2.7.0 Authentication successful": replies.SIGNED_IN,
}
"""What aiosmtpd says in the commands that are left to it, and what is said instead."""

_log = structlog.get_logger("malote.submission")


class Answers:
    """aiosmtpd's handler: what its commands answer here."""

    async def handle_EHLO(
        self, server: Session, session: ClientState, envelope: Envelope, hostname: str, offers: list[str]
    ) -> list[str]:
        """What aiosmtpd offers and what it does not know of; at the end, instead of HELP, how to go on."""
        session.host_name = hostname
        last = "AUTH PLAIN LOGIN" if server.tls else "STARTTLS"
        ours = ("250-CHUNKING", "250-DSN", "250-ENHANCEDSTATUSCODES", f"250 {last}")
        return [offers[0], "250-PIPELINING", *offers[1:-2], *ours]

    async def handle_NOOP(self, server: Session, session: ClientState, envelope: Envelope, argument: str) -> Reply:
        """Nothing."""
        return replies.OK

    async def handle_RSET(self, server: Session, session: ClientState, envelope: Envelope) -> Reply:
        """The transaction is given up already."""
        return replies.RESET


_ANSWERS: Final = Answers()


class Session(SignsIn):
    """One client's dialogue, on the server that `host` is, with the client at the address `peer`."""

    def __init__(self, door: Door, host: Host, peer: str = "") -> None:
        super().__init__(_ANSWERS, door, host, peer)
        self.stopping = False
        self._transaction: Transaction | None = None
        self._transfer: Transfer | None = None  # between commands only after BDAT
        self._bad = 0
        self._idle = 0
        self._refused = 0  # well written, and to no purpose: each may have cost a look into the store, or a call-out

    @property
    def in_transaction(self) -> bool:
        """Whether a message is under way."""
        return self._transaction is not None

    def stop(self) -> None:
        """End the session as soon as no message is under way: at once when none is."""
        self.stopping = True
        if not self.in_transaction:
            self.interrupt()

    def interrupt(self) -> None:
        """End the session now if the client is waited for, and nothing is being done."""
        if self.waiting:
            self.leave(replies.STOPPING)

    async def _handle_client(self) -> None:
        await self.serve(self._host.place(self), self._talk, _log)

    async def _talk(self) -> None:
        await self.push(Reply(220, "", f"{self._door.rules.config.hostname} ESMTP ready"))
        try:
            while not self._writer.is_closing():
                if self.stopping and not self.in_transaction:
                    self.leave(replies.STOPPING)
                else:
                    await self._next()
        finally:
            self._set_rset_state()

    async def _next(self) -> None:
        verb = ""
        try:
            line = await self.line(MAX_AUTH_LINE, self.patience)
            if len(line) > MAX_COMMAND - 2 and line[:5].upper() != b"AUTH ":
                raise CommandError(replies.LINE_TOO_LONG, last=commands.announces_content(line))
            verb, argument = commands.split(line)
            if verb not in self._smtp_methods:
                reply = replies.NOT_IMPLEMENTED if verb in _ELSEWHERE else replies.NOT_A_COMMAND
                raise CommandError(reply, last=commands.announces_content(line))
            await self._smtp_methods[verb](argument)
        except CommandError as error:
            await self.push(error.reply)
            if error.last or error.reply.code == 421:
                self.leave()
        except Gone:
            raise
        except Exception:
            _log.exception("a command failed", verb=verb)
            midway = self._transfer is not None and self._transfer.midway
            self._set_rset_state()
            await self.push(replies.INTERNAL_ERROR)
            if midway:  # the rest of the content is still to come, and must not be taken for commands
                self.leave()
        self._idle += verb in _IDLE
        if self._bad > MAX_BAD_COMMANDS or self._idle > MAX_IDLE_COMMANDS:
            self.leave(replies.TOO_MANY_ERRORS)
        elif self._refused >= self._door.rules.config.limits.max_refused_per_session:
            self.leave(replies.TOO_MUCH_REFUSED)
            name = self._account.name if self._account is not None else ""
            _log.warning("too much was refused in a session", client=self.client, account=name)

    async def push(self, status: Reply | str | bytes) -> None:
        """Queue a reply, in our words, and count what is refused."""
        reply = _OUR_WORDS.get(status, status) if isinstance(status, str) else status
        await super().push(reply)
        if isinstance(reply, Reply):
            bad = reply.code in _BAD
            self._bad += bad
            self._refused += reply.code >= 400 and not bad
            self._door.refused(reply, self._account)

    def _set_rset_state(self) -> None:
        super()._set_rset_state()  # type: ignore[no-untyped-call]  # aiosmtpd's
        if self._transfer is not None:
            self._transfer.discard()
            self._transfer = None
        if self._transaction is not None:
            self._door.abandon(self._transaction)
            self._transaction = None

    # Greeting and TLS.

    async def smtp_EHLO(self, hostname: str) -> None:
        """Say what is offered, by the configuration in force."""
        self._use_name("EHLO", hostname)
        self.data_size_limit = self._door.rules.config.plan.max_message_bytes
        await super().smtp_EHLO(hostname)

    async def smtp_HELO(self, hostname: str) -> None:
        """The old greeting; AUTH is not possible after it."""
        self._use_name("HELO", hostname)
        await super().smtp_HELO(hostname)

    def _use_name(self, verb: str, client: str) -> None:
        if not client or " " in client or not client.isprintable():
            raise CommandError(replies.syntax(f"{verb} your.host.name"))
        self.hostname = self._door.rules.config.hostname

    async def smtp_STARTTLS(self, arg: str) -> None:
        """Turn to TLS, with the certificate in force, and begin anew."""
        if arg:
            raise CommandError(replies.NOTHING_MAY_FOLLOW)
        if self.tls:
            raise CommandError(replies.TLS_ALREADY)
        if not self.session.extended_smtp:
            raise CommandError(replies.EHLO_FIRST)
        await self.push(replies.START_TLS)
        await self.secure(self._host.context, _HANDSHAKE_SECONDS)

    # A message.

    async def smtp_MAIL(self, arg: str) -> None:
        """Open a transaction."""
        if not self.tls:
            raise CommandError(replies.TLS_FIRST)
        if not self.session.host_name:
            raise CommandError(replies.EHLO_FIRST)
        if self._account is None:
            raise CommandError(replies.AUTH_FIRST)
        if self.in_transaction:
            raise CommandError(replies.ALREADY_MAIL)
        current = self._door.rules.accounts.get(self._account.username)
        if current is None or current.verifier != self._account.verifier:
            self.session.authenticated = self.session.auth_data = None
            self._begun = self.loop.time()
            raise CommandError(replies.CREDENTIALS_CHANGED)
        self.session.auth_data = current
        begun = await self._door.begin(current, commands.mail(arg))
        if isinstance(begun, Transaction):
            self._transaction, begun = begun, replies.SENDER_OK
        await self.push(begun)

    async def smtp_RCPT(self, arg: str) -> None:
        """Add a recipient."""
        transaction = self._open_transaction()
        if self._transfer is not None:
            raise CommandError(replies.IN_CHUNKS)
        postmaster = self._door.rules.postmaster(transaction.sender)
        rcpt = commands.rcpt(arg, smtputf8=transaction.smtputf8, postmaster=postmaster)
        before = len(transaction.recipients)
        reply = await self._door.add_recipient(transaction, rcpt)
        self._refused += reply.positive and len(transaction.recipients) == before
        await self.push(reply)

    async def smtp_DATA(self, arg: str) -> None:
        """Take the content, and the message."""
        transaction = self._open_transaction()
        if arg:
            raise CommandError(replies.NOTHING_MAY_FOLLOW)
        if self._transfer is not None:
            raise CommandError(replies.IN_CHUNKS)
        if not transaction.recipients:
            raise CommandError(replies.RECIPIENT_FIRST)
        await self.push(replies.GO_AHEAD)
        self._transfer = self._new_transfer()
        await self._transfer.data()
        await self._accept(transaction, self._transfer)

    async def smtp_BDAT(self, arg: str) -> None:
        """Take a chunk of the content (RFC 3030), and with the last one the message."""
        size, last = commands.bdat(arg)
        self._idle += not size and not last
        try:
            transaction = self._open_transaction()
            if not transaction.recipients:
                raise CommandError(replies.RECIPIENT_FIRST)
        except CommandError as error:
            # Section 2: the chunk comes all the same, and is no command.
            config = self._door.rules.config
            limit, seconds = config.plan.max_message_bytes, config.limits.data_timeout
            if self._account is None:  # a stranger's time is limited however it is spent
                limit, seconds = 0, min(seconds, self.patience)
            await Transfer(self, None, limit, seconds, error.reply).chunk(size, last=last)
            raise
        if self._transfer is None:
            self._transfer = self._new_transfer()
        transfer, told = self._transfer, self._transfer.refusal
        await transfer.chunk(size, last=last)
        refusal = transfer.refusal
        if refusal is None and not last:
            await self.push(replies.chunk_taken(size))
            return
        if told is not None:  # once is enough for those who count refusals
            transfer.refusal = refusal = replace(told, refused=None)
        if last:
            await self._accept(transaction, transfer)
        elif refusal is not None:
            # Nothing can come of the message any more, but only RSET or the last chunk ends it.
            self._door.abandon(transaction)
            await self.push(refusal)

    def _new_transfer(self) -> Transfer:
        config = self._door.rules.config
        return Transfer(self, self._door.body(), config.plan.max_message_bytes, config.limits.data_timeout)

    async def _accept(self, transaction: Transaction, transfer: Transfer) -> None:
        """The content is complete: the message is taken or refused, and the transaction over."""
        protocol = "UTF8SMTPSA" if transaction.smtputf8 else "ESMTPSA"  # RFC 3848, RFC 6531 section 4.3
        body = transfer.body
        try:
            if transfer.refusal is not None or body is None:
                reply = transfer.refusal or replies.INTERNAL_ERROR
            else:
                client = hygiene.Client(self.session.host_name or "", self.client)
                reply = await self._door.accept(transaction, body, protocol, client)
        finally:
            self._set_rset_state()
        await self.push(reply)
        if reply.positive:
            self._bad = self._idle = self._refused = 0

    def _open_transaction(self) -> Transaction:
        if self._transaction is not None:
            return self._transaction
        if not self.tls:
            raise CommandError(replies.TLS_FIRST)
        raise CommandError(replies.MAIL_FIRST if self._account is not None else replies.AUTH_FIRST)

    # The rest.

    async def smtp_VRFY(self, arg: str) -> None:
        """RFC 5321 section 3.5.3: what may not be told is answered so."""
        await self.push(replies.NOT_VERIFIED)

    async def smtp_HELP(self, arg: str) -> None:
        """The commands there are."""
        await self.push(replies.HELP)

    async def smtp_QUIT(self, arg: str) -> None:
        """End the session."""
        if arg:
            raise CommandError(replies.NOTHING_MAY_FOLLOW)
        self.leave(replies.BYE)
