"""AUTH in the dialogue (RFC 4954): who the client is, and what it costs to be wrong.

The mechanisms are aiosmtpd's `auth_*` methods, LOGIN unchanged. What is said here is the same whether a user name
exists or not. Until a client has signed in it has a limited time in all, however it spends it.
"""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

import structlog
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword
from aiosmtpd.smtp import Session as ClientState

from malote_relay.config import Account
from malote_relay.submission import auth, client, replies
from malote_relay.submission.acceptance import Door
from malote_relay.submission.commands import CommandError
from malote_relay.submission.guard import Guard
from malote_relay.submission.replies import Reply
from malote_relay.submission.wire import Wire

MAX_AUTH_LINE: Final = 12_288
"""RFC 4954 section 4."""

_log = structlog.get_logger("malote.submission")


class Client(ClientState):
    """What is known of the client. `auth_data` is the account that is signed in."""

    auth_data: Any
    login_data: Any = None  # in aiosmtpd a property that logs a warning, although aiosmtpd itself sets it


class Host(Protocol):
    """What a session needs of the server that it is on."""

    guard: Guard

    @property
    def context(self) -> ssl.SSLContext:
        """The TLS context in force."""
        ...

    def place(self, session: Any) -> AbstractContextManager[Reply | None]:
        """A place for a session as long as it lasts; gives the refusal, when there is none."""
        ...

    def signed_in(self, session: Any) -> None:
        """Told when the session's client has shown who it is."""
        ...


class SignsIn(Wire):
    """The part of a session that finds out who the client is."""

    session: Client  # there is one from the connection on
    AuthLoginUsernameChallenge = "Username:"
    AuthLoginPasswordChallenge = "Password:"

    def __init__(self, answers: object, door: Door, host: Host, peer: str) -> None:
        super().__init__(
            answers,
            hostname=door.rules.config.hostname,
            tls_context=host.context,
            enable_SMTPUTF8=True,
            timeout=door.rules.config.limits.command_timeout,
            authenticator=SignsIn._sign_in,
        )
        self._door = door
        self._host = host
        self._peer = peer
        self._begun = self.loop.time()
        self._auth_failures = 0
        self._auth_delay = 0.0

    @property
    def client(self) -> str:
        """The client's address."""
        return self._peer or (self.session.peer[0] if self.session.peer else "")

    @property
    def patience(self) -> float:
        """Seconds that the client has for its next line."""
        limits = self._door.rules.config.limits
        if self._account is not None:
            return limits.command_timeout
        return min(limits.command_timeout, self._begun + limits.sign_in_timeout - self.loop.time())

    @property
    def _account(self) -> Account | None:
        account: Account | None = self.session.auth_data
        return account

    def _create_session(self) -> Client:
        return Client(self.loop)

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
        line = await self.line(MAX_AUTH_LINE, self.patience, replies.AUTH_LINE_TOO_LONG)
        if line == b"*":
            raise CommandError(replies.AUTH_CANCELLED)
        return _decoded(line)

    def _sign_in(self, session: ClientState, envelope: Envelope, mechanism: str, given: LoginPassword) -> AuthResult:
        """aiosmtpd's authenticator: the account that these credentials open. Raises CommandError."""
        username, password = (octets.decode("utf-8", "replace") for octets in given)
        guard, settings, now = self._host.guard, self._door.rules.config.sign_in, self.loop.time()
        who = client.network(self.client)
        if guard.refuses(who, username, settings, now):
            raise CommandError(replies.AUTH_CAPPED)
        account = auth.account(self._door.rules.accounts, username, password)
        if account is not None:
            guard.succeeded(who, username, now)
            self._host.signed_in(self)
            return AuthResult(success=True, auth_data=account)
        self._auth_failures += 1
        self._auth_delay = guard.failed(who, username, settings, now)
        _log.warning("sign-in failed", client=self.client, username=username[:64])
        return AuthResult(success=False, handled=False)


def _decoded(text: bytes) -> bytes:
    octets = auth.decoded(text)
    if octets is None:
        raise CommandError(replies.AUTH_BASE64)
    return octets
