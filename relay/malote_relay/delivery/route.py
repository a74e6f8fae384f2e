"""Which hosts take mail for a domain: RFC 5321 section 5.1, with the null MX of RFC 7505.

MX records by preference, equal ones shuffled; without any, the domain's own address (implicit MX). The relay never
sends to itself, nor into networks that are not the public Internet: a recipient's domain is chosen by whoever sends,
its records by whoever owns it, and neither may reach the cluster's inside by it (`Policy`).
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from malote_relay.config import RelayConfig, SmartHost, SmartHostTls, is_address
from malote_relay.delivery.peer import Peer
from malote_relay.delivery.tls.results import Applied
from malote_relay.delivery.tls.security import OPPORTUNISTIC, SMART_HOST, Level, Security
from malote_relay.resolver import IPAddress, Mx, NoRecords, NoSuchDomain, ResolverError, TemporaryFailure

MAX_HOSTS = 10
"""MX hosts looked at for one attempt: enough for every real domain, and a bound on what one may cost us."""

MAX_ADDRESSES = 6
"""Addresses tried of one host."""

_MAX_NAMES = 30
"""MX hosts that a destination is named by; a digest stands for more."""

_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "240.0.0.0/4",  # "this" network, CGNAT, IETF, reserved
        "64:ff9b:1::/48", "100::/64", "fec0::/10",  # local NAT64, discard, old site-local
        "::ffff:0:0:0/96", "3fff::/20", "5f00::/16",  # IPv4-translated (RFC 2765), documentation, segment routing
    )
)  # fmt: skip


class Names(Protocol):
    """What routing asks of the DNS; `malote_relay.resolver.Resolver` does it."""

    async def mx(self, domain: str) -> tuple[Mx, ...]:
        """See `Resolver.mx`."""
        ...

    async def addresses(self, host: str) -> tuple[IPAddress, ...]:
        """See `Resolver.addresses`."""
        ...


class Unroutable(Exception):
    """There is nowhere to send to. When `permanent`, fail the recipients with `reply`; else try again later."""

    def __init__(self, reply: str, bounce_class: str, *, permanent: bool):
        super().__init__(reply)
        self.reply = reply
        self.bounce_class = bounce_class
        self.permanent = permanent


@dataclass(frozen=True, slots=True)
class Policy:
    """Where the relay may connect to, and who it is itself."""

    own_names: frozenset[str] = frozenset()
    own_addresses: frozenset[IPAddress] = frozenset()
    allow_networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    port: int = 25
    smart_host: SmartHost | None = None

    @classmethod
    def of(cls, config: RelayConfig) -> Policy:
        """As the configuration says."""
        delivery = config.delivery
        listening = (delivery.source_address, config.listen.address) if delivery.smtp_port == 25 else ()
        return cls(
            own_names=frozenset(_host_name(name) for name in (config.hostname, delivery.helo_name) if name),
            own_addresses=frozenset(ipaddress.ip_address(address) for address in listening if address),
            allow_networks=tuple(ipaddress.ip_network(network) for network in delivery.allow_networks),
            port=delivery.smtp_port,
            smart_host=delivery.smart_host,
        )

    def refusal(self, address: IPAddress) -> str:
        """Why nothing is sent to `address`, in words; "" when it may be."""
        inner = _embedded(address)
        if address in self.own_addresses or inner in self.own_addresses:
            return f"{address} is this relay itself"
        for one in (address, inner):
            if any(one in network for network in self.allow_networks):
                return ""
        if _is_public(address) and _is_public(inner):
            return ""
        return f"{address} is not a public address, and not in delivery.allowNetworks"


@dataclass(frozen=True, slots=True)
class MailHost:
    """A host that takes the mail, with the addresses that may be tried, in order. `name` "" for a literal."""

    name: str
    addresses: tuple[IPAddress, ...]
    security: Security = OPPORTUNISTIC
    applied: Applied | None = None
    """The policy that its sessions are measured by; None: they are not."""


@dataclass(frozen=True, slots=True)
class Route:
    """The hosts for `domain`, best first; never empty, and none without an address.

    `known_as` is the destination where hosts are left out that cannot be found, or may not be used, for now.
    """

    domain: str
    hosts: tuple[MailHost, ...]
    port: int = 25
    known_as: str = ""
    destination: str = field(init=False)
    """Who receives, as the key of limits: domains with the same set of MX hosts are one destination."""

    def __post_init__(self) -> None:
        names = sorted(host.name or str(host.addresses[0]) for host in self.hosts)
        object.__setattr__(self, "destination", self.known_as or ",".join(names))

    @property
    def best_host(self) -> str:
        """The name of the host that is tried first: whose provider's words its answers are read by."""
        return self.hosts[0].name if self.hosts else ""

    @property
    def securities(self) -> tuple[Security, ...]:
        """What TLS is asked for, host by host."""
        return tuple(host.security for host in self.hosts)

    def admits(self, peer: Peer) -> bool:
        """Whether a session that was opened with `peer` will do: same host, and TLS as asked for here or better."""
        return any(host.name == peer.name and host.security in (peer.security, OPPORTUNISTIC) for host in self.hosts)


