"""What TLS a route's hosts must have: DANE before MTA-STS before nothing (RFC 7672, RFC 8461 section 2).

A host that cannot be used by the domain's own word is taken out of the route; when none is left, mail waits.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Final, Protocol

from malote_relay.delivery.route import MailHost, Route, Unroutable
from malote_relay.delivery.tls import dane
from malote_relay.delivery.tls.mtasts import Mode, StsPolicy
from malote_relay.delivery.tls.policies import Policies
from malote_relay.delivery.tls.results import Applied, ResultType, Trouble
from malote_relay.delivery.tls.security import OPPORTUNISTIC, Level, Security
from malote_relay.resolver import Examined, TemporaryFailure, ascii_name

ENFORCE: Final = Security(Level.VERIFIED, "mta-sts")
TESTING: Final = Security(Level.TESTING, "mta-sts-testing")


class Names(Protocol):
    """What is asked of the DNS; `malote_relay.resolver.Resolver` does it."""

    async def txt(self, name: str) -> tuple[bytes, ...]:
        """See `Resolver.txt`."""
        ...

    async def examine(self, name: str, rdtype: str) -> Examined:
        """See `Resolver.examine`."""
        ...


Note = Callable[[str, Applied, str, Trouble], None]
"""Hears of a domain's host ("" for none) that was not even tried, and why."""


class Guard:
    """Secures routes. Without `policies` there is no MTA-STS; `use_dane` needs a resolver that validates."""

    def __init__(self, names: Names, policies: Policies | None, *, use_dane: bool, note: Note):
        self._names = names
        self._policies = policies
        self._use_dane = use_dane
        self._note = note

    async def secure(self, route: Route) -> Route:
        """The route with what each host must have. Raises Unroutable when no host may be used now."""
        if route.domain.startswith("["):
            return route
        domain = ascii_name(route.domain)
        signed, sts = await asyncio.gather(self._signed(route, domain), self._policy(domain))
        applied = Applied.sts(domain, sts) if sts is not None else Applied.none(domain)
        enforced = isinstance(sts, StsPolicy) and sts.mode is Mode.ENFORCE
        hosts: list[MailHost] = []
        troubles: list[str] = []
        for host, found in zip(route.hosts, signed, strict=True):
            # Records that nobody can check authenticate nothing (RFC 7672 section 2.2): they do not stand in for a
            # policy that asks for a certificate, and all that they ask for themselves is encryption, which it is too.
            unchecked = isinstance(found, Security) and found.level is Level.ENCRYPTED
            if isinstance(found, Security) and not (unchecked and enforced):
                told = Applied.tlsa(host.name, found)
                hosts.append(dataclasses.replace(host, security=found, applied=told))
            elif isinstance(found, TemporaryFailure):
                trouble = Trouble(ResultType.DNSSEC_INVALID, f"the TLSA records of {host.name}: {found}")
                self._note(domain, Applied.tlsa(host.name, None), host.name, trouble)
                troubles.append(trouble.words)
            elif not isinstance(sts, StsPolicy) or sts.mode is Mode.NONE:
                hosts.append(dataclasses.replace(host, security=OPPORTUNISTIC, applied=applied))
            elif sts.admits(host.name):
                level = ENFORCE if sts.mode is Mode.ENFORCE else TESTING
                hosts.append(dataclasses.replace(host, security=level, applied=applied))
            else:
                words = f"{host.name} is not in the MTA-STS policy of {domain}"
                self._note(domain, applied, host.name, Trouble(ResultType.VALIDATION_FAILURE, words))
                if sts.mode is Mode.ENFORCE:
                    troubles.append(words)
                else:
                    # Its session is not counted again, whatever its TLS: it has failed already.
                    hosts.append(dataclasses.replace(host, security=OPPORTUNISTIC, applied=None))
        if isinstance(sts, Trouble):
            self._note(domain, applied, "", sts)
        if not hosts:
            raise Unroutable(f"451 4.7.5 no mail host of {domain} may be used: {troubles[0]}", "tls", permanent=False)
        return dataclasses.replace(route, hosts=tuple(hosts), known_as=route.destination)

    async def _policy(self, domain: str) -> StsPolicy | Trouble | None:
        return await self._policies.policy(domain) if self._policies is not None else None

    async def _signed(self, route: Route, domain: str) -> list[Security | TemporaryFailure | None]:
        """What DANE asks of each host."""
        nothing: list[Security | TemporaryFailure | None] = [None] * len(route.hosts)
        if not self._use_dane:
            return nothing
        try:
            next_hop = await dane.next_hop_names(domain, self._names)
        except TemporaryFailure as error:
            return [error] * len(route.hosts)
        if not next_hop:
            return nothing
        return list(await asyncio.gather(*(self._of_host(host, route.port, next_hop) for host in route.hosts)))

    async def _of_host(
        self, host: MailHost, port: int, next_hop: tuple[str, ...]
    ) -> Security | TemporaryFailure | None:
        try:
            return await dane.security_of(host.name, port, next_hop, self._names)
        except TemporaryFailure as error:
            return error
