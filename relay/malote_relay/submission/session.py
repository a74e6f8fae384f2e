"""The dialogue of one client: commands in order, the state between them, replies (RFC 5321, RFC 6409).

The commands are aiosmtpd's `smtp_*` and `auth_*` methods. EHLO, HELO, NOOP, RSET and AUTH with LOGIN run there, told
in our words (`Answers`, `_OUR_WORDS`); what a message depends on is written here.

The state is small: what the client called itself and who is signed in (aiosmtpd's session), whether TLS is on, the
open transaction. STARTTLS resets all of it (RFC 3207 section 4.2); EHLO and RSET end the transaction, and so does
every end of the session, whatever its cause: reserved units always go back.
"""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

import structlog
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword
from aiosmtpd.smtp import Session as ClientState

from malote_relay.config import Account
from malote_relay.submission import auth, commands, replies
from malote_relay.submission.acceptance import Door, Transaction
from malote_relay.submission.body import Body, NoRoom
from malote_relay.submission.commands import CommandError
from malote_relay.submission.data import DataReader, Flaw
from malote_relay.submission.replies import Reply
from malote_relay.submission.wire import Gone, Wire

MAX_COMMAND: Final = 1024
"""Octets in a command line. RFC 5321 section 4.5.3.1.4 says 512; MAIL's parameters add some (RFC 1870, 6531)."""

MAX_AUTH_LINE: Final = 12_288
"""RFC 4954 section 4."""

MAX_BAD_COMMANDS: Final = 20
MAX_IDLE_COMMANDS: Final = 100
"""Commands that carry no message forward (NOOP, RSET, EHLO …) between two messages."""

_HANDSHAKE_SECONDS: Final = 30.0
_PROGRESS: Final = 1024 * 1024
"""Octets of DATA for which `data_timeout` is allowed: a client may be slow, but not without end."""

_BAD: Final = frozenset((500, 501, 502, 503, 504, 530, 538, 553, 555))
_IDLE: Final = frozenset(("NOOP", "RSET", "EHLO", "HELO", "VRFY", "EXPN", "HELP"))

_ELSEWHERE: Final = frozenset(("EXPN", "BDAT", "ETRN", "TURN"))
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


class Client(ClientState):
    """What is known of the client. `auth_data` is the account that is signed in."""

    auth_data: Any
    login_data: Any = None  # in aiosmtpd a property that logs a warning, although aiosmtpd itself sets it


class Answers:
    """aiosmtpd's handler: what its commands answer here."""

    async def handle_EHLO(
        self, server: Session, session: ClientState, envelope: Envelope, hostname: str, offers: list[str]
    ) -> list[str]:
        """What aiosmtpd offers and what it does not know of; at the end, instead of HELP, how to go on."""
        session.host_name = hostname
        last = "AUTH PLAIN LOGIN" if server.tls else "STARTTLS"
        return [offers[0], "250-PIPELINING", *offers[1:-2], "250-ENHANCEDSTATUSCODES", f"250 {last}"]

    async def handle_NOOP(self, server: Session, session: ClientState, envelope: Envelope, argument: str) -> Reply:
        """Nothing."""
        return replies.OK

    async def handle_RSET(self, server: Session, session: ClientState, envelope: Envelope) -> Reply:
        """The transaction is given up already."""
        return replies.RESET


_ANSWERS: Final = Answers()


