"""How mail leaves: as a Plan says it for all its tenants and a Tenant for itself, and what the DNS must say of it."""

from __future__ import annotations

import datetime as dt
import enum

from .meta import Struct
from .sendingdomain import RecordState


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


class EgressPurpose(enum.StrEnum):
    """What a record of a relay's EHLO name is for: its address, what leads back from that, and its own messages."""

    ADDRESS = "Address"
    PTR = "PTR"
    SPF = "SPF"
    DKIM = "DKIM"


class EgressRecord(Struct, frozen=True, kw_only=True):
    """A DNS record for the platform team to publish, and what was seen of it; as a SendingDomain's records.

    The `value` of an address is empty where the operator does not know the one that mail leaves from.
    """

    purpose: EgressPurpose
    type: str
    name: str
    value: str
    state: RecordState = RecordState.UNKNOWN
    observed: tuple[str, ...] = ()
    message: str = ""
    checked_at: dt.datetime | None = None


class EgressStatus(Struct, frozen=True, kw_only=True):
    """The name that the relay gives in EHLO and that its own messages come from, with the records that this needs."""

    helo_name: str
    records: tuple[EgressRecord, ...] = ()
