"""The Internet around the relay, and the relay's directories as the operator would write them."""

from __future__ import annotations

import base64
import hashlib
import os
import ssl
import time
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from malote_dev.mailworld.certificates import CertificateAuthority
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

HOSTNAME = "acme.smtp.example"


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
            sender_verification=SenderVerification(timeout=30.0),
            resolver=Resolver(nameservers=(world.dns.address,), port=world.dns.port, timeout=10.0),
            listen=Listen(address="127.0.0.1", submission_port=0, submissions_port=0, observe_port=0),
            limits=Limits(command_timeout=60.0, data_timeout=60.0),
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

    def begin_an_hour(self) -> None:
        """Have the relay's clock at the beginning of an hour: none ends, and makes room, during the test."""
        self.change(rehearsal={"clock_offset_seconds": 3600 - int(time.time()) % 3600})

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
