"""What takes part: the material all share, and this relay. The others are in `peers`.

Everybody keeps each message on the same disk, synced, before the answer, signs it with the same RSA-2048 key, and
delivers to the same sink. Where they differ the others have the easier part: no TLS nor AUTH on one of their ways in,
no accounts, plans or events, and they are told where to deliver (no DNS).
"""

from __future__ import annotations

import asyncio
import base64
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.harness.processes import Child, RunError, free_port

from malote_dev.mailworld.certificates import CertificateAuthority
from malote_relay import passwords
from malote_relay.config import (
    CERTIFICATE_FILE,
    CERTIFICATE_KEY_FILE,
    CONFIG_FILE,
    KEYS_DIRECTORY,
    Account,
    Delivery,
    DkimKey,
    Domain,
    Limits,
    Listen,
    Plan,
    RelayConfig,
    Resolver,
    Submission,
    encode,
)

SENDER_DOMAIN = "sender.example"
RECIPIENT_DOMAIN = "dest.example"
HOST = "relay.example"
SELECTOR = "bench"
CONNECTIONS = 20


class Material:
    """The key and certificate both use, and where things are kept."""

    def __init__(self, directory: Path, sink_port: int, dns_port: int) -> None:
        self.directory = directory
        self.sink_port = sink_port
        self.dns_port = dns_port
        key = rsa.generate_private_key(65537, 2048)
        self.dkim_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.dkim_record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)
        authority = CertificateAuthority()
        self.certificate, self.certificate_key = authority.issue([HOST])
        self.authority_file = directory / "ca.pem"
        self.authority_file.write_bytes(authority.pem)


class Contender(Protocol):
    """A server under test, with a queue on disk of its own."""

    @property
    def roots(self) -> Sequence[int]:
        """Its processes; their descendants belong to it, too."""
        ...

    async def start(self, environment: Mapping[str, str] | None = None) -> list[Entry]:
        """Start it; the ways in. Raises RunError."""
        ...

    async def stop(self) -> None:
        """End what was started. Harmless when nothing was."""
        ...


@dataclass(frozen=True)
class Entry:
    """A way in: what the load generator is told. `peer` is whom the marks are against: "" for this relay."""

    name: str
    contender: Contender
    port: int
    tls: bool
    user: str = ""
    password: str = ""
    peer: str = ""


class Malote:
    """`malote-relay` with a configuration directory as the operator writes it.

    `processes` are those on the listener beside the core; with 0 the one process does all.
    """

    def __init__(self, material: Material, name: str = "Malote", *, processes: int = 0) -> None:
        self.spool = material.directory / f"relay-{name.replace(' ', '-')}" / "spool"
        self._material = material
        self._name = name
        self._processes = processes
        self._ports = free_port(), free_port(), free_port()
        self._child: Child | None = None

    @property
    def roots(self) -> Sequence[int]:
        """Its process."""
        return [] if self._child is None else [self._child.process.pid]

    async def start(self, environment: Mapping[str, str] | None = None) -> list[Entry]:
        """Start it on its spool, be it new or not."""
        material, password = self._material, "a password of the bench"
        directory = self.spool.parent
        starttls, tls, observe = self._ports
        config = RelayConfig(
            tenant="bench",
            hostname=HOST,
            plan=Plan(name="bench", messages_per_hour=1_000_000_000),
            delivery=Delivery(
                helo_name=HOST,
                smtp_port=material.sink_port,
                allow_networks=("127.0.0.0/8",),
                max_connections_per_destination=CONNECTIONS,
            ),
            submission=Submission(open=True),
            accounts=(Account(name="app", username="app@bench", verifier=passwords.verifier(password)),),
            domains=(Domain(name=SENDER_DOMAIN, sending=True, keys=(DkimKey(selector=SELECTOR, file="key.pem"),)),),
            resolver=Resolver(nameservers=("127.0.0.1",), port=material.dns_port),
            listen=Listen(
                address="127.0.0.1",
                submission_port=starttls,
                submissions_port=tls,
                observe_port=observe,
                processes=self._processes,
            ),
            limits=Limits(max_sessions_per_client=500),
        )
        for place, content in (
            (CONFIG_FILE, encode(config)),
            (KEYS_DIRECTORY / "key.pem", material.dkim_pem),
            (CERTIFICATE_FILE, material.certificate),
            (CERTIFICATE_KEY_FILE, material.certificate_key),
        ):
            (directory / place).parent.mkdir(parents=True, exist_ok=True)
            (directory / place).write_bytes(content)
        program = Path(sys.executable).with_name("malote-relay")
        self._child = await Child.start(
            [program, "--config", directory, "--spool", self.spool],
            material.directory / "malote.log",
            environment=environment,
        )
        await _answers(f"http://127.0.0.1:{observe}/readyz", self._child)
        return [Entry(self._name, self, tls, True, "app@bench", password)]

    async def stop(self) -> None:
        """End it; what is queued stays."""
        if self._child is not None:
            await self._child.stop()
            self._child = None


async def _answers(url: str, child: Child) -> None:
    for _ in range(200):
        if child.process.returncode is not None:
            break
        try:
            await asyncio.to_thread(urllib.request.urlopen, url, timeout=5)
        except (urllib.error.URLError, ConnectionError):
            await asyncio.sleep(0.05)
        else:
            return
    raise RunError(f"the relay did not start:\n{child.tail()}")
