"""What is compared: this relay, and Postfix with OpenDKIM as its milter, each an instance of the bench's own.

Both keep each message on the same disk, synced, before they answer, sign it with the same RSA-2048 key, and deliver
to the same sink with at most 20 connections. Where they differ, Postfix has the easier part: it knows no accounts,
plans or events, and is told where to deliver (no DNS).
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.bench.processes import BenchError, Child, free_port

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


@dataclass(frozen=True)
class Entry:
    """A way in: what the load generator is told."""

    name: str
    port: int
    tls: bool
    user: str = ""
    environment: dict[str, str] = field(default_factory=dict)


class Malote:
    """`malote-relay` with a configuration directory as the operator writes it."""

    def __init__(self, material: Material) -> None:
        self._material = material
        self._ports = free_port(), free_port(), free_port()
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.process.pid

    async def start(self) -> list[Entry]:
        material, password = self._material, "a password of the bench"
        directory = material.directory / "malote"
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
            listen=Listen(address="127.0.0.1", submission_port=starttls, submissions_port=tls, observe_port=observe),
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
            [program, "--config", directory, "--spool", directory / "spool"], material.directory / "malote.log"
        )
        await _answers(f"http://127.0.0.1:{observe}/readyz", self._child)
        return [Entry("Malote (TLS, AUTH)", tls, True, "app@bench", {"BENCH_PASSWORD": password})]

    async def stop(self) -> None:
        if self._child is not None:
            await self._child.stop()


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
    raise BenchError(f"the relay did not start:\n{child.tail()}")


class Postfix:
    """Postfix and OpenDKIM from Debian's packages: own configuration, queue and ports, one tuning, see `_MAIN`."""

    def __init__(self, material: Material) -> None:
        self._material = material
        self._directory = material.directory / "postfix"
        self._children: list[Child] = []

    @staticmethod
    def missing() -> str:
        """Why it cannot be run here; "" when it can."""
        if os.geteuid() != 0:
            return "Postfix changes its user by itself and must be started by root: run the bench as root"
        absent = [name for name in ("postfix", "opendkim") if shutil.which(name, path=_PATH) is None]
        return f"not installed: {', '.join(absent)} (apt-get install postfix opendkim)" if absent else ""

    async def start(self) -> list[Entry]:
        material, directory = self._material, self._directory
        config, queue, data = (directory / name for name in ("config", "queue", "data"))
        for path in (config, queue, data):
            path.mkdir(parents=True)
        shutil.chown(data, "postfix")
        files = {
            "dkim.pem": material.dkim_pem,
            "tls.crt": material.certificate,
            "tls.key": material.certificate_key,
        }
        for name, content in files.items():
            (config / name).write_bytes(content)
            (config / name).chmod(0o600)
        milter = directory / "opendkim.sock"
        (config / "opendkim.conf").write_text(
            _OPENDKIM.format(domain=SENDER_DOMAIN, selector=SELECTOR, key=config / "dkim.pem", socket=milter)
        )
        plain, tls = free_port(), free_port()
        (config / "main.cf").write_text(
            _MAIN.format(
                queue=queue,
                data=data,
                config=config,
                host=HOST,
                domain=RECIPIENT_DOMAIN,
                milter=milter,
                sink=material.sink_port,
                connections=CONNECTIONS,
                log=material.directory / "postfix-mail.log",
            )
        )
        (config / "master.cf").write_text(_MASTER.format(plain=plain, tls=tls))
        logs = material.directory
        self._children.append(
            await Child.start([_program("opendkim"), "-f", "-x", config / "opendkim.conf"], logs / "opendkim.log")
        )
        self._children.append(
            await Child.start([_program("postfix"), "-c", config, "start-fg"], logs / "postfix.log")
        )
        for port in (plain, tls):
            await _listens(port, self._children)
        return [
            Entry("Postfix + OpenDKIM (plain)", plain, False),
            Entry("Postfix + OpenDKIM (TLS)", tls, True),
        ]

    async def stop(self) -> None:
        config = self._directory / "config"
        if len(self._children) > 1:  # the master process has left the group it was started in
            log = self._material.directory / "postfix.log"
            ending = await Child.start([_program("postfix"), "-c", config, "stop"], log)
            await ending.process.wait()
        for child in reversed(self._children):
            await child.stop()


def _program(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise BenchError(f"{name} is not installed")
    return found


async def _listens(port: int, children: list[Child]) -> None:
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            if any(child.process.returncode is not None for child in children):
                break
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise BenchError("Postfix did not start:\n" + "\n".join(child.tail() for child in children))


_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

_OPENDKIM = """\
Mode s
Domain {domain}
Selector {selector}
KeyFile {key}
RequireSafeKeys no
Canonicalization relaxed/relaxed
SignatureAlgorithm rsa-sha256
OversignHeaders From
Socket local:{socket}
UMask 000
Syslog no
"""

# Defaults, but for: no chroot, no delay of senders while the queue is busy (in_flow_delay), and as many connections
# to the sink as the other one has.
_MAIN = """\
compatibility_level = 3.6
queue_directory = {queue}
data_directory = {data}
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {log}
maillog_file_prefixes = /
myhostname = {host}
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
relay_domains = {domain}
transport_maps = inline:{{ {domain}=smtp:[127.0.0.1]:{sink} }}
disable_dns_lookups = yes
smtp_host_lookup = native
smtpd_client_connection_count_limit = 0
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_milters = unix:{milter}
milter_default_action = tempfail
smtpd_tls_cert_file = {config}/tls.crt
smtpd_tls_key_file = {config}/tls.key
in_flow_delay = 0
smtp_destination_concurrency_limit = {connections}
initial_destination_concurrency = {connections}
default_process_limit = 100
"""

_MASTER = """\
127.0.0.1:{plain} inet n - n - - smtpd
127.0.0.1:{tls} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""
