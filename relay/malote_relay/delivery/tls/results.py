"""How sessions came to their TLS or did not, in the words of RFC 8460. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from malote_relay.delivery.tls.mtasts import StsPolicy
from malote_relay.delivery.tls.security import Security


class ResultType(enum.StrEnum):
    """What went wrong (RFC 8460 section 4.3)."""

    STARTTLS_NOT_SUPPORTED = "starttls-not-supported"
    HOST_MISMATCH = "certificate-host-mismatch"
    EXPIRED = "certificate-expired"
    NOT_TRUSTED = "certificate-not-trusted"
    VALIDATION_FAILURE = "validation-failure"
    TLSA_INVALID = "tlsa-invalid"
    DNSSEC_INVALID = "dnssec-invalid"
    STS_FETCH_ERROR = "sts-policy-fetch-error"
    STS_INVALID = "sts-policy-invalid"
    STS_WEBPKI_INVALID = "sts-webpki-invalid"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a session did not get the TLS that was asked for. `words` say it to people.

    `lasting` is what TLS itself said, by an alert or a certificate: it would say the same again. A connection that
    was lost or silent may have been anybody's doing.
    """

    result: ResultType
    words: str
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class Applied:
    """Which policy a session was measured by (RFC 8460 section 4.4): "tlsa", "sts" or "no-policy-found".

    `domain` is whose policy it is, `text` and `mx` are what the policy says.
    """

    kind: str
    domain: str
    text: tuple[str, ...] = ()
    mx: tuple[str, ...] = ()

    @classmethod
    def none(cls, domain: str) -> Applied:
        """The domain has no policy."""
        return cls("no-policy-found", domain)

    @classmethod
    def sts(cls, domain: str, policy: StsPolicy | Trouble) -> Applied:
        """The domain has an MTA-STS policy, or says so."""
        if isinstance(policy, Trouble):
            return cls("sts", domain)
        lines = ["version: STSv1", f"mode: {policy.mode.value}", *(f"mx: {one}" for one in policy.mx)]
        return cls("sts", domain, (*lines, f"max_age: {policy.max_age}"), policy.mx)

    @classmethod
    def tlsa(cls, host: str, found: Security | None) -> Applied:
        """The mail host has TLSA records; the domain is the one they stand under."""
        records = found.tlsa if found is not None else ()
        base = found.names[0] if found is not None and found.names else host
        text = tuple(f"{one.usage} {one.selector} {one.matching} {one.data.hex()}" for one in records)
        return cls("tlsa", base, text, (host,))
