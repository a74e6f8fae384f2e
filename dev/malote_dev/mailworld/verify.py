"""What a recipient's mail host finds when it checks where a message comes from: DKIM, SPF and DMARC.

The verdict must not come from the code it judges. The relay signs with canonicalisation code of its own, written
to stream; here the message is read as a whole and checked by others' libraries: dkimpy parses, canonicalises
and verifies every DKIM-Signature (RFC 6376), pyspf evaluates the SPF record (RFC 7208), authheaders finds the
DMARC policy and tests the alignment (RFC 7489). Nothing of the relay is imported. An error in reading an RFC
would have to be made twice, by different people, to go unnoticed.

All look-ups go to the DNS server that is passed in, over the network, never to the system's resolver. Since
that server may run in this very event loop, `verify` works in a thread; `verify_blocking` is for callers outside.
"""

from __future__ import annotations

import asyncio
import contextvars
import email
import email.policy
import email.utils
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import authheaders
import dkim
import dns.exception
import dns.resolver
import publicsuffix2
import spf
from authres import DKIMAuthenticationResult, SPFAuthenticationResult

LOOKUP_SECONDS = 5.0
"""How long one look-up may take."""


class DnsAddress(Protocol):
    """Where the DNS server is: a `mailworld.dns.DnsServer`, or anything else with an address and a port."""

    @property
    def address(self) -> str:
        """The server's address."""
        ...

    @property
    def port(self) -> int:
        """The server's port, UDP and TCP."""
        ...


@dataclass(frozen=True, slots=True)
class DnsAt:
    """The address of a DNS server that runs elsewhere."""

    address: str
    port: int = 53


@dataclass(frozen=True, slots=True)
class Signature:
    """One DKIM-Signature: "pass", "fail" or "temperror", its domain and selector, and why it did not pass."""

    result: str
    domain: str
    selector: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a recipient's host concludes.

    `dkim` is that of the first passing signature, else of the first one ("none" without any), with its
    `dkim_domain` (d=) and `dkim_selector` (s=). `spf` and `dmarc` are results in the words of RFC 8601. The two
    alignments say whether a *passing* identifier agrees with header From by the DMARC record's adkim and aspf
    (RFC 7489 section 3.1).
    """

    dkim: str
    dkim_domain: str
    dkim_selector: str
    signatures: tuple[Signature, ...]
    spf: str
    spf_reason: str
    spf_aligned: bool
    dkim_aligned: bool
    dmarc: str
    dmarc_policy: str
    header_from: str

    @property
    def all_pass(self) -> bool:
        """DKIM and SPF pass, both aligned with header From, and so DMARC passes."""
        # DMARC alone would be content with one of the two.
        return self.dkim == self.spf == self.dmarc == "pass" and self.dkim_aligned and self.spf_aligned

    def __str__(self) -> str:
        return (
            f"dkim={self.dkim} (d={self.dkim_domain} s={self.dkim_selector}) spf={self.spf} "
            f"dmarc={self.dmarc} (p={self.dmarc_policy or 'none'}, from {self.header_from})"
        )


async def verify(message: bytes, client_ip: str, helo: str, mail_from: str, dns: DnsAddress) -> Verdict:
    """Check a message as received: `client_ip` and `helo` of the connection, `mail_from` ("": null) of the mail."""
    return await asyncio.to_thread(verify_blocking, message, client_ip, helo, mail_from, dns)


def verify_blocking(message: bytes, client_ip: str, helo: str, mail_from: str, dns: DnsAddress) -> Verdict:
    """As `verify`, for callers whose DNS server runs in another thread or process."""
    resolver = _resolver(dns)
    signatures = _check_dkim(message, resolver)
    best = next((s for s in signatures if s.result == "pass"), signatures[0] if signatures else _UNSIGNED)
    spf_result, spf_reason = _check_spf(client_ip, helo, mail_from, resolver)
    spf_domain = (mail_from or f"postmaster@{helo}").rpartition("@")[2].lower()
    header_from = _from_domain(message)

    def dmarc(spf_passes: bool, passing: Sequence[Signature]) -> tuple[str, str]:
        """DMARC's result were these the only identifiers that passed, and the policy."""
        if not header_from:
            return "permerror", ""
        results = [_dmarc(header_from, spf_domain if spf_passes else "", s.domain, resolver) for s in passing]
        results = results or [_dmarc(header_from, spf_domain if spf_passes else "", "", resolver)]
        return min(results, key=lambda result: result[0] != "pass")

    passing = [signature for signature in signatures if signature.result == "pass"]
    result, policy = dmarc(spf_result == "pass", passing)
    return Verdict(
        dkim=best.result,
        dkim_domain=best.domain,
        dkim_selector=best.selector,
        signatures=tuple(signatures),
        spf=spf_result,
        spf_reason=spf_reason,
        spf_aligned=spf_result == "pass" and dmarc(True, ())[0] == "pass",
        dkim_aligned=bool(passing) and dmarc(False, passing)[0] == "pass",
        dmarc=result,
        dmarc_policy=policy,
        header_from=header_from,
    )


_UNSIGNED = Signature("none", "", "", "the message carries no DKIM-Signature")


