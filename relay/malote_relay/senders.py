"""Does a sender address exist? Asked once before its first use, at the domain's own mail host.

A *call-out* is the beginning of a delivery that is never made: connect to the MX of the sender's domain, say
`MAIL FROM:<>` (so that no call-out is ever answered by another) and `RCPT TO:<sender>`, and leave. Only a clear "no
such mailbox" to RCPT means *absent*. Blocked, deferred, unreachable, and whatever else is *unknown*, which is not the
same, and which the policy accepts and flags, or defers.

Answers are kept for days when the mailbox is there (over restarts, too) and for minutes when not. One in use is asked
for again in the last of these days, and nobody waits for it. Should it be unknown then, what was found before stands,
for as long again at most: an outage of the sender's own host must not stop its mail. An address is asked for once at
a time, however many sessions wait for it, and a domain's host is asked so many times a minute and no more: once,
while it is not to be had or wants none of it. A client never waits longer than the configured time, whatever the host
and the queue for it do.

The null sender names nobody, so there is nothing to ask for; `postmaster` exists at every domain that takes mail
(RFC 5321 section 4.5.1), and a host that says otherwise is not asked. Local parts are asked for as they are written,
since only their host knows whether case matters.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import ipaddress
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from malote_relay.config import RelayConfig, SenderMode, SenderVerification, UnknownSender
from malote_relay.delivery.answers.classify import classify
from malote_relay.delivery.answers.rules import Rules, load
from malote_relay.delivery.dialogue.connection import open_session
from malote_relay.delivery.dialogue.wire import SessionFailed
from malote_relay.delivery.peer import Peer, Timeouts, calling_out
from malote_relay.delivery.reply import Reply as RemoteReply
from malote_relay.delivery.route import Names, Policy, Route, Unroutable, route
from malote_relay.delivery.tls.handshake import opportunistic_tls
from malote_relay.metrics import Callout, Metrics, Refused
from malote_relay.resolver import IPAddress
from malote_relay.sender_memory import SenderMemory
from malote_relay.submission.address import Mailbox
from malote_relay.submission.replies import Reply

MAX_KEPT: Final = 50_000
MAX_PROBES: Final = 20
_RENEWED: Final = 0.1
"""The last part of the time for which a mailbox is known to be there, in which it is asked for again."""

LEFT_ALONE_SECONDS: Final = 60.0
"""For which a domain is not asked again whose host is not to be had, or wants no call-outs of ours."""

_OF_US: Final = frozenset(("reputation", "rate-limit"))
"""Replies to RCPT that would be the same for another address."""

_MAX_HOSTS: Final = 3
_MAX_ADDRESSES: Final = 2
"""Addresses of one host that are tried: one of each family, where it has both."""


class Standing(enum.Enum):
    """What is known of a sender address."""

    PRESENT = "present"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """A standing, and the words it rests on.

    `of_domain` is whether any address of the domain would have it: the host is not to be had, or wants none of it.
    """

    standing: Standing
    words: str = ""
    of_domain: bool = False


@dataclass(frozen=True, slots=True)
class _Known:
    """A finding, and until when it is the answer; times by the monotonic clock.

    Of a mailbox that is there: from when on it is asked for again while it still is the answer, and until when it
    stands in for an answer that nobody can give.
    """

    finding: Finding
    until: float
    renew: float = math.inf
    stands: float = -math.inf


ABSENT: Final = load(Path(__file__).with_name("absent.toml"))
"""What counts as absent, by provider."""


def judge(host: str, reply: RemoteReply, rules: Rules = ABSENT) -> Standing:
    """What a reply to RCPT says about the mailbox. Pure.

    Some hosts give the code of a mailbox that is not there when it is us whom they do not want, or when the mailbox
    is full or disabled: their words decide then, read as those of any refusal.
    """
    if reply.accepted:
        return Standing.PRESENT
    absent = rules.find(reply, host) is not None and classify(reply, host).bounce_class == "bad-mailbox"
    return Standing.ABSENT if absent else Standing.UNKNOWN


class Probe(Protocol):
    """Asks a domain's mail host for one address; `CalloutProbe` does it. Never raises but for cancellation."""

    async def __call__(self, sender: Mailbox) -> Finding:
        """What the host says."""
        ...


