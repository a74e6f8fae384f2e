"""A relay on real sockets, in a made-up Internet: DNS, the tenant's own mail host, and a host that takes mail."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import inspect
import os
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import uvloop
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from malote_dev.mailworld.certificates import CertificateAuthority
from malote_dev.mailworld.client import Endpoint, Security, Sent, send
from malote_dev.mailworld.dns import DnsServer
from malote_dev.mailworld.mailboxes import MailboxProvider
from malote_dev.mailworld.mx import SinkMx
from malote_relay import passwords
from malote_relay.config import (
    CERTIFICATE_FILE,
    CERTIFICATE_KEY_FILE,
    CONFIG_FILE,
    CREDENTIALS_DIRECTORY,
    KEYS_DIRECTORY,
    Account,
    AccountClass,
    Delivery,
    DkimKey,
    Domain,
    Limits,
    Listen,
    Plan,
    RelayConfig,
    Resolver,
    SenderVerification,
    Submission,
    encode,
)
from malote_relay.relay import Relay
from malote_relay.reload import fingerprint, load

HOSTNAME = "acme.smtp.example"
T = TypeVar("T")


class Key:
    """A tenant's DKIM key, made once: RSA takes its time."""

    def __init__(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.selector = "m" + hashlib.sha256(public).hexdigest()[:12]
        self.pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.record = f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}"


class World:
    """The Internet around the relay. `mx` takes mail for dest.example; `provider` has acme.example's mailboxes."""

    def __init__(self, key: Key) -> None:
        net = f"127.{20 + os.getpid() % 200}.{os.getpid() // 200 % 250}"
        self.key = key
        self.authority = CertificateAuthority()
        self.dns = DnsServer(f"{net}.1")
        self.provider = MailboxProvider(
            {"ana@acme.example", "bia@acme.example", "news@acme.example"}, f"{net}.2", authority=self.authority
        )
        self.mx = SinkMx(f"{net}.3", hostname="mx.dest.example", authority=self.authority)

    async def start(self) -> None:
        await self.dns.start()
        await self.provider.start()
        self.mx.port = self.provider.port
        await self.mx.start()
        dns, key = self.dns, self.key
        dns.set("acme.example", "MX", "10 mx.acme.example.")
        dns.set("mx.acme.example", "A", self.provider.address)
        dns.set("dest.example", "MX", "10 mx.dest.example.")
        dns.set("mx.dest.example", "A", self.mx.address)
        dns.set("acme.example", "TXT", "v=spf1 ip4:127.0.0.0/8 -all")
        dns.set("_dmarc.acme.example", "TXT", "v=DMARC1; p=reject; adkim=s; aspf=s")
        dns.set(f"{key.selector}._domainkey.acme.example", "TXT", key.record)

    async def stop(self) -> None:
        await self.mx.stop()
        await self.provider.stop()
        await self.dns.stop()


class Site:
    """A relay's directories, and its configuration as the operator would write it."""

    def __init__(self, directory: Path, world: World) -> None:
        self.directory = directory / "config"
        self.spool = directory / "spool"
        self.world = world
        self.password = "a-password-of-the-tenants"
        verifier = passwords.verifier(self.password)
        key = DkimKey(selector=world.key.selector, file=f"{world.key.selector}.acme.example.pem")
        self.config = RelayConfig(
            tenant="acme",
            hostname=HOSTNAME,
            plan=Plan(name="smtp-1", display_name="SMTP I", messages_per_hour=1000, max_message_bytes=2_000_000),
            delivery=Delivery(
                helo_name="out.acme.smtp.example", smtp_port=world.mx.port, allow_networks=("127.0.0.0/8",)
            ),
            submission=Submission(open=True),
            accounts=(
                Account(name="app", username="app@acme", verifier=verifier),
                Account(name="news", username="news@acme", verifier=verifier, account_class=AccountClass.BULK),
                Account(name="old", username="old@acme", verifier=verifier, suspended=True),
            ),
            domains=(
                Domain(name="acme.example", sending=True, keys=(key,)),
                Domain(name="new.acme.example", refusal="its DKIM record is missing"),
            ),
            sender_verification=SenderVerification(timeout=3.0),
            resolver=Resolver(nameservers=(world.dns.address,), port=world.dns.port, timeout=2.0),
            listen=Listen(address="127.0.0.1", submission_port=0, submissions_port=0, observe_port=0),
            limits=Limits(command_timeout=10.0, data_timeout=10.0),
        )
        for place in (CONFIG_FILE, CERTIFICATE_FILE, KEYS_DIRECTORY / key.file, CREDENTIALS_DIRECTORY / "any"):
            (self.directory / place).parent.mkdir(parents=True, exist_ok=True)
        self.renew_certificate()
        (self.directory / KEYS_DIRECTORY / key.file).write_bytes(world.key.pem)
        self.authority_file = directory / "ca.pem"
        self.authority_file.write_bytes(world.authority.pem)
        self.write()

    def change(self, **fields: Any) -> None:
        """Other values in the configuration; nested structs by their name and a dict of fields."""
        for name, value in fields.items():
            new = msgspec.structs.replace(getattr(self.config, name), **value) if isinstance(value, dict) else value
            self.config = msgspec.structs.replace(self.config, **{name: new})
        self.write()

    def write(self) -> None:
        self.replace(CONFIG_FILE, encode(self.config))

    def replace(self, place: Path, content: bytes) -> None:
        temporary = self.directory / "new"
        temporary.write_bytes(content)
        temporary.replace(self.directory / place)

    def renew_certificate(self) -> bytes:
        certificate, key = self.world.authority.issue([HOSTNAME])
        self.replace(CERTIFICATE_KEY_FILE, key)
        self.replace(CERTIFICATE_FILE, certificate)
        return certificate

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority_file))


