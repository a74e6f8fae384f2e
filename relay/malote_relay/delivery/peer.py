"""Who talks to whom: our identity and ways out, the remote host, and how long each step may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from malote_relay.config import RelayConfig
from malote_relay.delivery.tls.security import OPPORTUNISTIC, Security
from malote_relay.resolver import IPAddress


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to wait for each step (RFC 5321 section 4.5.3.2).

    `fallback` is for connecting while the host has an address of the other family left to try, `reach` for all tries
    of one session together.
    """

    connect: float = 30.0
    greeting: float = 120.0
    command: float = 300.0
    tls: float = 60.0
    data: float = 120.0
    block: float = 180.0
    final: float = 600.0
    quit: float = 2.0
    fallback: float = 5.0
    reach: float = 90.0


@dataclass(frozen=True, slots=True)
class Login:
    """A user name and password; the password is in no log, and "" while it cannot be read: nothing is sent then."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A SOCKS5 proxy that all connections go through."""

    host: str
    port: int
    login: Login | None = None

    def __str__(self) -> str:
        return f"the SOCKS5 proxy {self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are to the remote: the EHLO name, and the source address ("" lets the system choose) or the proxy.

    `login` is for a smart host, which alone is ever told it.
    """

    helo_name: str
    source_address: str = ""
    proxy: Proxy | None = None
    login: Login | None = None

    @property
    def appears_as(self) -> str:
        """Whom the remote sees: what limits and reputation belong to."""
        return str(self.proxy) if self.proxy else self.source_address


@dataclass(frozen=True, slots=True)
class Peer:
    """Where to connect. `name` is the MX host's ("" for an address literal), `security` what TLS it must have."""

    name: str
    address: IPAddress
    port: int = 25
    security: Security = OPPORTUNISTIC

    def __str__(self) -> str:
        return f"{self.name}[{self.address}]" if self.name else f"[{self.address}]"


def delivering(config: RelayConfig, credentials: Mapping[str, str]) -> Identity:
    """Who we are when we deliver. `credentials` are passwords by file name, those left out that cannot be read."""
    delivery = config.delivery
    smart = delivery.smart_host
    login = Login(smart.username, credentials.get(smart.password_file, "")) if smart and smart.username else None
    return _identity(config, credentials, delivery.source_address, login)


def calling_out(config: RelayConfig, credentials: Mapping[str, str]) -> Identity:
    """Who we are when we ask for a sender's mailbox."""
    source = config.sender_verification.source_address or config.delivery.source_address
    identity = _identity(config, credentials, source, None)
    return replace(identity, helo_name=config.sender_verification.helo_name or identity.helo_name)


def _identity(config: RelayConfig, credentials: Mapping[str, str], source: str, login: Login | None) -> Identity:
    proxy = None
    if (socks := config.delivery.socks5) is not None:
        user = Login(socks.username, credentials.get(socks.password_file, "")) if socks.username else None
        proxy = Proxy(socks.host, socks.port, user)
    return Identity(config.delivery.helo_name, "" if proxy else source, proxy, login)
