"""A Postfix from Debian's package, with configuration, queue and ports of its own.

It listens on loopback, on one port in clear and on one with TLS. What it is for says the caller, by settings of
main.cf; given here is what keeps it apart from the machine's own: directories, log, no chroot, no DNS, no aliases.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.harness.processes import RunError, free_port, system_program

_START_SECONDS = 30.0
_STOP_SECONDS = 30.0


def missing() -> str:
    """Why it cannot be run here; "" when it can."""
    if os.geteuid() != 0:
        return "Postfix changes its user by itself and must be started by root: run this as root"
    return "" if system_program("postfix") else "Postfix is not installed: apt-get install postfix"


def version() -> str:
    """Such as 3.7.11. Raises RunError."""
    command = [_program("postconf"), "-dh", "mail_version"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


class Postfix:
    """Everything of it is below `directory`, which its own users must be able to reach."""

    def __init__(self, directory: Path, *, host: str, certificate: bytes, key: bytes) -> None:
        self.directory = directory
        self.port, self.tls_port = free_port(), free_port()
        self._host = host
        self._tls = {"tls.crt": certificate, "tls.key": key}
        self._config = directory / "config"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pids(self) -> list[int]:
        """The process that was started, and Postfix's master, which has left for a session of its own."""
        pid = self.directory / "queue/pid/master.pid"
        master = [int(pid.read_text())] if pid.exists() else []
        return master if self._process is None else list(dict.fromkeys([*master, self._process.pid]))

    def start(self, settings: Mapping[str, str], environment: Mapping[str, str] | None = None) -> None:
        """Start it on its queue, be it new or not, and wait until it listens. `settings` go to main.cf as they are.

        Raises RunError.
        """
        if words := missing():
            raise RunError(words)
        queue, data = self.directory / "queue", self.directory / "data"
        for path in (self._config, queue, data):
            path.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o755)
        shutil.chown(data, "postfix")
        for name, content in self._tls.items():
            (self._config / name).write_bytes(content)
            (self._config / name).chmod(0o600)
        apart = _MAIN.format(
            queue=queue, data=data, config=self._config, host=self._host, log=self.directory / "mail.log"
        )
        (self._config / "main.cf").write_text(apart + "".join(f"{name} = {it}\n" for name, it in settings.items()))
        (self._config / "master.cf").write_text(_MASTER.format(port=self.port, tls_port=self.tls_port))
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [_program("postfix"), "-c", self._config, "start-fg"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        for port in (self.port, self.tls_port):
            self._wait_for(port, self._process)

    def stop(self) -> None:
        """End it; what is queued stays. Harmless when it was not started."""
        process, self._process = self._process, None
        if process is None:
            return
        with self._log.open("ab") as log:
            command = [_program("postfix"), "-c", str(self._config), "stop"]
            subprocess.run(command, stdout=log, stderr=log, check=False)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def _log(self) -> Path:
        return self.directory / "postfix.log"

    def _wait_for(self, port: int, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
            except ConnectionError:
                time.sleep(0.05)
            else:
                return
        logs = [path for path in (self._log, self.directory / "mail.log") if path.exists()]
        raise RunError("Postfix did not start:\n" + "\n".join(path.read_text()[-2000:] for path in logs))


def _program(name: str) -> str:
    found = system_program(name)
    if found is None:
        raise RunError(f"{name} is not installed: apt-get install postfix")
    return found


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
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
disable_dns_lookups = yes
smtpd_tls_cert_file = {config}/tls.crt
smtpd_tls_key_file = {config}/tls.key
"""

_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
127.0.0.1:{tls_port} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
virtual unix - n n - - virtual
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""
