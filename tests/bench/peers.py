"""The peers: Postfix with OpenDKIM, and Haraka, each an instance of the bench's own."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench import programs
from tests.bench.contenders import CONNECTIONS, HOST, RECIPIENT_DOMAIN, SELECTOR, SENDER_DOMAIN, Entry, Material
from tests.harness import postfix
from tests.harness.processes import Child, RunError, free_port, system_program


class Postfix:
    """Postfix and OpenDKIM from Debian's packages: a configuration of their own, one tuning, see `_settings`."""

    def __init__(self, material: Material) -> None:
        self._material = material
        self._directory = material.directory / "opendkim"
        self._postfix = postfix.Postfix(
            material.directory / "postfix",
            host=HOST,
            certificate=material.certificate,
            key=material.certificate_key,
        )
        self._filter: Child | None = None

    @property
    def roots(self) -> Sequence[int]:
        """Postfix's processes and OpenDKIM's."""
        return [*self._postfix.pids, *([] if self._filter is None else [self._filter.process.pid])]

    @staticmethod
    def missing() -> str:
        """Why it cannot be run here; "" when it can."""
        if system_program("opendkim") is None:
            return "OpenDKIM is not installed: apt-get install opendkim"
        return postfix.missing()

    async def start(self, environment: Mapping[str, str] | None = None) -> list[Entry]:
        """Start both."""
        directory, milter = self._directory, self._directory / "socket"
        directory.mkdir(exist_ok=True)
        key = directory / "dkim.pem"
        key.write_bytes(self._material.dkim_pem)
        key.chmod(0o600)
        (directory / "opendkim.conf").write_text(
            _OPENDKIM.format(domain=SENDER_DOMAIN, selector=SELECTOR, key=key, socket=milter)
        )
        program = system_program("opendkim") or "opendkim"
        self._filter = await Child.start([program, "-f", "-x", directory / "opendkim.conf"], directory / "log")
        await asyncio.to_thread(self._postfix.start, _settings(milter, self._material.sink_port), environment)
        peer = "Postfix + OpenDKIM"
        return [
            Entry(f"{peer}, plain", self, self._postfix.port, tls=False, peer=peer),
            Entry(f"{peer}, TLS", self, self._postfix.tls_port, tls=True, peer=peer),
        ]

    async def stop(self) -> None:
        """End both."""
        await asyncio.to_thread(self._postfix.stop)
        if self._filter is not None:
            await self._filter.stop()
            self._filter = None


class Haraka:
    """Haraka and its DKIM plugin from npm, a worker for each core. It syncs files, not their directory."""

    def __init__(self, material: Material) -> None:
        self._material = material
        self._directory = material.directory / "haraka"
        self._child: Child | None = None

    @property
    def roots(self) -> Sequence[int]:
        """The first process; the workers are its children."""
        return [] if self._child is None else [self._child.process.pid]

    @staticmethod
    def missing() -> str:
        """Why it cannot be run here; "" when it can."""
        absent = [name for name in ("node", "npm") if shutil.which(name) is None]
        return f"not installed: {', '.join(absent)} (apt-get install nodejs npm)" if absent else ""

    async def start(self, environment: Mapping[str, str] | None = None) -> list[Entry]:
        """Start it; fetches it first when it is not in the cache."""
        material, config = self._material, self._directory / "config"
        packages = await asyncio.to_thread(programs.haraka)
        (config / "dkim" / SENDER_DOMAIN).mkdir(parents=True, exist_ok=True)
        (self._directory / "queue").mkdir(exist_ok=True)
        modules = self._directory / "node_modules"
        if not modules.exists():
            modules.symlink_to(packages / "node_modules")
        plain, tls = free_port(), free_port()
        domains = (
            f'[domains]\n{RECIPIENT_DOMAIN} = {{"action": "accept", "nexthop": "127.0.0.1:{material.sink_port}"}}\n'
        )
        for place, content in {
            "me": HOST,
            "plugins": "tls\nrelay\ndkim\n",
            "smtp.ini": f"listen=127.0.0.1:{plain},127.0.0.1:{tls}\nnodes={os.cpu_count()}\nsmtps_port={tls}\n",
            "connection.ini": "[max]\nbytes=40000000\nline_length=512\ndata_line_length=998\n"
            "[message]\nhelo=ready\nclose=bye\n[headers]\nmax_lines=1000\nmax_received=100\n"
            "[uuid]\nbanner_chars=6\n[haproxy]\n",
            "relay.ini": "[relay]\nacl=true\nforce_routing=true\ndest_domains=true\n",
            "relay_acl_allow": "127.0.0.0/8\n",
            "relay_dest_domains.ini": domains,
            "outbound.ini": f"concurrency_max={CONNECTIONS}\nenable_tls=false\nlocal_mx_ok=true\n",
            "dkim.ini": f"[sign]\nenabled=true\nselector={SELECTOR}\ndomain={SENDER_DOMAIN}\n"
            "headers=From, Reply-To, Subject, Date, Message-ID, To, Cc, MIME-Version, Content-Type\n"
            "[canon]\nbody=relaxed\n[verify]\nenabled=false\n",
            f"dkim/{SENDER_DOMAIN}/selector": SELECTOR,
            "tls.ini": "key=tls_key.pem\ncert=tls_cert.pem\n",
            "log.ini": "[main]\nlevel=ERROR\n",
        }.items():
            (config / place).write_text(content)
        for place, octets in {
            f"dkim/{SENDER_DOMAIN}/private": material.dkim_pem,
            "tls_key.pem": material.certificate_key,
            "tls_cert.pem": material.certificate,
        }.items():
            (config / place).write_bytes(octets)
        self._child = await Child.start(
            [shutil.which("node") or "node", packages / "node_modules/Haraka/bin/haraka", "-c", self._directory],
            material.directory / "haraka.log",
            environment=environment,
        )
        # It makes its Diffie-Hellman parameters first, and then opens its TLS port anew.
        for _ in range(600):
            if (config / "dhparams.pem").exists():
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        for port in (plain, tls):
            await _listens(port, self._child)
        return [
            Entry("Haraka + DKIM, plain", self, plain, tls=False, peer="Haraka"),
            Entry("Haraka + DKIM, TLS", self, tls, tls=True, peer="Haraka"),
        ]

    async def stop(self) -> None:
        """End it."""
        if self._child is not None:
            await self._child.stop()
            self._child = None


async def _listens(port: int, child: Child) -> None:
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            if child.process.returncode is not None:
                break
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise RunError(f"a peer did not start:\n{child.tail()}")


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


def _settings(milter: Path, sink: int) -> dict[str, str]:
    """Defaults, but for: no delay of senders while the queue is busy (in_flow_delay), and as many connections to the
    sink as the other ones have.
    """
    return {
        "mynetworks": "127.0.0.0/8",
        "relay_domains": RECIPIENT_DOMAIN,
        "transport_maps": f"inline:{{ {RECIPIENT_DOMAIN}=smtp:[127.0.0.1]:{sink} }}",
        "smtp_host_lookup": "native",
        "smtpd_client_connection_count_limit": "0",
        "smtpd_recipient_restrictions": "permit_mynetworks, reject",
        "smtpd_milters": f"unix:{milter}",
        "milter_default_action": "tempfail",
        "in_flow_delay": "0",
        "smtp_destination_concurrency_limit": str(CONNECTIONS),
        "initial_destination_concurrency": str(CONNECTIONS),
        "default_process_limit": "100",
        "message_size_limit": "40000000",
        "import_environment": "MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ LANG=C LD_PRELOAD SYNC_DELAY_US",
    }
