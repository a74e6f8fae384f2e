"""Asking the DNS, with answers that say what the caller should do.

A name either has the records asked for, or exists without them, or does not exist, or nobody could tell. Mail must
not confuse these: the second and third are final for a recipient (or for a call-out), the last never is. Each has an
exception of its own. Answers, also the negative ones, are kept as long as their TTL allows (RFC 2308).
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.rdata
import dns.resolver
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.SOA import SOA
from dns.rdtypes.ANY.TXT import TXT

from malote_relay import config

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_TTL = 3600.0
"""Seconds an answer is kept at most, whatever its TTL: people correct their DNS and expect to see it."""

MAX_NEGATIVE_TTL = 60.0
MAX_CACHED = 10_000
MAX_CNAMES = 8


class ResolverError(Exception):
    """The records cannot be had; the message names the question. Catch the subclasses.

    `authentic` says that the resolver vouches for it: by a signed proof there is nothing.
    """

    authentic = False


class NoSuchDomain(ResolverError):
    """NXDOMAIN, or not a domain name at all. Final: treat the address as not existing."""


class NoRecords(ResolverError):
    """The name exists without such records (NODATA). Final for this type: look for another type or give up."""


class TemporaryFailure(ResolverError):
    """SERVFAIL, a time-out, no server reachable. Nothing is known: defer, keep what was known, ask again later."""


@dataclass(frozen=True, slots=True, order=True)
class Mx:
    """One MX record; `host` without the final dot, lower case. The host "" is the null MX (RFC 7505)."""

    preference: int
    host: str


Records = tuple[dns.rdata.Rdata, ...]


@dataclass(frozen=True, slots=True)
class Examined:
    """What is at a name: no records for those that do not exist, or whose name does not.

    `authentic` is whether a validating resolver vouches for it, every alias on the way included; `canonical` the name
    that aliases led to, lower case.
    """

    records: Records
    authentic: bool
    canonical: str


@dataclass(frozen=True, slots=True)
class _Kept:
    """An answer without the message it came in, which would be a hundred times its size."""

    until: float
    records: Records = ()
    error: type[ResolverError] | None = None
    words: str = ""
    authentic: bool = False
    canonical: str = ""


class Resolver:
    """A caching stub resolver on one event loop; equal questions asked at once are sent once.

    `clock` gives monotonic seconds for the cache.
    """

    def __init__(self, settings: config.Resolver | None = None, *, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._cache: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._asking: dict[tuple[str, str], asyncio.Task[_Kept]] = {}
        self.reconfigure(settings or config.Resolver())

    def reconfigure(self, settings: config.Resolver) -> None:
        """Ask other name servers from now on, with an empty cache; questions under way end as they began."""
        stub = dns.asyncresolver.Resolver(configure=not settings.nameservers)
        if settings.nameservers:
            stub.nameservers = [
                dns.nameserver.Do53Nameserver(address, settings.port) for address in settings.nameservers
            ]
        stub.timeout = min(3.0, settings.timeout)
        stub.lifetime = settings.timeout
        stub.search = []  # Every name we ask for is absolute.
        # A resolver tells what it validated to those who ask with AD (RFC 6840 section 5.7) or, some, with DO.
        stub.use_edns(0, dns.flags.DO if settings.validating else 0, 1232)
        if settings.validating:
            stub.set_flags(dns.flags.RD | dns.flags.AD)
        self._validating = settings.validating
        self._stub = stub
        self._cache.clear()
        self._asking = {}

    async def mx(self, domain: str) -> tuple[Mx, ...]:
        """The domain's MX records by preference. Raises NoSuchDomain, NoRecords, TemporaryFailure."""
        records = await self._ask(domain, "MX")
        return tuple(
            sorted(Mx(record.preference, _host(record.exchange)) for record in records if isinstance(record, MX))
        )

    async def addresses(self, host: str) -> tuple[IPAddress, ...]:
        """The host's addresses, IPv6 first (RFC 6724 has most hosts prefer it). Raises as `mx`.

        One family is enough: the other's failure does not matter then.
        """
        outcomes = await asyncio.gather(self._ask(host, "AAAA"), self._ask(host, "A"), return_exceptions=True)
        found: list[IPAddress] = []
        errors: list[ResolverError] = []
        for outcome in outcomes:
            if isinstance(outcome, ResolverError):
                errors.append(outcome)
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                found += [ipaddress.ip_address(record.to_text()) for record in outcome]
        if found:
            return tuple(found)
        for kind in (TemporaryFailure, NoSuchDomain):
            for error in errors:
                if isinstance(error, kind):
                    raise error
        raise NoRecords(f"{host} has neither A nor AAAA records")

    async def txt(self, name: str) -> tuple[bytes, ...]:
        """The name's TXT records, each with its strings joined (RFC 7208 section 3.3). Raises as `mx`."""
        return tuple(b"".join(record.strings) for record in await self._ask(name, "TXT") if isinstance(record, TXT))

    async def examine(self, name: str, rdtype: str) -> Examined:
        """What is there, and whether the DNS vouches for it. Raises TemporaryFailure, also for bogus answers."""
        kept = await self._keep(name, rdtype)
        if kept.error is TemporaryFailure:
            raise TemporaryFailure(kept.words)
        return Examined(kept.records, kept.authentic and self._validating, kept.canonical)

    async def _ask(self, name: str, rdtype: str) -> Records:
        kept = await self._keep(name, rdtype)
        if kept.error is not None:
            raise kept.error(kept.words)
        return kept.records

    async def _keep(self, name: str, rdtype: str) -> _Kept:
        key = (name.rstrip(".").lower(), rdtype)
        kept = self._cache.get(key)
        if kept is not None and kept.until > self._clock():
            self._cache.move_to_end(key)
        else:
            task = self._asking.get(key)
            if task is None:
                task = asyncio.get_running_loop().create_task(self._look_up(*key))
                asking = self._asking
                asking[key] = task
                task.add_done_callback(lambda _: asking.pop(key, None))
            # One asker's cancellation must not take the answer from the others.
            kept = await asyncio.shield(task)
        return kept

    async def _look_up(self, name: str, rdtype: str) -> _Kept:
        stub, ttl = self._stub, 0.0
        error: type[ResolverError] | None = None
        records: Records = ()
        words, canonical = "", name
        try:
            answer, authentic = await _resolve(stub, name, rdtype)
            canonical = _host(answer.canonical_name)
            ttl = min(float(answer.ttl), MAX_TTL)
            records = tuple(answer)
        except ResolverError as failure:
            error, words, authentic = type(failure), str(failure), failure.authentic
            ttl = min(_negative_ttl(failure.__cause__), MAX_NEGATIVE_TTL)
        kept = _Kept(self._clock() + ttl, records, error, words, authentic, canonical)
        if ttl > 0 and stub is self._stub:
            self._cache[name, rdtype] = kept
            while len(self._cache) > MAX_CACHED:
                self._cache.popitem(last=False)
        return kept