async def route(domain: str, names: Names, policy: Policy, rng: random.Random) -> Route:
    """Find the hosts for a domain (or an address literal such as `[192.0.2.1]`). Raises Unroutable."""
    if policy.smart_host is not None:
        return await _by_smart_host(domain, policy.smart_host, names)
    if domain.startswith("["):
        return Route(domain, (MailHost("", (_literal(domain, policy),)),), policy.port)
    found = await _mail_exchangers(domain, names)
    candidates = without_self(shuffled(found, rng), policy.own_names)
    if not candidates:
        raise Unroutable(
            f"554 5.4.6 this relay is itself the best mail exchanger of {domain}: a loop", "routing", permanent=True
        )
    looked_up = await asyncio.gather(
        *(names.addresses(mx.host) for mx in candidates[:MAX_HOSTS]), return_exceptions=True
    )
    hosts: list[MailHost] = []
    troubles: list[ResolverError | str] = []
    for mx, outcome in zip(candidates, looked_up, strict=False):
        if isinstance(outcome, ResolverError):
            troubles.append(outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            refusals = [(address, policy.refusal(address)) for address in outcome]
            allowed = tuple(address for address, refusal in refusals if not refusal)
            if allowed:
                hosts.append(MailHost(mx.host, interleaved(allowed)[:MAX_ADDRESSES]))
            else:
                troubles += [refusal for _, refusal in refusals]
    if not hosts:
        raise _nowhere(domain, troubles)
    return Route(domain, tuple(hosts), policy.port, known_as=_known_as(found))


async def _by_smart_host(domain: str, smart: SmartHost, names: Names) -> Route:
    """Everything goes there. Who configures it may name an internal host: that is not left to a recipient's DNS."""
    level = Level.OPPORTUNISTIC if smart.tls is SmartHostTls.OPPORTUNISTIC else Level.VERIFIED
    security = Security(level, SMART_HOST, implicit=smart.tls is SmartHostTls.IMPLICIT)
    name = _host_name(smart.host)
    addresses: tuple[IPAddress, ...]
    if is_address(smart.host):
        addresses = (ipaddress.ip_address(smart.host),)
    else:
        try:
            addresses = await names.addresses(name)
        except ResolverError as error:
            # Never final: it says nothing about the recipient.
            raise Unroutable(f"451 4.4.3 the smart host: {error}", "routing", permanent=False) from error
    return Route(domain, (MailHost(name, interleaved(addresses)[:MAX_ADDRESSES], security),), smart.port)


def _known_as(found: Sequence[Mx]) -> str:
    """The whole set of MX hosts, however many of them are tried and whatever came of looking for their addresses.

    A look-up that fails for one of them must not make another destination of it, with limits and back-off anew.
    """
    names = sorted({mx.host for mx in found})
    if len(names) > _MAX_NAMES:
        digest = hashlib.sha256(",".join(names).encode()).hexdigest()[:16]
        names = [*names[:_MAX_NAMES], digest]
    return ",".join(names)


async def _mail_exchangers(domain: str, names: Names) -> tuple[Mx, ...]:
    try:
        found = await names.mx(domain)
    except NoSuchDomain as error:
        raise Unroutable(f"550 5.1.2 {error}", "bad-domain", permanent=True) from error
    except NoRecords:
        # RFC 5321 section 5.1: no MX at all, so the domain is treated as its own mail exchanger.
        return (Mx(0, _host_name(domain)),)
    except TemporaryFailure as error:
        raise Unroutable(f"451 4.4.3 {error}", "routing", permanent=False) from error
    if any(mx.host == "" for mx in found):
        # RFC 7505 section 3 allows it only alone. Beside hosts those still count; twice it means what it means once.
        found = tuple(mx for mx in found if mx.host)
        if not found:
            # Section 4.2: the domain says that it takes no mail.
            raise Unroutable(f"556 5.1.10 {domain} accepts no mail (null MX)", "bad-domain", permanent=True)
    return found


def shuffled(found: Sequence[Mx], rng: random.Random) -> list[Mx]:
    """By preference, equal ones in random order (RFC 5321 section 5.1), each host once."""
    best: dict[str, Mx] = {}
    for mx in sorted(found):
        best.setdefault(mx.host, mx)
    drawn = list(best.values())
    rng.shuffle(drawn)
    return sorted(drawn, key=lambda mx: mx.preference)


def without_self(candidates: Sequence[Mx], own_names: frozenset[str]) -> list[Mx]:
    """Drop this host and everything not better than it (RFC 5321 section 5.1), so that mail cannot loop."""
    own = [mx.preference for mx in candidates if mx.host in own_names]
    return [mx for mx in candidates if not own or mx.preference < min(own)]


def interleaved(addresses: Sequence[IPAddress]) -> tuple[IPAddress, ...]:
    """The families by turns, so that one that is broken costs one attempt and not all of them (RFC 8305)."""
    six: list[IPAddress] = [address for address in addresses if address.version == 6]
    four: list[IPAddress] = [address for address in addresses if address.version == 4]
    mixed: list[IPAddress] = []
    for place in range(max(len(six), len(four))):
        mixed += six[place : place + 1] + four[place : place + 1]
    return tuple(mixed)


def _literal(domain: str, policy: Policy) -> IPAddress:
    text = domain[1:-1] if domain.endswith("]") else ""
    if text.lower().startswith("ipv6:"):
        text = text[5:]
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise Unroutable(f"550 5.1.2 {domain} is not an address literal", "bad-domain", permanent=True) from error
    if refusal := policy.refusal(address):
        raise Unroutable(f"550 5.4.4 {refusal}", "routing", permanent=True)
    return address


def _nowhere(domain: str, troubles: Sequence[ResolverError | str]) -> Unroutable:
    for trouble in troubles:
        if isinstance(trouble, TemporaryFailure):
            return Unroutable(f"451 4.4.3 {trouble}", "routing", permanent=False)
    for trouble in troubles:
        if isinstance(trouble, str):
            return Unroutable(f"550 5.4.4 no usable mail host for {domain}: {trouble}", "routing", permanent=True)
    detail = f": {troubles[0]}" if troubles else ""
    return Unroutable(f"550 5.1.2 no mail host of {domain} has an address{detail}", "bad-domain", permanent=True)


def _host_name(name: str) -> str:
    return name.rstrip(".").lower()


def _embedded(address: IPAddress) -> IPAddress:
    """The IPv4 address that an IPv6 one carries (mapped, 6to4, NAT64), else the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in ipaddress.ip_network("64:ff9b::/96") or address in ipaddress.ip_network("::/96"):
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _is_public(address: IPAddress) -> bool:
    if address.version == 6 and _embedded(address) is not address:
        # The carried address decides; Python calls every mapped address private.
        return True
    return address.is_global and not address.is_multicast and not any(address in network for network in _NOT_PUBLIC)
