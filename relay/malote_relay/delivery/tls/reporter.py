"""Sending TLS reports when a day is over, by mail or HTTPS, to domains that ask for them (RFC 8460).

What was counted stays in the store until it is told, so a restart only delays it. Reports about different domains
leave at different times after midnight, each at its own. A report's mail is delivered whatever the domain asks for
about TLS (section 3), is counted nowhere and never reported about. It must be signed: without a key none is mailed,
and what only mail could tell waits for one, as for a web server that does not answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit

import structlog

from malote_relay.delivery.notices.notifier import Sign
from malote_relay.delivery.tls import report
from malote_relay.delivery.tls.https import Https, HttpsFailed
from malote_relay.delivery.tls.tally import DAY, Tally
from malote_relay.resolver import ResolverError, TemporaryFailure
from malote_relay.store.model import NewMessage, NewRecipient, Queued
from malote_relay.store.names import new_message_id

SPREAD_SECONDS: Final = 4 * 3600
"""Seconds after midnight (UTC) within which a day's reports leave (section 4.1)."""

RETRY_SECONDS: Final = 3600.0
GIVE_UP_DAYS: Final = 3

_PREFIX: Final = "tlsrpt-"
_log = structlog.get_logger("malote.delivery")


class Texts(Protocol):
    """What is asked of the DNS."""

    async def txt(self, name: str) -> tuple[bytes, ...]:
        """See `Resolver.txt`."""
        ...


def is_report(recipient: Queued) -> bool:
    """Whether this is a TLS report of the relay's own: it is delivered whatever is asked for about TLS."""
    return not recipient.account and not recipient.reverse_path and recipient.message_id.startswith(_PREFIX)


@dataclass(frozen=True, slots=True)
class Reporting:
    """Who reports: the name the world knows the relay by, and how people call and reach its operator.

    Reports by HTTPS go to one of `ports`: the URL is a stranger's word.
    """

    submitter: str
    organization: str
    contact: str
    ports: tuple[int, ...] = (report.HTTPS,)


Enqueue = Callable[[NewMessage], Awaitable[None]]
"""Keeps a mail of the relay's own and has it delivered."""


class Reporter:
    """Sends what `tally` holds. `clock` gives epoch seconds."""

    def __init__(
        self,
        tally: Tally,
        names: Texts,
        https: Https,
        enqueue: Enqueue,
        reporting: Reporting,
        clock: Callable[[], float],
        sign: Sign,
    ):
        self.https = https
        self.reporting = reporting
        self._tally = tally
        self._names = names
        self._enqueue = enqueue
        self._clock = clock
        self._sign = sign
        self._again: dict[tuple[int, str], float] = {}
        self._said_keyless = False

    async def asks(self, domain: str) -> bool:
        """Whether a domain asks for reports; when nobody can tell, what was counted is kept for now."""
        try:
            return bool(report.destinations(await self._names.txt(f"_smtp._tls.{domain}")))
        except TemporaryFailure:
            return True
        except ResolverError:
            return False

    async def send_due(self) -> None:
        """Send the reports whose time has come. Raises StoreError."""
        now = self._clock()
        for day, domain in await self._tally.waiting(int(now // DAY)):
            if now < max(self._due(day, domain), self._again.get((day, domain), 0.0)):
                continue
            if await self._send(day, domain, now) or now >= (day + 1 + GIVE_UP_DAYS) * DAY:
                await self._tally.drop(day, domain)
                self._again.pop((day, domain), None)
            else:
                self._again[day, domain] = now + RETRY_SECONDS

    def _due(self, day: int, domain: str) -> float:
        digest = hashlib.sha256(f"{self.reporting.submitter} {domain} {day}".encode()).digest()
        return (day + 1) * DAY + int.from_bytes(digest[:4]) % SPREAD_SECONDS

    async def _send(self, day: int, domain: str, now: float) -> bool:
        """Whether nothing is left to do about this report."""
        try:
            wanted = report.destinations(await self._names.txt(f"_smtp._tls.{domain}"))
        except TemporaryFailure:
            return False
        except ResolverError:
            return True
        who = self.reporting
        name = hashlib.sha256(f"{who.submitter} {domain}".encode()).hexdigest()[:16]
        report_id = f"{day}.{name}@{who.submitter}"  # the same if it has to be sent again
        rows = await self._tally.rows(day, domain)
        packed = report.packed(
            report.text(domain, day, rows, organization=who.organization, contact=who.contact, report_id=report_id)
        )
        allowed = [uri for uri in wanted if self._may_go_to(uri, domain)]
        arrived = [await self._send_to(uri, packed, day, domain, report_id, now) for uri in allowed]
        return any(arrived) or not allowed

    def _may_go_to(self, uri: str, domain: str) -> bool:
        """Whether a report may go there: whoever publishes the URI must not aim the relay at any port there is."""
        port, ports = report.port(uri), self.reporting.ports
        if port is None or port in ports:
            return True
        allowed = ", ".join(map(str, ports)) or "none"
        _log.warning(
            "no TLS report",
            domain=domain,
            to=uri,
            error=f"port {port} is not among those that reports are posted to (delivery.tlsReports.ports: {allowed})",
        )
        return False

    async def _send_to(self, uri: str, packed: bytes, day: int, domain: str, report_id: str, now: float) -> bool:
        if uri.lower().startswith("mailto:"):
            return await self._mail(uri, packed, day, domain, report_id, now)
        parts = urlsplit(uri)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        kind = {"Content-Type": "application/tlsrpt+gzip"}
        try:
            answer = await self.https.request(
                "POST", parts.hostname or "", parts.port or report.HTTPS, target, headers=kind, body=packed
            )
        except HttpsFailed as error:
            _log.warning("TLS report not taken", domain=domain, to=uri, error=str(error))
            return False
        _log.info("TLS report", domain=domain, to=uri, status=answer.status)
        return answer.status // 100 == 2

    async def _mail(self, uri: str, packed: bytes, day: int, domain: str, report_id: str, now: float) -> bool:
        """Whether it could be signed: RFC 8460 section 3 lets no other report leave by mail."""
        submitter, recipient = self.reporting.submitter, report.mailbox(uri)
        unsigned = report.mail(
            packed, domain=domain, day=day, submitter=submitter, recipient=recipient, report_id=report_id, now=now
        )
        signature = await self._sign(submitter, unsigned)
        if not signature:
            if not self._said_keyless:
                self._said_keyless = True
                _log.warning(
                    "TLS reports leave by HTTPS only: there is no DKIM key for those by mail",
                    domain=domain,
                    to=uri,
                    name=submitter,
                )
            return False
        self._said_keyless = False
        content = signature + unsigned
        await self._enqueue(
            NewMessage(
                id=_PREFIX + new_message_id(now),
                account="",
                reverse_path="",
                header_from=f"noreply-smtp-tls-reporting@{submitter}",
                message_id=f"<{report_id}>",
                recipients=[NewRecipient(recipient, hour=int(now // 3600))],
                content=content,
                size=len(content),
                received_at=now,
                smtputf8=not recipient.isascii(),
            )
        )
        _log.info("TLS report", domain=domain, to=uri)
        return True