class Session(Wire):
    """One client's dialogue.

    `place` keeps a place for it as long as it lasts, or gives the refusal; `context` gives the TLS context in force.
    """

    session: Client  # there is one from the connection on
    AuthLoginUsernameChallenge = "Username:"
    AuthLoginPasswordChallenge = "Password:"

    def __init__(
        self,
        door: Door,
        guard: auth.Guard,
        context: Callable[[], ssl.SSLContext],
        place: Callable[[Session], AbstractContextManager[Reply | None]],
    ) -> None:
        super().__init__(
            _ANSWERS,
            hostname=door.rules.config.hostname,
            tls_context=context(),
            enable_SMTPUTF8=True,
            timeout=door.rules.config.limits.command_timeout,
            authenticator=Session._sign_in,
        )
        self.stopping = False
        self._door = door
        self._guard = guard
        self._context = context
        self._place = place
        self._transaction: Transaction | None = None
        self._auth_failures = 0
        self._auth_delay = 0.0
        self._bad = 0
        self._idle = 0

    @property
    def client(self) -> str:
        """The client's address."""
        return self.session.peer[0] if self.session.peer else ""

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
        with self._place(self) as refusal:
            try:
                if refusal is None:
                    await self._talk()
                else:
                    self.leave(refusal)
            except Gone:
                pass
            except Exception:
                _log.exception("a session failed", client=self.client)
            finally:
                self._set_rset_state()
                self.leave()

    async def _talk(self) -> None:
        await self.push(Reply(220, "", f"{self._door.rules.config.hostname} ESMTP ready"))
        while not self._writer.is_closing():
            if self.stopping and not self.in_transaction:
                self.leave(replies.STOPPING)
            else:
                await self._next()

    async def _next(self) -> None:
        verb = ""
        try:
            line = await self.line(MAX_AUTH_LINE, self._door.rules.config.limits.command_timeout)
            if len(line) > MAX_COMMAND - 2 and line[:5].upper() != b"AUTH ":
                raise CommandError(replies.LINE_TOO_LONG)
            verb, argument = commands.split(line)
            if verb not in self._smtp_methods:
                raise CommandError(replies.NOT_IMPLEMENTED if verb in _ELSEWHERE else replies.NOT_A_COMMAND)
            await self._smtp_methods[verb](argument)
        except CommandError as error:
            await self.push(error.reply)
            if error.reply.code == 421:
                self.leave()
        except Gone:
            raise
        except Exception:
            _log.exception("a command failed", verb=verb)
            self._set_rset_state()
            await self.push(replies.INTERNAL_ERROR)
        self._idle += verb in _IDLE
        if self._bad > MAX_BAD_COMMANDS or self._idle > MAX_IDLE_COMMANDS:
            self.leave(replies.TOO_MANY_ERRORS)

    async def push(self, status: Reply | str | bytes) -> None:
        """Queue a reply, in our words, and count what is refused."""
        reply = _OUR_WORDS.get(status, status) if isinstance(status, str) else status
        await super().push(reply)
        if isinstance(reply, Reply):
            self._bad += reply.code in _BAD
            self._door.refused(reply, self._account)

    @property
    def _account(self) -> Account | None:
        account: Account | None = self.session.auth_data
        return account

    def _create_session(self) -> Client:
        return Client(self.loop)

    def _set_rset_state(self) -> None:
        super()._set_rset_state()  # type: ignore[no-untyped-call]  # aiosmtpd's
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
        await self.secure(self._context(), _HANDSHAKE_SECONDS)

    # Signing in (RFC 4954).

    async def smtp_AUTH(self, arg: str) -> None:
        """Sign in; a failure is answered later and later."""
        if self._auth_failures >= self._door.rules.config.limits.max_auth_failures_per_session:
            raise CommandError(replies.AUTH_FAILED_TOO_OFTEN)
        mechanism, _, initial = arg.partition(" ")
        await super().smtp_AUTH(f"{mechanism.upper()} {initial}" if arg else "")
        delay, self._auth_delay = self._auth_delay, 0.0
        await asyncio.sleep(delay)  # the reply waits, too: it leaves before the next line is read

    async def auth_PLAIN(self, _: object, args: list[str]) -> AuthResult:
        """RFC 4616. Not aiosmtpd's, which lets a user act for another one."""
        if len(args) == 1:
            response = await self.challenge_auth("")
        else:
            response = _decoded(args[1].encode() if args[1] != "=" else b"")  # RFC 4954 section 4: an empty one
        username, password = auth.plain(response) or ("", "")
        return self._authenticate("PLAIN", LoginPassword(username.encode(), password.encode()))

    async def challenge_auth(
        self, challenge: str | bytes, encode_to_b64: bool = True, log_client_response: bool = False
    ) -> bytes:
        """Ask, and give the octets of the answer. Raises CommandError, Gone."""
        await self.push(b"334 " + b64encode(challenge.encode() if isinstance(challenge, str) else challenge))
        seconds = self._door.rules.config.limits.command_timeout
        line = await self.line(MAX_AUTH_LINE, seconds, replies.AUTH_LINE_TOO_LONG)
        if line == b"*":
            raise CommandError(replies.AUTH_CANCELLED)
        return _decoded(line)

    def _sign_in(self, session: ClientState, envelope: Envelope, mechanism: str, given: LoginPassword) -> AuthResult:
        """aiosmtpd's authenticator: the account that these credentials open."""
        username, password = (octets.decode("utf-8", "replace") for octets in given)
        account = auth.account(self._door.rules.accounts, username, password)
        if account is not None:
            return AuthResult(success=True, auth_data=account)
        self._auth_failures += 1
        keys = (f"from {self.client}", f"as {username[:256]}")
        self._auth_delay = self._guard.failed(keys, self.loop.time())
        _log.warning("sign-in failed", client=self.client, username=username[:64])
        return AuthResult(success=False, handled=False)

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
            raise CommandError(replies.CREDENTIALS_CHANGED)
        self.session.auth_data = current
        begun = await self._door.begin(current, commands.mail(arg))
        if isinstance(begun, Transaction):
            self._transaction, begun = begun, replies.SENDER_OK
        await self.push(begun)

    async def smtp_RCPT(self, arg: str) -> None:
        """Add a recipient."""
        transaction = self._open_transaction()
        recipient = commands.rcpt(arg, smtputf8=transaction.smtputf8)
        await self.push(await self._door.add_recipient(transaction, recipient))

    async def smtp_DATA(self, arg: str) -> None:
        """Take the content, and the message."""
        transaction = self._open_transaction()
        if arg:
            raise CommandError(replies.NOTHING_MAY_FOLLOW)
        if not transaction.recipients:
            raise CommandError(replies.RECIPIENT_FIRST)
        await self.push(replies.GO_AHEAD)
        body = self._door.body()
        protocol = "UTF8SMTPSA" if transaction.smtputf8 else "ESMTPSA"
        try:
            reply = await self._receive(body) or await self._door.accept(transaction, body, protocol)
        finally:
            body.discard()
            self._set_rset_state()
        await self.push(reply)
        if reply.positive:
            self._bad = self._idle = 0

    async def _receive(self, body: Body) -> Reply | None:
        """Read up to the end of the data, into the body; the refusal, when it cannot be taken. Raises Gone."""
        config = self._door.rules.config
        reader = DataReader(config.plan.max_message_bytes)
        deadline = self.loop.time() + config.limits.data_timeout
        progress = _PROGRESS
        refusal: Reply | None = None
        while not reader.finished:
            content, rest = reader.feed(await self.block(deadline))
            if content and refusal is None:
                try:
                    body.write(content)
                except NoRoom as error:
                    refusal = replies.TOO_MUCH_DATA_IN_FLIGHT if error.flight else replies.NO_ROOM
                    body.discard()
            if reader.flaw is not None and refusal is None:
                refusal = _refusal(reader.flaw, reader.limit)
                body.discard()
            if refusal is not None and reader.received > 2 * reader.limit + _PROGRESS:
                self.leave(refusal)  # it goes on and on: nothing that follows would be taken for a command
                raise Gone
            if reader.received > progress:
                progress = reader.received + _PROGRESS
                deadline = self.loop.time() + config.limits.data_timeout
        self.unread(rest)
        return refusal

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


def _decoded(text: bytes) -> bytes:
    octets = auth.decoded(text)
    if octets is None:
        raise CommandError(replies.AUTH_BASE64)
    return octets


def _refusal(flaw: Flaw, limit: int) -> Reply:
    if flaw is Flaw.TOO_BIG:
        return replies.too_big(limit)
    return replies.malformed(f"the message is refused: {flaw.value}")
