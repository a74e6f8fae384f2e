"""Over what mail leaves: a smart host, a SOCKS5 proxy, what TLS is asked for, and the reports about it."""

from __future__ import annotations

import enum

from malote_relay.config.fields import Port, Struct, Text


class SmartHostTls(enum.StrEnum):
    """TLS with the smart host: used when offered; STARTTLS required, verified; or from the first octet, verified."""

    OPPORTUNISTIC = "Opportunistic"
    REQUIRED = "Required"
    IMPLICIT = "Implicit"


class SmartHost(Struct, frozen=True, kw_only=True):
    """A host that takes all mail, whoever it is for. It may be internal: naming it here allows it.

    `host` is an absolute name or an address. With a `username`, `password_file` names a file in `credentials/`;
    neither is ever sent in clear text. While the file cannot be read, mail waits.
    """

    host: Text
    port: Port = 587
    tls: SmartHostTls = SmartHostTls.REQUIRED
    username: str = ""
    password_file: str = ""


class Socks5(Struct, frozen=True, kw_only=True):
    """A SOCKS5 proxy (RFC 1928) that every outgoing connection goes through, by address, call-outs as well.

    There is no `source_address` then, neither of delivery nor of call-outs: the proxy chooses.

    `host` is a name or an address. With a `username` (RFC 1929), `password_file` names a file in `credentials/`.
    While the file cannot be read, mail waits.
    """

    host: Text
    port: Port = 1080
    username: str = ""
    password_file: str = ""


class OutgoingTls(Struct, frozen=True, kw_only=True):
    """What is honoured of what domains publish about TLS; DANE also needs `resolver.validating`.

    `authorities` is a file of certificates (PEM) to believe in place of the system's; `policy_port` is where MTA-STS
    policies are fetched, 443 but for rehearsals.
    """

    dane: bool = True
    mta_sts: bool = True
    authorities: str = ""
    policy_port: Port = 443


class TlsReports(Struct, frozen=True, kw_only=True):
    """Daily reports (RFC 8460) to domains that ask for them: who sends them, and whom to write to about them.

    A domain names the URL it wants its reports at; only those at one of `ports` are posted to.
    """

    enabled: bool = True
    organization: str = ""
    contact: str = ""
    ports: tuple[Port, ...] = (443,)
