"""The peers: Postfix with OpenDKIM, and Haraka, each an instance of the bench's own."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence

from tests.bench import programs
from tests.bench.contenders import CONNECTIONS, HOST, RECIPIENT_DOMAIN, SELECTOR, SENDER_DOMAIN, Entry, Material
from tests.bench.processes import BenchError, Child, free_port


class Postfix:
    """Postfix and OpenDKIM from Debian's packages: own configuration, queue and ports, one tuning, see `_MAIN`."""

    def __init__(self, material: Material) -> None:
        self._material = material
        self._directory = material.directory / "postfix"
        self._children: list[Child] = []

    @property
    def roots(self) -> Sequence[int]:
        """OpenDKIM and Postfix's master, which has left for a session of its own."""
        pid = self._directory / "queue/pid/master.pid"
        master = [int(pid.read_text())] if pid.exists() else []
        return [*master, *(child.process.pid for child in self._children)]

    @staticmethod
    def missing() -> str:
        """Why it cannot be run here; "" when it can."""
        if os.geteuid() != 0:
            return "Postfix changes its user by itself and must be started by root: run the bench as root"
        absent = [name for name in ("postfix", "opendkim") if shutil.which(name, path=_PATH) is None]
        return f"not installed: {', '.join(absent)} (apt-get install postfix opendkim)" if absent else ""

    async def start(self, environment: Mapping[str, str] | None = None) -> list[Entry]:
        """Start both."""
        material, directory = self._material, self._directory
        config, queue, data = (directory / name for name in ("config", "queue", "data"))
        for path in (config, queue, data):
            path.mkdir(parents=True, exist_ok=True)
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
            await Child.start(
                [_program("postfix"), "-c", config, "start-fg"], logs / "postfix.log", environment=environment
            )
        )
        for port in (plain, tls):
            await _listens(port, self._children)
        return [
            Entry("Postfix + OpenDKIM, plain", self, plain, tls=False, peer="Postfix + OpenDKIM"),
            Entry("Postfix + OpenDKIM, TLS", self, tls, tls=True, peer="Postfix + OpenDKIM"),
        ]

    async def stop(self) -> None:
        config = self._directory / "config"
        if len(self._children) > 1:  # the master process has left the group it was started in
            log = self._material.directory / "postfix.log"
            ending = await Child.start([_program("postfix"), "-c", config, "stop"], log)
            await ending.process.wait()
        for child in reversed(self._children):
            await child.stop()
        self._children.clear()


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
            await _listens(port, [self._child])
        return [
            Entry("Haraka + DKIM, plain", self, plain, tls=False, peer="Haraka"),
            Entry("Haraka + DKIM, TLS", self, tls, tls=True, peer="Haraka"),
        ]

    async def stop(self) -> None:
        """End it."""
        if self._child is not None:
            await self._child.stop()
            self._child = None


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
    raise BenchError("a peer did not start:\n" + "\n".join(child.tail() for child in children))


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
message_size_limit = 40000000
import_environment = MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ LANG=C LD_PRELOAD SYNC_DELAY_US
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
