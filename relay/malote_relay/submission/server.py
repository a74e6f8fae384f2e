"""The listeners, the sessions on them, and how they end.

One listener waits for STARTTLS (RFC 3207, RFC 6409), one speaks TLS from the first octet (RFC 8314). A new
certificate counts from the next handshake on; sessions that are open keep what they have.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from malote_relay.config import CERTIFICATE_FILE, CERTIFICATE_KEY_FILE, ConfigError
from malote_relay.submission import replies
from malote_relay.submission.acceptance import Door
from malote_relay.submission.admission import Admission, Seen, Told
from malote_relay.submission.client import network
from malote_relay.submission.crowd import Crowd
from malote_relay.submission.guard import Guard
from malote_relay.submission.listener import Listener, Networks, Places, bind
from malote_relay.submission.replies import Reply
from malote_relay.submission.session import Session

BACKLOG: Final = 1024


def tls_context(directory: Path) -> ssl.SSLContext:
    """The listeners' TLS, with the certificate and key of a configuration directory. Raises ConfigError."""
    certificate, key = directory / CERTIFICATE_FILE, directory / CERTIFICATE_KEY_FILE
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # TLS 1.2; those of TLS 1.3 are all modern. The CBC suites are the best that Windows before 10 has together with
    # an RSA certificate (Windows Live Mail); they stand last, and nobody who knows another gets them.
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES+SHA384:ECDHE+AES+SHA256:ECDHE+AES+SHA1")
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    for file in (certificate, key):
        if not file.is_file():
            raise ConfigError(f"{file} is missing: put the listeners' certificate chain and key there (PEM)")
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{certificate} and {key} cannot be used together: {error}") from error
    return context


class SubmissionServer:
    """The submission listeners of one relay, or of one of its processes: then `told` is how the others hear."""

    def __init__(self, door: Door, context: ssl.SSLContext, crowd: Crowd, told: Told | None = None) -> None:
        self._door = door
        self.guard = Guard(told)
        self._context = context
        self._admission = Admission(crowd, told=told)
        self._sessions: dict[Session, str] = {}  # and who their clients are for the limits
        self._servers: list[Listener[Session]] = []
        self._stopping = False
        self.submission_port = 0
        self.submissions_port = 0

    @property
    def listening(self) -> bool:
        """Whether new sessions are taken."""
        return bool(self._servers) and not self._stopping

    def use(self, context: ssl.SSLContext) -> None:
        """Use another certificate from the next handshake on."""
        self._context = context

    def note(self, seen: Seen, client: str, account: str, age: float = 0.0) -> None:
        """Take in what another process that listens on the same ports saw of a client, `age` seconds ago."""
        if seen is Seen.CONNECTED:
            self._admission.note(client)
            return
        if seen is Seen.SIGNED_IN:
            self._admission.signed_in(client)
        at = asyncio.get_running_loop().time() - age
        self.guard.note(seen, client, account, self._door.rules.config.sign_in, at)

    async def start(self, places: Places | None = None) -> None:
        """Take clients from these sockets, or from those that the configuration says. Raises OSError, with words."""
        places = places or bind(self._door.rules.config.listen)
        plain = Listener(None, self._session, self._leave, self._proxies)
        tls = Listener(lambda: self._context, self._admit, self._leave, self._proxies)
        for listener, sockets in ((plain, places.submission), (tls, places.submissions)):
            listener.start(sockets, BACKLOG)
            self._servers.append(listener)
        self.submission_port, self.submissions_port = places.ports

    async def stop(self, grace: float) -> None:
        """Let the transactions under way finish, for at most `grace` seconds; new sessions read 421 meanwhile."""
        self._stopping = True
        for session in list(self._sessions):
            session.stop()
        deadline = asyncio.get_running_loop().time() + grace
        while self._tasks() and asyncio.get_running_loop().time() < deadline:
            await asyncio.wait(self._tasks(), timeout=0.1)
        for server in self._servers:
            await server.close()
        for session in list(self._sessions):
            session.interrupt()
        if self._tasks():
            # What is being committed at this moment gets its reply; whatever waits longer is cut off.
            await asyncio.wait(self._tasks(), timeout=5)
        for task in self._tasks():
            task.cancel()
        self._servers.clear()

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [one.task for one in self._sessions if one.task is not None and not one.task.done()]

    # What sessions ask for (`signin.Host`).

    @property
    def context(self) -> ssl.SSLContext:
        """The TLS context in force."""
        return self._context

    @contextmanager
    def place(self, session: Session) -> Iterator[Reply | None]:
        """A place for a session as long as it lasts; the refusal, when there is none."""
        refusal = replies.STOPPING if self._stopping else None
        if session not in self._sessions:  # not admitted before a handshake
            refusal = self._enter(session)
        try:
            yield refusal
        finally:
            self._leave(session)

    def signed_in(self, session: Session) -> None:
        """The session's client has shown who it is."""
        self._admission.signed_in(self._sessions[session])

    # What the listeners ask for.

    def _proxies(self) -> Networks:
        return self._door.rules.proxy_networks

    def _session(self, client: str) -> Session:
        return Session(self._door, self, client)

    def _admit(self, client: str) -> Session | None:
        """A place for a client whose handshake begins now, or None: in clear no refusal would be understood."""
        session = self._session(client)
        if self._enter(session) is None:
            return session
        self._leave(session)
        return None

    def _enter(self, session: Session) -> Reply | None:
        """Count a session. Gives the refusal when there is no room for it."""
        self._sessions[session] = who = network(session.client)
        refusal = self._admission.enter(who, self._door.rules.config.limits)
        if self._stopping:
            return replies.STOPPING
        if refusal is not None:
            self._door.turned_away(refusal)
        return refusal

    def _leave(self, session: Session) -> None:
        who = self._sessions.pop(session, None)
        if who is not None:
            self._admission.leave(who)
