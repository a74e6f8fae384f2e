"""A made-up Internet around a scheduler: DNS, mail hosts on one port and addresses of their own, the true store."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from malote_dev.mailworld.certificates import CertificateAuthority
from malote_dev.mailworld.dns import DnsServer
from malote_dev.mailworld.mx import SinkMx
from malote_dev.mailworld.web import Page, WebServer
from malote_relay import config
from malote_relay.config import Notices, OutgoingTls
from malote_relay.delivery.conversion.converter import SignAgain
from malote_relay.delivery.notices.notifier import Sign, unsigned
from malote_relay.delivery.peer import Timeouts
from malote_relay.delivery.queue.lanes import Bounds
from malote_relay.delivery.queue.recorder import Consequence, no_consequence
from malote_relay.delivery.queue.scheduler import Scheduler
from malote_relay.resolver import Resolver
from malote_relay.store.contents import checksum
from malote_relay.store.model import NO_DSN, DsnRequest, NewMessage, NewRecipient, Outcome, Result
from malote_relay.store.sqlite import SqliteStore

SENDER = "app@acme.example"


class Clock:
    """The machine's clock, which a test can move."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class World:
    """What a test needs: `domain` makes a domain and its mail host, `send` accepts a message, `ended` waits."""

    def __init__(self, directory: Path, store: SqliteStore, dns: DnsServer, authority: CertificateAuthority):
        self.directory = directory
        self.store = store
        self.dns = dns
        self.clock = Clock()
        self.outcomes: list[Outcome] = []
        self.noticed: list[tuple[str, bool]] = []
        """What senders were told of, and whether they were."""
        self.hosts: list[SinkMx] = []
        self.network = f"127.{random.randint(100, 250)}.{random.randint(1, 250)}"
        self.port = 0
        self.scheduler: Scheduler | None = None
        self.authority = authority
        self.web: WebServer | None = None
        self.validating = False
        self._numbers = itertools.count(1)
        self._ids = itertools.count(1)

    async def domain(self, name: str, *, host: SinkMx | None = None) -> SinkMx:
        """A mail host for `name`, or one more domain for an existing one."""
        if host is None:
            number = next(self._numbers)
            host = SinkMx(
                f"{self.network}.{number}", self.port, hostname=f"mx{number}.{name}", authority=self.authority
            )
            await host.start()
            self.port = host.port
            self.hosts.append(host)
            self.dns.set(host.hostname, "A", host.address)
        self.dns.set(name, "MX", f"10 {host.hostname}.")
        return host

    def config(self, notices: Notices | None = None, **delivery: object) -> config.RelayConfig:
        settings: dict[str, object] = {
            "helo_name": "out.relay.example",
            "smtp_port": self.port or 2525,
            "allow_networks": (f"{self.network}.0/24",),
            "first_retry_seconds": 60,
        }
        settings |= delivery
        return config.RelayConfig(
            tenant="acme",
            hostname="relay.example",
            plan=config.Plan(name="p", messages_per_hour=1000),
            delivery=config.Delivery(**settings),  # type: ignore[arg-type]  # keyword arguments of the tests
            notices=notices or Notices(),
            resolver=config.Resolver(
                nameservers=(self.dns.address,), port=self.dns.port, timeout=10.0, validating=self.validating
            ),
        )

    def trust(self) -> OutgoingTls:
        """Believe the world's authority, and fetch policies where the world has them."""
        file = self.directory / "authorities.pem"
        file.write_bytes(self.authority.pem)
        return OutgoingTls(authorities=str(file), policy_port=self.web.port if self.web else 443)

    async def policy(
        self, domain: str, mode: str, *mx: str, id: str = "1", max_age: int = 86_400, names: Sequence[str] = ()
    ) -> WebServer:
        """Publish an MTA-STS policy; one web server has them all."""
        if self.web is None:
            address = f"{self.network}.250"
            self.web = await WebServer(self.authority, list(names) or [f"mta-sts.{domain}"], address).start()
        body = "".join(f"{line}\r\n" for line in ("version: STSv1", f"mode: {mode}", *(f"mx: {one}" for one in mx)))
        self.web.pages[f"mta-sts.{domain}"] = Page(f"{body}max_age: {max_age}\r\n".encode())
        self.dns.set(f"mta-sts.{domain}", "A", self.web.address)
        self.dns.set(f"_mta-sts.{domain}", "TXT", f"v=STSv1; id={id}", ttl=0)
        return self.web

    async def start(
        self,
        *,
        bounds: Bounds | None = None,
        timeouts: Timeouts | None = None,
        sign: Sign = unsigned,
        sign_again: SignAgain = unsigned,
        notices: Notices | None = None,
        credentials: Mapping[str, str] | None = None,
        observer: Callable[[Outcome], None] = lambda outcome: None,
        alongside: Consequence = no_consequence,
        lost: Callable[[int], None] = lambda recipients: None,
        **delivery: object,
    ) -> Scheduler:
        settings = self.config(notices, **delivery)

        def observed(outcome: Outcome) -> None:
            self.outcomes.append(outcome)
            observer(outcome)

        self.scheduler = Scheduler(
            self.store,
            settings,
            Resolver(settings.resolver),
            self.store,
            clock=self.clock,
            observer=observed,
            alongside=alongside,
            lost=lost,
            sign=sign,
            sign_again=sign_again,
            noticed=lambda kind, sent: self.noticed.append((kind.value, sent)),
            rng=random.Random(1),
            bounds=bounds,
            timeouts=timeouts,
            idle_seconds=2.0,
            credentials=credentials,
        )
        await self.scheduler.start()
        return self.scheduler

    async def stop(self, grace: float = 5.0) -> None:
        if self.scheduler is not None:
            await self.scheduler.stop(grace)
            self.scheduler = None

    async def reopen(self) -> None:
        """A new life of the relay on the same spool."""
        await self.store.close()
        self.store = SqliteStore(self.directory / "spool")
        await self.store.open()

    async def send(
        self,
        *recipients: str,
        sender: str = SENDER,
        content: bytes | None = None,
        not_before: float = 0.0,
        offer: bool = True,
        eight_bit: bool = False,
        smtputf8: bool = False,
        dsn: DsnRequest | Mapping[str, DsnRequest] = NO_DSN,
    ) -> str:
        id = f"m{next(self._ids):06}"
        if content is None:
            content = (
                f"From: <{sender}>\r\nTo: <{recipients[0]}>\r\nSubject: {id}\r\n"
                f"Message-ID: <{id}@acme.example>\r\n\r\nGood day.\r\n.dot\r\n"
            ).encode()

        def requests(recipient: str) -> DsnRequest:
            return dsn if isinstance(dsn, DsnRequest) else dsn.get(recipient, NO_DSN)

        message = NewMessage(
            id=id,
            account="app",
            reverse_path=sender,
            header_from=SENDER,
            message_id=f"<{id}@acme.example>",
            recipients=[
                NewRecipient(one, int((not_before or self.clock()) // 3600), not_before, requests(one))
                for one in recipients
            ],
            content=self._kept(id, content),
            size=len(content),
            checksum=checksum(content),
            received_at=self.clock(),
            eight_bit=eight_bit,
            smtputf8=smtputf8,
        )
        queued = await self.store.accept(message)
        if offer and self.scheduler is not None:
            self.scheduler.offer(queued, message.content)
        return id

    def _kept(self, id: str, content: bytes) -> bytes | Path:
        if len(content) <= 256 * 1024:
            return content
        path = self.store.incoming / id
        path.write_bytes(content)
        return path

    async def wait(self, condition: Callable[[], bool], timeout: float = 30.0) -> None:
        async with asyncio.timeout(timeout):
            while not condition():  # noqa: ASYNC110  # the condition may be about anything
                await asyncio.sleep(0.01)

    async def ended(self, count: int, timeout: float = 30.0) -> list[Outcome]:
        """The outcomes, once there are `count`."""
        await self.wait(lambda: len(self.outcomes) >= count, timeout)
        return list(self.outcomes)

    async def sent(self, domain: str = "shop.example") -> Outcome:
        """Send one more message there, and give what became of it."""
        count = len(self.outcomes) + 1
        await self.send(f"bia@{domain}")
        return (await self.ended(count))[-1]

    def results(self) -> list[Result]:
        return [one.result for one in self.outcomes]


@pytest.fixture(scope="session")
def authority() -> CertificateAuthority:
    return CertificateAuthority()


@asynccontextmanager
async def living(directory: Path, authority: CertificateAuthority) -> AsyncIterator[World]:
    """A world on the running event loop."""
    async with DnsServer() as dns:
        store = SqliteStore(directory / "spool")
        await store.open()
        world = World(directory, store, dns, authority)
        try:
            yield world
        finally:
            await world.stop()
            if world.web is not None:
                await world.web.stop()
            for host in world.hosts:
                await host.stop()
            await world.store.close()


@pytest.fixture
async def world(tmp_path: Path, authority: CertificateAuthority) -> AsyncIterator[World]:
    async with living(tmp_path, authority) as world:
        yield world


@pytest.fixture
def make_world(tmp_path: Path, authority: CertificateAuthority) -> Callable[[], AbstractAsyncContextManager[World]]:
    """For a test that brings its own event loop."""
    return lambda: living(tmp_path, authority)
