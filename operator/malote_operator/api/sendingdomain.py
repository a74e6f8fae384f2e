"""SendingDomain: a domain a tenant sends from. Namespaced, written by the tenant."""

from __future__ import annotations

import datetime as dt
import enum

from .meta import Condition, LocalReference, Metadata, Struct


class DkimPublish(enum.StrEnum):
    """How the tenant publishes the DKIM key: the key itself, or a CNAME to the platform's zone."""

    TXT = "TXT"
    CNAME = "CNAME"


class Purpose(enum.StrEnum):
    """What a DNS record is for."""

    SPF = "SPF"
    DKIM = "DKIM"
    DMARC = "DMARC"
    RETURN_PATH_MX = "ReturnPathMX"
    RETURN_PATH_SPF = "ReturnPathSPF"


class RecordState(enum.StrEnum):
    """What was seen of a record: Unknown only while nothing could be learned (yet)."""

    UNKNOWN = "Unknown"
    MISSING = "Missing"
    MISMATCH = "Mismatch"
    FOUND = "Found"


class Dkim(Struct, frozen=True, kw_only=True):
    """How the domain's key is published and how often it rotates (0: on request only)."""

    publish: DkimPublish = DkimPublish.TXT
    rotate_every_days: int | None = None


class SendingDomainSpec(Struct, frozen=True, kw_only=True):
    """`spec` of a SendingDomain. `return_path`: where bounces come back to; "" leaves reverse-paths as they are."""

    tenant_ref: LocalReference
    domain: str
    return_path: str = ""
    dkim: Dkim = Dkim()


class Record(Struct, frozen=True, kw_only=True):
    """A DNS record to paste, and what the domain's servers answered when last asked."""

    purpose: Purpose
    type: str
    name: str
    value: str
    state: RecordState = RecordState.UNKNOWN
    observed: tuple[str, ...] = ()
    message: str = ""
    checked_at: dt.datetime | None = None


class SendingDomainStatus(Struct, frozen=True, kw_only=True):
    """`status` of a SendingDomain."""

    observed_generation: int = 0
    records: tuple[Record, ...] = ()
    conditions: tuple[Condition, ...] = ()


class SendingDomain(Struct, frozen=True, kw_only=True):
    """A SendingDomain as read from the API server."""

    metadata: Metadata
    spec: SendingDomainSpec
    status: SendingDomainStatus = SendingDomainStatus()