class _Empty(Exception):
    """Carries the response that had no answer, for its SOA record."""

    def __init__(self, response: dns.message.Message):
        self.response = response


async def _resolve(stub: dns.asyncresolver.Resolver, name: str, rdtype: str) -> tuple[dns.resolver.Answer, bool]:
    """The answer, and whether every response on the way to it was authentic."""
    question = _question(name)
    authentic = True
    for _ in range(MAX_CNAMES):
        try:
            answer = await stub.resolve(question, rdtype, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN as error:
            nothing = NoSuchDomain(f"{name} does not exist ({rdtype} look-up: NXDOMAIN)")
            responses = error.kwargs.get("responses", {}).values()
            nothing.authentic = authentic and bool(responses) and all(_is_authentic(one) for one in responses)
            raise nothing from error
        except dns.resolver.YXDOMAIN as error:
            raise NoSuchDomain(f"{name} has no usable {rdtype} records: {error}") from error
        except (dns.exception.DNSException, OSError) as error:
            raise TemporaryFailure(f"{rdtype} look-up of {name} failed: {error}") from error
        authentic = authentic and _is_authentic(answer.response)
        if answer.rrset is not None:
            return answer, authentic
        if answer.canonical_name == question:
            empty = NoRecords(f"{name} has no {rdtype} records")
            empty.authentic = authentic
            raise empty from _Empty(answer.response)
        # An authoritative-only server leaves the alias's target for us to ask (RFC 1034 section 5.2.2).
        question = answer.canonical_name
    raise NoSuchDomain(f"{name}: more than {MAX_CNAMES} CNAME records in a chain")


def ascii_name(name: str) -> str:
    """The name as it is written in the DNS: ASCII, lower case, no final dot. Raises NoSuchDomain for what is none."""
    return _host(_question(name))


def _question(name: str) -> dns.name.Name:
    try:
        return dns.name.from_text(name, idna_codec=dns.name.IDNA_2003_Practical)
    except (dns.exception.DNSException, UnicodeError) as error:
        raise NoSuchDomain(f"{name!r} is not a domain name: {error}") from error


def _is_authentic(response: dns.message.Message) -> bool:
    return bool(response.flags & dns.flags.AD)


def _negative_ttl(cause: BaseException | None) -> float:
    """The time a negative answer may be kept: from its SOA, RFC 2308 section 5; 0 without one."""
    responses: list[dns.message.Message] = []
    if isinstance(cause, dns.resolver.NXDOMAIN):
        responses = list(cause.kwargs.get("responses", {}).values())
    elif isinstance(cause, _Empty):
        responses = [cause.response]
    for response in responses:
        for rrset in response.authority:
            for record in rrset:
                if isinstance(record, SOA):
                    return float(min(rrset.ttl, record.minimum))
    return 0.0


def _host(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower() if name != dns.name.root else ""
