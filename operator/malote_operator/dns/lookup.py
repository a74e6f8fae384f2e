"""Asking a domain's own name servers, so that no cache delays what the tenant has just changed.

The recursive resolvers are asked only where the servers are: the closest enclosing zone's NS records and their
addresses. Then the servers themselves are asked, without recursion (RFC 1034 section 4.3.1). *Absent* (the name
or the type does not exist) and *failed* (nobody could be asked, or nobody answered properly) are kept apart,
because a failure must never count against a domain. Names are the tenants' to choose: name servers at internal
addresses are not asked unless the platform allows those networks.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.NS
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.resolver
import dns.rrset

from malote_operator.settings import Dns

from . import expected
from .model import Answer, Observation, Outcome, Question

_CNAME_LIMIT = 8
_SERVERS_ASKED = 3
_SERVERS_KEPT = 6
_TEXT_LIMIT = 1024
_TEXTS_KEPT = 50
_REVERSED = 5
"""Of so many of a host's addresses the names are asked for."""
_IN_ORDER = frozenset({dns.rdatatype.TXT, dns.rdatatype.MX})
_CACHE_SECONDS = 60.0
_CACHE_SIZE = 10_000


class _Failed(Exception):
    """No answer could be had; the message says from whom and why."""


class _NoSuchDomain(Exception):
    """The resolvers say that the name does not exist, and no zone of the domain's own encloses it."""


@dataclass(frozen=True, slots=True)
class _Reply:
    texts: tuple[str, ...]
    chain: tuple[dns.name.Name, ...]


def utc_now() -> dt.datetime:
    """The time, in UTC."""
    return dt.datetime.now(dt.UTC)