class CalloutProbe:
    """Call-outs by the same routes and the same rules about private networks as delivery."""

    def __init__(self, names: Names, config: RelayConfig, credentials: Mapping[str, str] | None = None) -> None:
        self._names = names
        self._random = random.Random()  # noqa: S311  # it shuffles hosts
        self._tls = opportunistic_tls()
        self._leaving: set[asyncio.Task[None]] = set()
        self.reconfigure(config, credentials)

    def reconfigure(self, config: RelayConfig, credentials: Mapping[str, str] | None = None) -> None:
        """Use another configuration from the next probe on. `credentials` are passwords by file name."""
        delivery, verification = config.delivery, config.sender_verification
        # A smart host knows the mailboxes of other domains no better than we do: their own hosts are asked.
        self._policy = dataclasses.replace(Policy.of(config), smart_host=None)
        self._port = delivery.smtp_port
        self._seconds = verification.timeout
        self._identity = calling_out(config, credentials or {})

    async def __call__(self, sender: Mailbox) -> Finding:
        """Ask, within the configured seconds for all of it."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._ask(sender)
        except TimeoutError:
            return Finding(Standing.UNKNOWN, f"no answer from the mail host of {sender.domain}", of_domain=True)
        except Unroutable as error:
            return Finding(Standing.UNKNOWN, error.reply, of_domain=True)

    async def _ask(self, sender: Mailbox) -> Finding:
        found: Route = await route(sender.domain, self._names, self._policy, self._random)
        words = ""
        for host in found.hosts[:_MAX_HOSTS]:
            addresses = reachable(host.addresses, self._identity.source_address)[:_MAX_ADDRESSES]
            if not addresses:
                words = f"{host.name} has no address that {self._identity.source_address} could reach"
            for address in addresses:
                try:
                    return await self._ask_host(Peer(host.name, address, self._port), sender)
                except SessionFailed as failed:
                    words = failed.failure.words
        return Finding(Standing.UNKNOWN, words, of_domain=True)

    async def _ask_host(self, peer: Peer, sender: Mailbox) -> Finding:
        seconds = self._seconds
        step = Timeouts(connect=seconds / 3, greeting=seconds, command=seconds, tls=seconds, quit=1.0)
        try:
            session = await open_session(peer, self._identity, step, self._tls)
        except SessionFailed as failed:
            if not failed.tls:
                raise
            session = await open_session(peer, self._identity, step, None)
        try:
            mail, rcpt = await session.ask(str(sender))
        finally:
            # In the background: the client that waits for the answer need not wait for the good-bye.
            leaving = asyncio.create_task(session.quit())
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        if rcpt is None:
            # An address in UTF-8 may be what it cannot take.
            return Finding(Standing.UNKNOWN, f"{peer} takes no call-out: {mail}", of_domain=sender.ascii)
        standing = judge(peer.name, rcpt)
        unwanted = standing is Standing.UNKNOWN and classify(rcpt, peer.name).bounce_class in _OF_US
        return Finding(standing, f"{peer.name or peer.address} says: {rcpt}", unwanted)


def reachable(addresses: Sequence[IPAddress], source_address: str) -> list[IPAddress]:
    """Those of the source address's family; all when there is none. Pure."""
    if not source_address:
        return list(addresses)
    version = ipaddress.ip_address(source_address).version
    return [address for address in addresses if address.version == version]


