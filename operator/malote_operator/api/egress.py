"""How mail leaves, as a Plan says it for all its tenants and a Tenant for itself."""

from __future__ import annotations

import enum

from .meta import Struct


class SmartHostTls(enum.StrEnum):
    """TLS with the smart host: used when offered; STARTTLS required, verified; or from the first octet, verified."""

    OPPORTUNISTIC = "Opportunistic"
    REQUIRED = "Required"
    IMPLICIT = "Implicit"


class SmartHost(Struct, frozen=True, kw_only=True):
    """A host that takes all mail. `password_file` is a key of the Secret that holds relays' credentials."""

    host: str
    port: int = 587
    tls: SmartHostTls = SmartHostTls.REQUIRED
    username: str = ""
    password_file: str = ""


class Socks5(Struct, frozen=True, kw_only=True):
    """A SOCKS5 proxy that every outgoing connection goes through. `password_file` as for a smart host."""

    host: str
    port: int = 1080
    username: str = ""
    password_file: str = ""


class Egress(Struct, frozen=True, kw_only=True):
    """How mail leaves: a Tenant says it over its Plan, a Plan over the platform's settings."""

    helo_template: str = ""
    source_address: str = ""
    smart_host: SmartHost | None = None
    socks5: Socks5 | None = None