class Lookup:
    """Looks domains' records up; keeps for a minute where a zone's servers are. One a process."""

    def __init__(self, settings: Dns, clock: Callable[[], dt.datetime] = utc_now) -> None:
        self._settings = settings
        self._clock = clock
        self._allowed = tuple(ipaddress.ip_network(network) for network in settings.allow_networks)
        self._servers: dict[dns.name.Name, tuple[float, tuple[str, ...]]] = {}
        self._resolver = dns.asyncresolver.Resolver(configure=not settings.nameservers)
        if settings.nameservers:
            self._resolver.nameservers = list(settings.nameservers)
            self._resolver.port = settings.port
        self._resolver.lifetime = settings.timeout
        self._resolver.timeout = settings.timeout / 2
        self._resolver.cache = None

    async def observe(self, question: Question) -> Observation:
        """Ask for what the question names.

        Never raises for trouble with DNS. Takes at most three times the configured time-out, with `host` six times.
        """
        domain, selector, return_path = question.domain, question.selector, question.return_path
        of_spf, of_dmarc, dkim, return_path_mx, return_path_spf, (addresses, reverse) = await asyncio.gather(
            self._ask(domain) if question.spf else _nothing(),
            self._ask(f"_dmarc.{domain}") if question.dmarc else _nothing(),
            self._ask(expected.dkim_name(domain, selector)) if selector else _nothing(),
            self._ask(return_path, dns.rdatatype.MX) if return_path else _nothing(),
            self._ask(return_path) if return_path else _nothing(),
            self._host(domain) if question.host else _no_host(),
        )
        return Observation(
            at=self._clock(),
            spf=of_spf,
            dmarc=of_dmarc,
            dkim=dkim,
            return_path_mx=return_path_mx,
            return_path_spf=return_path_spf,
            host=addresses,
            reverse=reverse,
        )

    async def _host(self, name: str) -> tuple[Answer, tuple[Answer, ...]]:
        of_a, of_aaaa = await asyncio.gather(self._ask(name, dns.rdatatype.A), self._ask(name, dns.rdatatype.AAAA))
        if failed := next((one for one in (of_a, of_aaaa) if one.outcome is Outcome.FAILED), None):
            return failed, ()  # half of the addresses are not what the host has
        texts = (*of_a.texts, *of_aaaa.texts)
        answer = Answer(name, Outcome.ANSWERED if texts else Outcome.ABSENT, texts, of_a.cname or of_aaaa.cname)
        reverse = (self._ask(expected.reverse_name(address), dns.rdatatype.PTR) for address in texts[:_REVERSED])
        return answer, tuple(await asyncio.gather(*reverse))

    async def _ask(self, name: str, kind: dns.rdatatype.RdataType = dns.rdatatype.TXT) -> Answer:
        try:
            async with asyncio.timeout(self._settings.timeout * 3):
                return await self._follow(name, kind)
        except TimeoutError:
            return Answer(name, Outcome.FAILED, error="the domain's name servers did not answer in time")
        except _NoSuchDomain:
            return Answer(name, Outcome.ABSENT)
        except (_Failed, dns.exception.DNSException, OSError) as error:
            return Answer(name, Outcome.FAILED, error=str(error) or type(error).__name__)

    async def _follow(self, name: str, kind: dns.rdatatype.RdataType) -> Answer:
        """The records of that kind at `name`, following CNAMEs into other zones."""
        current = dns.name.from_text(name)
        chain: list[dns.name.Name] = []
        while len(chain) <= _CNAME_LIMIT:
            try:
                reply = await self._authoritative(current, kind)
            except _NoSuchDomain:
                if not chain:
                    raise
                reply = _Reply((), ())
            chain += reply.chain
            if reply.texts or not reply.chain:
                outcome = Outcome.ANSWERED if reply.texts or chain else Outcome.ABSENT
                return Answer(name, outcome, texts=reply.texts, cname=tuple(_shown(one) for one in chain))
            current = chain[-1]
        raise _Failed(f"{name}: more than {_CNAME_LIMIT} CNAMEs, one behind the other")

    async def _authoritative(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> _Reply:
        """Ask the servers of the zone that encloses `name`, one after the other until one answers properly."""
        zone, servers = await self._servers_of(name)
        query = dns.message.make_query(name, kind)
        query.flags &= ~dns.flags.RD
        failures: list[str] = []
        for server in servers[:_SERVERS_ASKED]:
            try:
                response, _ = await dns.asyncquery.udp_with_fallback(
                    query,
                    server,
                    timeout=self._settings.timeout / 2,
                    port=self._settings.port,
                    ignore_unexpected=True,
                )
            except (dns.exception.DNSException, OSError) as error:
                failures.append(f"{server}: {str(error) or type(error).__name__}")
                continue
            code = response.rcode()
            if code not in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
                failures.append(f"{server}: {dns.rcode.to_text(code)}")
            elif not response.answer and not response.flags & dns.flags.AA:
                failures.append(f"{server} does not serve {_shown(zone)}")  # a lame delegation
            else:
                return _read(response, name, kind)
        self._servers.pop(zone, None)
        raise _Failed(f"the name servers of {_shown(zone)} gave no answer ({'; '.join(failures)})")

    async def _servers_of(self, name: dns.name.Name) -> tuple[dns.name.Name, tuple[str, ...]]:
        """The closest enclosing zone and its servers' addresses."""
        zone = name
        missing = below_missing = False
        while True:
            kept = self._servers.get(zone)
            if kept is not None and kept[0] > time.monotonic():
                return zone, kept[1]
            hosts, exists = await self._name_servers(zone)
            below_missing, missing = missing, not exists
            if hosts:
                if len(zone) <= 2 and below_missing:  # a top-level domain, and the name below it is not delegated
                    raise _NoSuchDomain
                addresses = await self._addresses(zone, hosts)
                if len(self._servers) >= _CACHE_SIZE:
                    self._servers.clear()
                self._servers[zone] = (time.monotonic() + _CACHE_SECONDS, addresses)
                return zone, addresses
            if zone == dns.name.root:
                raise _Failed(f"the resolvers name no name servers for {_shown(name)}")
            zone = zone.parent()

    async def _name_servers(self, zone: dns.name.Name) -> tuple[list[dns.name.Name], bool]:
        """The NS records of exactly this name, and whether the name exists at all."""
        try:
            answer = await self._resolver.resolve(zone, dns.rdatatype.NS, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            return [], False
        except (dns.resolver.NoNameservers, dns.resolver.LifetimeTimeout) as error:
            raise _Failed(f"the resolvers could not say where {_shown(zone)} is served ({_reason(error)})") from error
        # A CNAME at the name would bring the NS records of wherever it leads to.
        found = answer.response.get_rrset(answer.response.answer, zone, answer.rdclass, dns.rdatatype.NS)
        hosts = [one.target for one in found or () if isinstance(one, dns.rdtypes.ANY.NS.NS)]
        return hosts[:_SERVERS_KEPT], True

    async def _addresses(self, zone: dns.name.Name, hosts: Sequence[dns.name.Name]) -> tuple[str, ...]:
        kinds = (dns.rdatatype.A, dns.rdatatype.AAAA)
        answers = await asyncio.gather(
            *(self._resolver.resolve(host, kind) for kind in kinds for host in hosts), return_exceptions=True
        )
        found = [
            record.to_text() for answer in answers if isinstance(answer, dns.resolver.Answer) for record in answer
        ]
        if not found:
            raise _Failed(f"the name servers of {_shown(zone)} have no addresses that could be found")
        usable = tuple(address for address in found if self._may_be_asked(address))
        if not usable:
            raise _Failed(f"the name servers of {_shown(zone)} have internal addresses only ({', '.join(found[:3])})")
        return usable

    def _may_be_asked(self, text: str) -> bool:
        address = ipaddress.ip_address(text)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        inside = any(address.version == network.version and address in network for network in self._allowed)
        return inside or (address.is_global and not address.is_multicast)


async def _nothing() -> None:
    return None


async def _no_host() -> tuple[None, tuple[Answer, ...]]:
    return None, ()


def _read(response: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> _Reply:
    """The CNAME chain from `name` within one response, and the texts at its end."""
    chain: list[dns.name.Name] = []
    current = name
    while len(chain) <= _CNAME_LIMIT:
        by_type = {rrset.rdtype: rrset for rrset in response.answer if rrset.name == current}
        if kind in by_type:
            return _Reply(_texts(by_type[kind]), tuple(chain))
        if dns.rdatatype.CNAME not in by_type:
            break
        alias = by_type[dns.rdatatype.CNAME][0]
        if not isinstance(alias, dns.rdtypes.ANY.CNAME.CNAME):
            break
        current = alias.target
        chain.append(current)
    return _Reply((), tuple(chain))


def _texts(rrset: dns.rrset.RRset) -> tuple[str, ...]:
    """TXT records' strings joined without a space (RFC 7208 section 3.3, RFC 6376 section 3.6.2.2); others as words.

    Addresses and names of hosts are sorted: name servers turn them round with each answer, which is no news.
    """
    texts: list[str] = []
    for one in list(rrset)[:_TEXTS_KEPT]:
        if isinstance(one, dns.rdtypes.ANY.TXT.TXT):
            texts.append(_printable(b"".join(one.strings)[:_TEXT_LIMIT]))
        elif isinstance(one, dns.rdtypes.ANY.MX.MX):
            texts.append(f"{one.preference} {_shown(one.exchange)}")
        elif isinstance(one, dns.rdtypes.IN.A.A | dns.rdtypes.IN.AAAA.AAAA):
            texts.append(one.address)
        elif isinstance(one, dns.rdtypes.ANY.PTR.PTR):
            texts.append(_shown(one.target))
    return tuple(texts) if rrset.rdtype in _IN_ORDER else tuple(sorted(texts))


def _printable(text: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else f"\\{byte:03d}" for byte in text)


def _shown(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


def _reason(error: dns.exception.DNSException) -> str:
    return "no answer in time" if isinstance(error, dns.resolver.LifetimeTimeout) else "SERVFAIL or no proper answer"