class Dialogue:
    """A client that says exactly what it is told to, octet for octet."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def read(self, timeout: float = 10.0) -> str:
        """The next reply, lines joined; "" when the connection has ended."""
        lines = []
        async with asyncio.timeout(timeout):
            while line := (await self.reader.readline()).decode():
                assert line.endswith("\r\n")
                lines.append(line.rstrip("\r\n"))
                if line[3:4] != "-":
                    break
        return "\n".join(lines)

    async def say(self, octets: bytes | str) -> str:
        """Send a line (CRLF is added to text, not to octets) and give the reply."""
        self.send(octets)
        return await self.read()

    def send(self, octets: bytes | str) -> None:
        self.writer.write(octets if isinstance(octets, bytes) else octets.encode() + b"\r\n")

    async def closed(self, timeout: float = 10.0) -> bool:
        """Whether the relay has closed the connection, or does within the time."""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(timeout):
                return await self.reader.read(1) == b""
        return True

    def close(self) -> None:
        self.writer.transport.abort()


class Running:
    """A relay in this process, on the test's event loop."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.relay = Relay(site.directory, site.spool, load(site.directory), fingerprint(site.directory), 2.0)
        self.dialogues: list[Dialogue] = []

    @property
    def metrics(self) -> Any:
        return self.relay.metrics.registry

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.get_sample_value(name, labels) or 0.0

    async def stored(self) -> int:
        """How many recipients wait, and were ever charged: 0 when nothing was kept."""
        return int(sum(window.charged for window in [self.relay._window.usage(self.relay._clock.now())]))

    def reserved(self) -> int:
        return self.relay._window.usage(self.relay._clock.now()).reserved

    def endpoint(self, security: Security = Security.STARTTLS) -> Endpoint:
        server = self.relay.server
        port = server.submissions_port if security is Security.TLS else server.submission_port
        return Endpoint(HOSTNAME, port, security, self.site.authority_file, "127.0.0.1", 15.0)

    async def send(
        self,
        message: bytes,
        *,
        sender: str = "ana@acme.example",
        to: tuple[str, ...] = ("bob@dest.example",),
        username: str = "app@acme",
        password: str = "",
        security: Security = Security.STARTTLS,
    ) -> Sent:
        """Send as an application does."""
        return await asyncio.to_thread(
            send, self.endpoint(security), username, password or self.site.password, sender, to, message
        )

    async def plain(self, *, greet: bool = True, source: str = "127.0.0.1", header: bytes = b"") -> Dialogue:
        """A connection to the STARTTLS port, in clear, from an address of the loopback; `header` is sent first."""
        port = self.relay.server.submission_port
        dialogue = Dialogue(*await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0)))
        self.dialogues.append(dialogue)
        dialogue.send(header)
        if greet:
            assert (await dialogue.read()).startswith("220 ")
        return dialogue

    async def secure(self, *, source: str = "127.0.0.1", header: bytes = b"") -> Dialogue:
        """A connection on which TLS is on and nothing else has been said."""
        dialogue = await self.plain(source=source, header=header)
        await dialogue.say("EHLO client.example")
        assert (await dialogue.say("STARTTLS")).startswith("220 ")
        await dialogue.writer.start_tls(self.site.client_context(), server_hostname=HOSTNAME)
        return dialogue

    async def signed_in(self, username: str = "app@acme") -> Dialogue:
        """A connection on which a message may be sent."""
        dialogue = await self.secure()
        await dialogue.say("EHLO client.example")
        token = base64.b64encode(f"\0{username}\0{self.site.password}".encode()).decode()
        assert (await dialogue.say(f"AUTH PLAIN {token}")).startswith("235 ")
        return dialogue

    async def at_data(self, *recipients: str) -> Dialogue:
        """A connection on which the content is waited for."""
        dialogue = await self.signed_in()
        assert (await dialogue.say("MAIL FROM:<ana@acme.example>")).startswith("250 ")
        for recipient in recipients or ("bob@dest.example",):
            assert (await dialogue.say(f"RCPT TO:<{recipient}>")).startswith("250 ")
        assert (await dialogue.say("DATA")).startswith("354 ")
        return dialogue

    async def stop(self) -> None:
        for dialogue in self.dialogues:
            dialogue.close()
        await self.relay.stop()


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The relay's event loop: uvloop's transports and TLS are code of its own and behave differently."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def key() -> Key:
    return Key()


