"""The server that is judged: how to reach it, what it offers, and the ways to each state of a session."""

from __future__ import annotations

import base64
import contextlib
import enum
import secrets
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.conformance import delivered
from tests.conformance.case import CONNECTED, DATA, HELLO, MAIL, RCPT, SIGNED_IN, TLS, Broken, Stage, expect, matches
from tests.conformance.client import Client, Reply
from tests.conformance.delivered import Arrived, Delivered

CLIENT_NAME = "client.example"


class Tls(enum.StrEnum):
    """How TLS comes about on the port."""

    NONE = "none"
    STARTTLS = "starttls"
    IMPLICIT = "implicit"


@dataclass
class Server:
    """Where the server is, who signs in and sends to whom."""

    host: str
    port: int
    tls: Tls
    sender: str
    recipient: str
    user: str = ""
    password: str = ""
    name: str = ""
    """The name in the certificate, where it is not `host`."""
    authority: str = ""
    """A file with the certificates to trust; without one the certificate is not looked at."""
    implicit_port: int = 0
    timeout: float = 30.0
    seen_within: float = 30.0
    """Seconds that a message may take to the other end."""
    delivered: Delivered | None = None
    _offers: dict[str, str] | None = None
    _offers_in_clear: dict[str, str] | None = None
    _clients: list[Client] = field(default_factory=list)

    # What it offers.

    @property
    def offers(self) -> dict[str, str]:
        """The EHLO keywords (capitals) with their parameters, where a message may be sent: after TLS."""
        if self._offers is None:
            with self.conversation():
                self._offers = offered(self.at(TLS).say(f"EHLO {CLIENT_NAME}"))
        return self._offers

    @property
    def offers_in_clear(self) -> dict[str, str]:
        """The same at the start of the session."""
        if self._offers_in_clear is None:
            with self.conversation():
                self._offers_in_clear = offered(self.at(CONNECTED).say(f"EHLO {CLIENT_NAME}"))
        return self._offers_in_clear

    def has(self, needs: str) -> bool:
        """Whether what a case needs is there."""
        if needs == "implicit TLS":
            return bool(self.implicit_port) or self.tls is Tls.IMPLICIT
        if needs == "STARTTLS":
            return self.tls is Tls.STARTTLS
        keyword, _, parameter = needs.partition(" ")
        if keyword == "AUTH" and not self.user:
            return False
        return keyword in self.offers and (not parameter or parameter in self.offers[keyword].split())

    @property
    def size_limit(self) -> int:
        """What SIZE says; 0 for no fixed limit (RFC 1870 section 4)."""
        text = self.offers.get("SIZE", "")
        return int(text) if text.isdigit() else 0

    # Ways into a session.

    @contextlib.contextmanager
    def conversation(self) -> Iterator[list[Client]]:
        """Closes what was opened inside; gives the clients, whose transcripts are of use after a failure."""
        before, self._clients = self._clients, []
        try:
            yield self._clients
        finally:
            for client in self._clients:
                client.close()
            self._clients = before

    def connect(self, *, implicit: bool = False) -> Client:
        """A connection on which nothing was read yet."""
        use_tls = implicit or self.tls is Tls.IMPLICIT
        port = self.implicit_port if implicit and self.implicit_port else self.port
        client = Client(self.host, port, self.timeout)
        self._clients.append(client)
        if use_tls:
            client.start_tls(self.context(), self.name or self.host)
        return client

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.authority or None)
        if not self.authority:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def at(self, stage: Stage, *, mail: str = "") -> Client:
        """A new session brought to the stage. `mail` are parameters of MAIL. Raises Broken when it cannot be."""
        client = self.connect()
        matches(client.reply(), "220", "the greeting")
        if stage is CONNECTED:
            return client
        if self.tls is Tls.STARTTLS:
            matches(client.say(f"EHLO {CLIENT_NAME}"), "250", "EHLO")
            matches(client.say("STARTTLS"), "220", "STARTTLS")
            client.start_tls(self.context(), self.name or self.host)
        if stage is TLS:
            return client
        matches(client.say(f"EHLO {CLIENT_NAME}"), "250", "EHLO")
        if stage is HELLO:
            return client
        self.sign_in(client)
        if stage is SIGNED_IN:
            return client
        self.transaction(client, stage, mail=mail)
        return client

    def sign_in(self, client: Client) -> None:
        """AUTH, where there is an account to sign in with."""
        if self.user:
            mechanism = "PLAIN" if "LOGIN" not in self.offers.get("AUTH", "PLAIN").split() else ""
            plain = mechanism or "PLAIN" in self.offers.get("AUTH", "PLAIN").split()
            if plain:
                matches(client.say(f"AUTH PLAIN {self.plain()}"), "235", "AUTH PLAIN")
            else:
                matches(client.say("AUTH LOGIN"), "334", "AUTH LOGIN")
                matches(client.say(encoded(self.user)), "334", "the user name")
                matches(client.say(encoded(self.password)), "235", "the password")

    def transaction(self, client: Client, stage: Stage = DATA, *, mail: str = "", to: tuple[str, ...] = ()) -> None:
        """From a session that is signed in to MAIL, RCPT or DATA."""
        matches(client.say(f"MAIL FROM:<{self.sender}>{' ' * bool(mail)}{mail}"), "250", "MAIL")
        if stage is MAIL:
            return
        for recipient in to or (self.recipient,):
            matches(client.say(f"RCPT TO:<{recipient}>"), "250 251", "RCPT")
        if stage is RCPT:
            return
        matches(client.say("DATA"), "354", "DATA")

    def plain(self) -> str:
        """The initial response of AUTH PLAIN."""
        return encoded(f"\0{self.user}\0{self.password}")

    def fill(self, text: str | bytes) -> bytes:
        """The line with {sender}, {recipient}, {local}, {domain} and {plain} filled in."""
        octets = text.encode() if isinstance(text, str) else text
        local, _, domain = self.recipient.rpartition("@")
        for name, value in (
            (b"{sender}", self.sender),
            (b"{recipient}", self.recipient),
            (b"{local}", local),
            (b"{domain}", domain),
            (b"{plain}", self.plain()),
        ):
            octets = octets.replace(name, value.encode())
        return octets

    def others(self, count: int) -> list[str]:
        """So many recipients that nobody is asked to read mail for: their transactions are given up."""
        local, _, domain = self.recipient.rpartition("@")
        return [f"{local}-{number}@{domain}" for number in range(count)]

    # Messages.

    def message(self, text: str | bytes = "Hello", *, header: str = "", token: str = "") -> bytes:
        """A small message, CRLF at the end of every line, the text's included; without the final dot."""
        body = text.encode() if isinstance(text, str) else text
        subject = f"Subject: conformance {token or 'test'}\r\n"
        return f"From: <{self.sender}>\r\nTo: <{self.recipient}>\r\n{subject}{header}\r\n".encode() + body + b"\r\n"

    def arrives(self, token: str, count: int = 1) -> list[Arrived]:
        """The messages with this token that have arrived; Broken when there are not so many in time."""
        assert self.delivered is not None  # cases that see are not run without
        found = delivered.wait_for(self.delivered, token, self.seen_within, count)
        expect(len(found) >= count, f"{len(found)} of {count} messages arrived within {self.seen_within:g} s")
        return found

    def sent(self, content: bytes, *, mail: str = "", to: tuple[str, ...] = ()) -> Reply:
        """Send content (dots stuffed already, the final one not yet there) over a new session; the last reply."""
        client = self.at(SIGNED_IN)
        self.transaction(client, mail=mail, to=to)
        client.send(content + b".\r\n")
        return client.reply()

    def relayed(self, content: bytes, token: str, *, mail: str = "", to: tuple[str, ...] = ()) -> Arrived:
        """Send content, which must be accepted, and give what arrives."""
        matches(self.sent(content, mail=mail, to=to), "250", "the end of the data")
        return self.arrives(token)[0]


def offered(reply: Reply) -> dict[str, str]:
    """What an EHLO reply offers. Raises Broken when it is none."""
    matches(reply, "250", "EHLO")
    return {
        keyword.upper(): parameters for keyword, _, parameters in (line.partition(" ") for line in reply.lines[1:])
    }


def encoded(text: str | bytes) -> str:
    """Base64."""
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def token() -> str:
    """A word that no other message has."""
    return f"t{secrets.token_hex(8)}"


__all__ = ["CLIENT_NAME", "Broken", "Server", "Tls", "encoded", "offered", "token"]
