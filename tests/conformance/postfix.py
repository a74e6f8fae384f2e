"""``python -m tests.conformance.postfix``: the suite against a Postfix of its own, for comparison.

Debian's package `postfix`, and root, which Postfix wants. It listens on loopback with TLS and AUTH, as a submission
server does, and delivers into a Maildir. Nothing is tuned but what Debian's own `master.cf` proposes for
submission: what fails here fails in many places.
"""

from __future__ import annotations

import argparse
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conformance import report
from tests.conformance.authserver import AuthServer
from tests.conformance.delivered import Maildir
from tests.conformance.server import Server, Tls

from malote_dev.mailworld.certificates import CertificateAuthority

HOST = "mail.acme.example"
SENDER, RECIPIENT = "ana@acme.example", "bob@dest.example"
USER, PASSWORD = "app", "a password of the suite"
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class Missing(Exception):
    """It cannot be run here; the message says what to do."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(directory: Path) -> Iterator[Server]:
    """A Postfix in the directory, while the block lasts. Raises Missing."""
    if os.geteuid() != 0:
        raise Missing("Postfix changes its user by itself and must be started by root")
    if shutil.which("postfix", path=_PATH) is None:
        raise Missing("Postfix is not installed: apt-get install postfix")
    config, queue, data, mailbox = (directory / name for name in ("config", "queue", "data", "mailbox"))
    for path in (config, queue, data, mailbox):
        path.mkdir(parents=True)
    owner = pwd.getpwnam("postfix")
    directory.chmod(0o755)
    for path in (data, mailbox):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    authority = CertificateAuthority()
    certificate, key = authority.issue([HOST])
    for name, content in (("tls.crt", certificate), ("tls.key", key), ("ca.pem", authority.pem)):
        (config / name).write_bytes(content)
    (config / "tls.key").chmod(0o600)
    submission, submissions = free_port(), free_port()
    auth = AuthServer(USER, PASSWORD)
    (config / "main.cf").write_text(
        _MAIN.format(
            queue=queue,
            data=data,
            config=config,
            host=HOST,
            domain=RECIPIENT.partition("@")[2],
            mailbox=mailbox,
            uid=owner.pw_uid,
            gid=owner.pw_gid,
            log=directory / "mail.log",
            auth=auth.port,
        )
    )
    (config / "master.cf").write_text(_MASTER.format(submission=submission, submissions=submissions))
    with (directory / "postfix.log").open("ab") as log:
        process = subprocess.Popen(
            [_program("postfix"), "-c", str(config), "start-fg"], stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait_for(submission, process, directory)
            yield Server(
                host="127.0.0.1",
                port=submission,
                implicit_port=submissions,
                tls=Tls.STARTTLS,
                sender=SENDER,
                recipient=RECIPIENT,
                user=USER,
                password=PASSWORD,
                name=HOST,
                authority=str(config / "ca.pem"),
                timeout=20.0,
                seen_within=20.0,
                delivered=Maildir(mailbox / "all"),
            )
        finally:
            subprocess.run([_program("postfix"), "-c", str(config), "stop"], stdout=log, stderr=log, check=False)
            process.wait(30)
            auth.stop()


def _program(name: str) -> str:
    return shutil.which(name, path=_PATH) or name


def _wait_for(port: int, process: subprocess.Popen[bytes], directory: Path) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except ConnectionError:
            if process.poll() is not None:
                break
            time.sleep(0.05)
        else:
            return
    logs = [path for name in ("postfix.log", "mail.log") if (path := directory / name).exists()]
    raise Missing("Postfix did not start:\n" + "\n".join(path.read_text()[-2000:] for path in logs))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.postfix", description=(__doc__ or "").strip())
    parser.add_argument("--only", default="", metavar="PREFIX")
    parser.add_argument("-v", "--verbose", action="store_true")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="postfix-") as place:
        try:
            with running(Path(place)) as server:
                results = [report.run(server, one) for one in report.selected(said.only)]
        except Missing as error:
            print(error, file=sys.stderr)
            return 2
    print(report.table(results, verbose=said.verbose))
    print(f"\nPostfix {version()}: {report.summary(results)}")
    return 0


def version() -> str:
    done = subprocess.run([_program("postconf"), "-dh", "mail_version"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


# Debian's defaults, and what its master.cf proposes for the submission service; no chroot, no DNS.
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
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtputf8_enable = yes
alias_maps =
alias_database =
local_recipient_maps =
virtual_mailbox_domains = {domain} acme.example
virtual_mailbox_base = {mailbox}
virtual_mailbox_maps = static:all/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
virtual_alias_maps = inline:{{ {{postmaster=postmaster@acme.example}} }}
disable_dns_lookups = yes
smtpd_peername_lookup = no
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:127.0.0.1:{auth}
smtpd_recipient_restrictions =
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_client_connection_rate_limit = 0
smtpd_tls_cert_file = {config}/tls.crt
smtpd_tls_key_file = {config}/tls.key
milter_macro_daemon_name = ORIGINATING
"""

_MASTER = """\
127.0.0.1:{submission} inet n - n - - smtpd
127.0.0.1:{submissions} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
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
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


if __name__ == "__main__":
    raise SystemExit(main())