@pytest.fixture
async def world(key: Key) -> AsyncIterator[World]:
    world = World(key)
    await world.start()
    yield world
    await world.stop()


@pytest.fixture
def site(world: World, tmp_path: Path) -> Site:
    return Site(tmp_path, world)


@pytest.fixture
async def start(site: Site) -> AsyncIterator[Callable[[], Any]]:
    """Starts the relay, once the test has changed what it wants in the configuration."""
    running: list[Running] = []

    async def start() -> Running:
        one = Running(site)
        await one.relay.start()
        running.append(one)
        return one

    yield start
    for one in running:
        await one.stop()


@pytest.fixture
async def relay(start: Callable[[], Any]) -> Running:
    started: Running = await start()
    return started


class Program:
    """The command `malote-relay` as a process of its own."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.process: asyncio.subprocess.Process | None = None
        self.ports: dict[str, int] = {}

    async def start(self, *options: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "malote_relay", "--config", str(self.site.directory), "--spool",
            str(self.site.spool), *options, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said = await self.said("listening")
        self.ports = {name: said[name] for name in ("submission", "submissions", "observe")}

    async def said(self, event: str, timeout: float = 20.0) -> dict[str, Any]:
        """Wait for a line of the log."""
        assert self.process is not None
        assert self.process.stderr is not None
        async with asyncio.timeout(timeout):
            while line := await self.process.stderr.readline():
                entry: dict[str, Any] = msgspec.json.decode(line)
                if entry["event"] == event:
                    return entry
        raise AssertionError(f"it ended without saying {event!r}")

    async def send(self, message: bytes, to: tuple[str, ...] = ("bob@dest.example",)) -> Sent:
        endpoint = Endpoint(
            HOSTNAME, self.ports["submission"], Security.STARTTLS, self.site.authority_file, "127.0.0.1", 15.0
        )
        password = self.site.password
        return await asyncio.to_thread(send, endpoint, "app@acme", password, "ana@acme.example", to, message)

    async def end(self, signal: int) -> int:
        assert self.process is not None
        self.process.send_signal(signal)
        async with asyncio.timeout(30):
            await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode


@pytest.fixture
async def program(site: Site) -> AsyncIterator[Program]:
    program = Program(site)
    yield program
    if program.process is not None and program.process.returncode is None:
        program.process.kill()
        await program.process.communicate()


async def eventually(question: Callable[[], Any], seconds: float = 5.0) -> Any:
    """Ask (a function or coroutine function) until the answer is true, and give it."""
    for _ in range(int(seconds / 0.02)):
        answer = question()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come true in time")


@pytest.fixture(name="eventually")
def eventually_() -> Callable[..., Any]:
    return eventually


def message(text: str = "Hello", *, header: str = "From: Ana <ana@acme.example>\r\nSubject: Hello\r\n") -> bytes:
    """A small message with CRLF line ends."""
    return f"{header}\r\n{text}\r\n".encode()


@pytest.fixture
def compose() -> Callable[..., bytes]:
    return message
