"""How mail leaves: whom the DNS is asked of, who the relay is to the world, and when it tries again."""

from __future__ import annotations

from malote_relay.config.fields import Port, Positive, Seconds, Struct
from malote_relay.config.shaping import Shaping
from malote_relay.config.transport import OutgoingTls, SmartHost, Socks5, TlsReports


class Resolver(Struct, frozen=True, kw_only=True):
    """The recursive resolvers to ask; none means those of the system (/etc/resolv.conf).

    `validating` says that they validate DNSSEC and that nobody sits between them and the relay: what they call
    authentic is then believed, as DANE needs it.
    """

    nameservers: tuple[str, ...] = ()
    port: Port = 53
    timeout: Seconds = 10.0
    validating: bool = False


class Delivery(Struct, frozen=True, kw_only=True):
    """How mail leaves. `allow_networks` are internal networks that destinations may resolve into."""

    frozen: bool = False
    helo_name: str
    source_address: str = ""
    smtp_port: Port = 25
    allow_networks: tuple[str, ...] = ()
    max_connections: Positive = 100
    max_connections_per_destination: Positive = 10
    max_age_seconds: Positive = 5 * 86_400
    first_retry_seconds: Positive = 60
    max_retry_seconds: Positive = 4 * 3_600
    shaping: Shaping = Shaping()
    smart_host: SmartHost | None = None
    socks5: Socks5 | None = None
    tls: OutgoingTls = OutgoingTls()
    tls_reports: TlsReports = TlsReports()
