"""All of transport security as one part of delivery: made from a configuration, started, stopped, reconfigured."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from malote_relay.config import RelayConfig
from malote_relay.delivery.notices.notifier import Sign
from malote_relay.delivery.peer import Peer, delivering
from malote_relay.delivery.route import Policy, Route
from malote_relay.delivery.tls import dane
from malote_relay.delivery.tls.guard import Guard
from malote_relay.delivery.tls.handshake import Handshakes
from malote_relay.delivery.tls.https import Https
from malote_relay.delivery.tls.policies import Policies, fetcher
from malote_relay.delivery.tls.reporter import Enqueue, Reporter, Reporting
from malote_relay.delivery.tls.results import Applied, ResultType, Trouble
from malote_relay.delivery.tls.tally import Tally
from malote_relay.resolver import Resolver, ascii_name
from malote_relay.store.model import Tables

_FLUSH_SECONDS: Final = 60.0
_RENEW_EVERY: Final = 15

_log = structlog.get_logger("malote.delivery")


class TransportSecurity:
    """Secures routes, makes handshakes, counts how they ended, and reports. `clock` gives epoch seconds.

    `enqueue` takes the reports' mails once `sign` has signed them.
    """

    def __init__(
        self,
        config: RelayConfig,
        credentials: Mapping[str, str],
        names: Resolver,
        tables: Tables,
        clock: Callable[[], float],
        enqueue: Enqueue,
        sign: Sign,
    ):
        self._names = names
        self._tally = Tally(tables, clock)
        self.handshakes = Handshakes(config.delivery.tls.authorities)
        https = self._https(config, credentials)
        self._policies = Policies(names, fetcher(https, config.delivery.tls.policy_port), tables, clock)
        self._reporter = Reporter(self._tally, names, https, enqueue, _reporting(config), clock, sign)
        self._apply(config)
        self._work: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Know what was known before; begin to renew and to report. The store must be open."""
        await self._policies.load()
        self._work = asyncio.get_running_loop().create_task(self._run(), name="tls-reports")

    async def stop(self) -> None:
        """End, and write down what was counted. The store must be open still."""
        if self._work is None:
            return
        self._work.cancel()
        await asyncio.gather(self._work, return_exceptions=True)
        await self._policies.close()
        with contextlib.suppress(Exception):  # the counts of the last minute are no reason not to end
            async with asyncio.timeout(2.0):
                await self._tally.flush(self._reporter.asks)

    def reconfigure(self, config: RelayConfig, credentials: Mapping[str, str]) -> None:
        """By this configuration from now on; what is kept stays kept."""
        self.handshakes = Handshakes(config.delivery.tls.authorities)
        https = self._https(config, credentials)
        self._policies.fetch = fetcher(https, config.delivery.tls.policy_port)
        self._reporter.https, self._reporter.reporting = https, _reporting(config)
        self._apply(config)

    async def secure(self, route: Route) -> Route:
        """See `Guard.secure`. A smart host's route is as the operator wants it already."""
        return route if self._by_smart_host else await self._guard.secure(route)

    def report(self, route: Route, peer: Peer, local_address: str, trouble: Trouble | None) -> None:
        """Count a session, or one that did not come about for want of TLS."""
        applied = next((host.applied for host in route.hosts if host.name == peer.name), None)
        if trouble is None and peer.security == dane.UNUSABLE:
            trouble = Trouble(ResultType.TLSA_INVALID, "none of its TLSA records can be used by a mail server")
        if self._reports and applied is not None:
            self._tally.add(
                ascii_name(route.domain),
                applied,
                trouble,
                mx=peer.name,
                mx_address=str(peer.address),
                local_address=local_address,
            )

    def _apply(self, config: RelayConfig) -> None:
        wanted = config.delivery.tls
        self._by_smart_host = config.delivery.smart_host is not None
        self._reports = config.delivery.tls_reports.enabled
        self._guard = Guard(
            self._names,
            self._policies if wanted.mta_sts else None,
            use_dane=wanted.dane and config.resolver.validating,
            note=self._note,
        )

    def _https(self, config: RelayConfig, credentials: Mapping[str, str]) -> Https:
        handshakes = self.handshakes
        return Https(self._names, Policy.of(config), delivering(config, credentials), handshakes.verified)

    def _note(self, domain: str, applied: Applied, mx: str, trouble: Trouble) -> None:
        _log.warning("TLS", domain=domain, mx=mx, result=trouble.result.value, error=trouble.words)
        if self._reports:
            self._tally.add(domain, applied, trouble, mx=mx)

    async def _run(self) -> None:
        turn = 0
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            turn += 1
            try:
                await self.tell()
                if turn % _RENEW_EVERY == 0:
                    await self._policies.renew_aging()
            except Exception:  # what reports must not stop for good
                _log.exception("TLS reports or policies could not be seen to; trying again")

    async def tell(self) -> None:
        """Write down what was counted, and send the reports that are due. Raises StoreError."""
        await self._tally.flush(self._reporter.asks)
        if self._reports:
            await self._reporter.send_due()


def _reporting(config: RelayConfig) -> Reporting:
    name, wanted = config.delivery.helo_name, config.delivery.tls_reports
    return Reporting(name, wanted.organization or name, wanted.contact or f"postmaster@{name}", wanted.ports)