def _check_dkim(message: bytes, resolver: dns.resolver.Resolver) -> list[Signature]:
    def key(name: bytes, timeout: float) -> bytes | None:
        texts = _txt(resolver, name.decode("ascii"))
        if not texts:
            missing.append(name.decode("ascii").rstrip("."))
        return texts[0] if texts else None

    missing: list[str] = []
    count = sum(name.lower() == b"dkim-signature" for name, _ in dkim.rfc822_parse(message)[0])
    found = []
    for index in range(count):
        checker = dkim.DKIM(message)
        try:
            passed, reason = checker.verify(idx=index, dnsfunc=key), "the signature does not match the header"
            result = "pass" if passed else "fail"
            if missing:  # dkimpy only logs this
                reason = f"missing public key: no TXT record at {missing.pop()}"
        except dkim.DKIMException as error:  # a body that does not match among them
            result, reason = "fail", str(error)
        except dns.exception.DNSException as error:
            result, reason = "temperror", str(error)
        fields = getattr(checker, "signature_fields", {})
        domain, selector = (fields.get(tag, b"").decode("ascii", "replace") for tag in (b"d", b"s"))
        found.append(Signature(result, domain.lower(), selector, "" if result == "pass" else reason))
    return found


_resolver_in_use: contextvars.ContextVar[dns.resolver.Resolver] = contextvars.ContextVar("resolver_in_use")


def _check_spf(client_ip: str, helo: str, mail_from: str, resolver: dns.resolver.Resolver) -> tuple[str, str]:
    token = _resolver_in_use.set(resolver)
    try:
        return spf.check2(i=client_ip, s=mail_from, h=helo)  # type: ignore[no-any-return]  # pyspf is untyped
    finally:
        _resolver_in_use.reset(token)


def _spf_lookup(name: str, rdtype: str, strict: object, timeout: float) -> list[tuple[Any, Any]]:
    """pyspf's one door to the network, in the form of its own DNSLookup functions."""
    try:
        answer = _resolver_in_use.get().resolve(name, rdtype, lifetime=LOOKUP_SECONDS, raise_on_no_answer=False)
    except dns.resolver.NXDOMAIN:
        return []
    except dns.exception.DNSException as error:
        raise spf.TempError(f"DNS {error}") from error
    values: dict[str, Any] = {
        "A": lambda rdata: rdata.address,
        "AAAA": lambda rdata: rdata.address,
        "MX": lambda rdata: (rdata.preference, rdata.exchange.to_text(omit_final_dot=True)),
        "PTR": lambda rdata: rdata.target.to_text(omit_final_dot=True),
        "TXT": lambda rdata: rdata.strings,
        "SPF": lambda rdata: rdata.strings,
    }
    return [((name, rdtype), values[rdtype](rdata)) for rdata in answer.rrset or ()]


spf.DNSLookup = _spf_lookup  # pyspf asks this global of its module; it takes no resolver as an argument


def _dmarc(header_from: str, spf_domain: str, dkim_domain: str, resolver: dns.resolver.Resolver) -> tuple[str, str]:
    def record(name: str) -> str | None:
        # Of several records authheaders would see one: with more than one DMARC record there is none to
        # apply (RFC 7489 section 6.6.3).
        texts = [text for text in _txt(resolver, name) if text.startswith(b"v=DMARC1")]
        # A space after the last semicolon is allowed (RFC 7489 section 6.4) but trips authheaders.
        return texts[0].decode("ascii", "replace").rstrip("; ") if len(texts) == 1 else None

    spf_result = SPFAuthenticationResult(result="pass", smtp_mailfrom=f"@{spf_domain}") if spf_domain else None
    dkim_result = DKIMAuthenticationResult(result="pass", header_d=dkim_domain) if dkim_domain else None
    try:
        result, _, _, policy = authheaders.dmarc_per_from(
            header_from, spf_result=spf_result, dkim_result=dkim_result, dnsfunc=record
        )
    except dns.exception.DNSException:
        return "temperror", ""
    except authheaders.dmarc_lookup.DMARCException:
        return "permerror", ""
    return result, policy


def organizational_domain(domain: str) -> str:
    """The domain one label below its public suffix (RFC 7489 section 3.2), "*" being the rule where no list has one.

    authheaders' own takes `example` as the organizational domain of everything below .example, so that strangers
    would align there.
    """
    labels = domain.lower().rstrip(".").split(".")
    suffix = _public_suffixes().get_tld(".".join(labels)) or labels[-1]
    return ".".join(labels[-(suffix.count(".") + 2) :])


@functools.cache
def _public_suffixes() -> publicsuffix2.PublicSuffixList:
    return publicsuffix2.PublicSuffixList()


authheaders.get_org_domain = authheaders.dmarc_lookup.get_org_domain = organizational_domain
authheaders.get_domain_part = lambda address: address.rpartition("@")[2].lower()
"""authheaders' own stops at the first hyphen of a domain, and would find no alignment for my-shop.example."""


def _from_domain(message: bytes) -> str:
    """The domain of the one mailbox in the one header From; "" where there is not exactly one."""
    headers = email.message_from_bytes(message, policy=email.policy.compat32).get_all("From", [])
    mailboxes = email.utils.getaddresses([str(header) for header in headers])
    if len(headers) != 1 or len(mailboxes) != 1:
        return ""
    return mailboxes[0][1].rpartition("@")[2].lower()


def _txt(resolver: dns.resolver.Resolver, name: str) -> list[bytes]:
    try:
        answer = resolver.resolve(name, "TXT", lifetime=LOOKUP_SECONDS, raise_on_no_answer=False)
    except dns.resolver.NXDOMAIN:
        return []
    return [b"".join(rdata.strings) for rdata in answer.rrset or ()]


def _resolver(server: DnsAddress) -> dns.resolver.Resolver:
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = [server.address]
    resolver.port = server.port
    resolver.cache = None
    return resolver
