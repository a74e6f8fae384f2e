"""How a tenant's application sends: an ordinary SMTP client over STARTTLS or implicit TLS.

This is Python's smtplib, as thousands of applications use it, with the certificate checked against a CA file and
the server's real name. Only two things are added: the connection may go to another address than the name's (the
made-up DNS is not the system's), and the replies are kept instead of thrown away.
"""

from __future__ import annotations

import contextlib
import enum
import re
import smtplib
import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


class Security(enum.StrEnum):
    """How the connection is secured."""

    STARTTLS = "STARTTLS"
    """Submission, port 587 (RFC 6409, RFC 3207)."""
    TLS = "TLS"
    """Submissions, port 465 (RFC 8314 section 3.3)."""
    NONE = "none"
    """Plain text: what a server must refuse to authenticate."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A relay's endpoint. `address` is where to connect when it is not to be found under the name `host`."""

    host: str
    port: int
    security: Security = Security.STARTTLS
    ca_file: Path | None = None
    address: str = ""
    timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's reply: its code, its words, and the command that it answered."""

    code: int
    text: str
    command: str

    @property
    def accepted(self) -> bool:
        """Whether the command was carried out."""
        return 200 <= self.code < 400

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one message: the reply that decided it, and the recipients refused on the way."""

    reply: Reply
    refused: dict[str, Reply]

    @property
    def accepted(self) -> bool:
        """Whether the server took the message, for at least one recipient."""
        return self.reply.accepted

    def __str__(self) -> str:
        return str(self.reply)


class Session:
    """An open, authenticated connection; several messages may go over it."""

    def __init__(self, smtp: smtplib.SMTP) -> None:
        self._smtp = smtp

    def send(self, mail_from: str, recipients: Sequence[str], message: bytes) -> Sent:
        """Send one message. A refusal is a result, not an exception; a lost connection raises SMTPServerDisconnected.

        `message` may have any line ends; it goes out with CRLF.
        """
        smtp, refused = self._smtp, dict[str, Reply]()
        options = [f"SIZE={len(message)}"] if smtp.has_extn("size") else []
        if not message.isascii() and smtp.has_extn("8bitmime"):
            options.append("BODY=8BITMIME")
        reply = _reply(smtp.mail(mail_from, options), "MAIL")
        for recipient in recipients if reply.accepted else ():
            answer = _reply(smtp.rcpt(recipient), "RCPT")
            if not answer.accepted:
                refused[recipient] = answer
        if reply.accepted and len(refused) == len(recipients):
            reply = refused[recipients[-1]]
        elif reply.accepted:
            try:
                reply = _reply(smtp.data(_LINE_END.sub(b"\r\n", message)), "DATA")
            except smtplib.SMTPDataError as error:
                reply = _reply((error.smtp_code, error.smtp_error), "DATA")
        if not reply.accepted and reply.code != _CLOSING:
            smtp.rset()
        return Sent(reply, refused)


@contextlib.contextmanager
def connect(endpoint: Endpoint, username: str = "", password: str = "") -> Iterator[Session]:
    """Connect, secure, authenticate (with a user name). Raises LoginRefused, ssl.SSLError, OSError."""
    context = ssl.create_default_context(cafile=str(endpoint.ca_file) if endpoint.ca_file else None)
    smtp = _connected(endpoint, context)
    try:
        if endpoint.security is Security.STARTTLS:
            smtp.starttls(context=context)
        smtp.ehlo()
        if username:
            _log_in(smtp, username, password)
        yield Session(smtp)
    finally:
        with contextlib.suppress(smtplib.SMTPException, OSError):
            smtp.quit()
        smtp.close()


def send(
    endpoint: Endpoint, username: str, password: str, mail_from: str, recipients: Sequence[str], message: bytes
) -> Sent:
    """Send one message over a connection of its own; a refused connection or login is a result too."""
    try:
        with connect(endpoint, username, password) as session:
            return session.send(mail_from, recipients, message)
    except LoginRefused as error:
        return Sent(error.reply, {})
    except smtplib.SMTPResponseException as error:  # the greeting, EHLO or STARTTLS was refused
        return Sent(_reply((error.smtp_code, error.smtp_error), "CONNECT"), {})


class LoginRefused(Exception):
    """The server did not accept AUTH, or did not offer it; `reply` is what it said."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


_CLOSING = 421
_LINE_END = re.compile(rb"\r\n|\r|\n")


def _connected(endpoint: Endpoint, context: ssl.SSLContext) -> smtplib.SMTP:
    address = endpoint.address or endpoint.host
    if endpoint.security is Security.TLS:
        return _ImplicitTls(endpoint.host, endpoint.port, address, endpoint.timeout, context)
    return _PlainStart(endpoint.host, endpoint.port, address, endpoint.timeout)


def _log_in(smtp: smtplib.SMTP, username: str, password: str) -> None:
    try:
        smtp.login(username, password)
    except smtplib.SMTPAuthenticationError as error:
        raise LoginRefused(_reply((error.smtp_code, error.smtp_error), "AUTH")) from error
    except smtplib.SMTPNotSupportedError:
        # smtplib keeps quiet when AUTH is not offered; the server's own words are worth more.
        code, words = smtp.docmd("AUTH", "PLAIN")
        raise LoginRefused(_reply((code, words), "AUTH")) from None


def _reply(answer: tuple[int, bytes | str], command: str) -> Reply:
    code, words = answer
    return Reply(code, words.decode("utf-8", "replace") if isinstance(words, bytes) else words, command)


class _PlainStart(smtplib.SMTP):
    """smtplib's client, connected to an address while it believes in a name."""

    def __init__(self, host: str, port: int, address: str, timeout: float) -> None:
        self._address = address
        super().__init__(host, port, local_hostname="app.invalid", timeout=timeout)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return socket.create_connection((self._address, port), timeout)


class _ImplicitTls(smtplib.SMTP_SSL):
    """The same for implicit TLS; the certificate is checked against the name."""

    def __init__(self, host: str, port: int, address: str, timeout: float, context: ssl.SSLContext) -> None:
        self._address = address
        super().__init__(host, port, local_hostname="app.invalid", timeout=timeout, context=context)

    def _get_socket(self, host: str, port: int, timeout: float) -> ssl.SSLSocket:
        plain = socket.create_connection((self._address, port), timeout)
        return self.context.wrap_socket(plain, server_hostname=host)