class Senders:
    """Answers for the policy: what is known is remembered, what is not is asked."""

    def __init__(
        self,
        config: RelayConfig,
        probe: Probe,
        metrics: Metrics,
        monotonic: Callable[[], float] = time.monotonic,
        memory: SenderMemory | None = None,
    ) -> None:
        self._probe = probe
        self._metrics = metrics
        self._monotonic = monotonic
        self._memory = memory
        self._known: dict[Mailbox, _Known] = {}
        self._asking: dict[Mailbox, asyncio.Task[Finding]] = {}
        self._asked: dict[str, tuple[int, int]] = {}
        self._left_alone: dict[str, tuple[float, str]] = {}
        self._room = asyncio.Semaphore(MAX_PROBES)
        self._verification = SenderVerification()
        self._declared: frozenset[str] = frozenset()
        self.reconfigure(config)

    async def recall(self) -> None:
        """Go on with what was known before the relay was started."""
        if self._memory is not None:
            for sender, seconds in (await self._memory.load()).items():
                # A clock that was moved must not make an answer good for longer than one may be.
                until = self._monotonic() + min(seconds, self._verification.present_ttl)
                self._known[sender] = self._present(Finding(Standing.PRESENT), until)

    def reconfigure(self, config: RelayConfig) -> None:
        """Put another policy in force; what is known stays known."""
        self._verification = config.sender_verification
        self._declared = frozenset(address.lower() for address in config.sender_verification.senders)

    async def check(self, sender: Mailbox) -> tuple[Reply | None, bool]:
        """The refusal, if the policy has one, and whether the sender's existence is unknown."""
        match self._verification.mode:
            case SenderMode.CALLOUT if sender.local.lower() != "postmaster":
                return self._decided(sender, await self._find(sender))
            case SenderMode.LIST if str(sender).lower() not in self._declared:
                text = f"the sender <{sender}> is not among those declared for this tenant"
                return Reply(550, "5.7.1", text, Refused.SENDER_NOT_LISTED), False
            case _:
                return None, False

    def _decided(self, sender: Mailbox, finding: Finding) -> tuple[Reply | None, bool]:
        if finding.standing is Standing.ABSENT:
            text = f"the sender <{sender}> does not exist: {finding.words}"
            return Reply(550, "5.1.0", text, Refused.SENDER_ABSENT), False
        if finding.standing is Standing.PRESENT:
            return None, False
        if self._verification.unknown is UnknownSender.DEFER:
            text = f"whether the sender <{sender}> exists could not be established, try again later: {finding.words}"
            return Reply(451, "4.1.8", text, Refused.SENDER_UNKNOWN), True
        return None, True

    async def _find(self, sender: Mailbox) -> Finding:
        known, now = self._known.get(sender), self._monotonic()
        if known is not None and known.until > now:
            if known.renew <= now and sender not in self._asking and not self._why_not(sender.domain):
                self._begin(sender)
            return known.finding
        task = self._asking.get(sender)
        if task is None:
            if words := self._why_not(sender.domain):
                self._metrics.callouts.labels(Callout.RATE_LIMITED.value).inc()
                return self._else_unknown(known, words)
            task = self._begin(sender)
        # Not the task itself is waited for: who leaves must not take the answer from the others, and who has waited
        # long enough goes on without, while the answer is still fetched for the next one.
        done, _ = await asyncio.wait({task}, timeout=self._verification.timeout)
        if done:
            return task.result()
        return self._else_unknown(known, f"no answer from the mail host of {sender.domain} in time")

    def _else_unknown(self, known: _Known | None, words: str) -> Finding:
        """Nobody can say it now: what was found before stands for a while, since not knowing is not absence."""
        if known is not None and known.stands > self._monotonic():
            return known.finding
        return Finding(Standing.UNKNOWN, words)

    def _begin(self, sender: Mailbox) -> asyncio.Task[Finding]:
        task = self._asking[sender] = asyncio.create_task(self._ask(sender))
        return task

    async def _ask(self, sender: Mailbox) -> Finding:
        """Ask and remember; what is known now."""
        try:
            async with self._room:
                finding = await self._probe(sender)
        except Exception as error:  # a defect here must not stop mail: not knowing is a possible answer
            finding = Finding(Standing.UNKNOWN, f"the check failed: {type(error).__name__}")
        finally:
            del self._asking[sender]
        self._metrics.callouts.labels(Callout(finding.standing.value).value).inc()
        now, before = self._monotonic(), self._known.pop(sender, None)
        if finding.of_domain:
            self._left_alone[sender.domain] = now + LEFT_ALONE_SECONDS, finding.words
        known = self._known[sender] = self._following(before, finding, now)
        if self._memory is not None and known.finding.standing is not Standing.UNKNOWN:
            self._memory.note(sender, known.until - now if known.finding.standing is Standing.PRESENT else 0.0)
        while len(self._known) > MAX_KEPT:
            del self._known[next(iter(self._known))]
        return known.finding

    def _following(self, before: _Known | None, finding: Finding, now: float) -> _Known:
        """What is known after the answer `finding`, when it was `before`."""
        policy = self._verification
        match finding.standing:
            case Standing.PRESENT:
                return self._present(finding, now + policy.present_ttl)
            case Standing.UNKNOWN:
                again = now + policy.unknown_ttl
                if before is not None and before.stands > now:
                    return dataclasses.replace(before, until=max(before.until, again), renew=again)
                return _Known(finding, again)
            case Standing.ABSENT:
                return _Known(finding, now + policy.absent_ttl)

    def _present(self, finding: Finding, until: float) -> _Known:
        ttl = self._verification.present_ttl
        return _Known(finding, until, renew=until - _RENEWED * ttl, stands=until + ttl)

    def _why_not(self, domain: str) -> str:
        """Why the domain's host is not to be asked now; "" when it may be, which is then counted."""
        now = self._monotonic()
        until, words = self._left_alone.get(domain, (0.0, ""))
        if until > now:
            return words
        minute = int(now // 60)
        then, count = self._asked.get(domain, (minute, 0))
        if then != minute:
            count = 0
        if count >= self._verification.probes_per_domain_per_minute:
            return f"too many addresses at {domain} were new in this minute"
        self._asked[domain] = (minute, count + 1)
        return ""
