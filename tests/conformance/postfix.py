"""``python -m tests.conformance.postfix``: the suite against a Postfix of its own, for comparison.

Debian's package `postfix`, and root, which Postfix wants. It listens on loopback with TLS and AUTH, as a submission
server does, and delivers into a Maildir. Nothing is tuned but what Debian's own `master.cf` proposes for
submission: what fails here fails in many places.
"""

from __future__ import annotations

import argparse
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conformance import report
from tests.conformance.authserver import AuthServer
from tests.conformance.delivered import Maildir
from tests.conformance.server import Server, Tls
from tests.harness.postfix import Postfix, missing, version
from tests.harness.processes import RunError

from malote_dev.mailworld.certificates import CertificateAuthority

HOST = "mail.acme.example"
SENDER, RECIPIENT = "ana@acme.example", "bob@dest.example"
USER, PASSWORD = "app", "a password of the suite"


@contextmanager
def running(directory: Path) -> Iterator[Server]:
    """A Postfix in the directory, while the block lasts. Raises RunError."""
    if words := missing():
        raise RunError(words)
    authority = CertificateAuthority()
    certificate, key = authority.issue([HOST])
    (directory / "ca.pem").write_bytes(authority.pem)
    postfix = Postfix(directory / "postfix", host=HOST, certificate=certificate, key=key)
    auth = AuthServer(USER, PASSWORD)
    directory.chmod(0o755)
    mailbox = directory / "mailbox"
    mailbox.mkdir()
    shutil.chown(mailbox, "postfix")
    try:
        postfix.start(_settings(mailbox, auth.port))
        yield Server(
            host="127.0.0.1",
            port=postfix.port,
            implicit_port=postfix.tls_port,
            tls=Tls.STARTTLS,
            sender=SENDER,
            recipient=RECIPIENT,
            user=USER,
            password=PASSWORD,
            name=HOST,
            authority=str(directory / "ca.pem"),
            timeout=20.0,
            seen_within=20.0,
            delivered=Maildir(mailbox / "all"),
        )
    finally:
        postfix.stop()
        auth.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.postfix", description=(__doc__ or "").strip())
    parser.add_argument("--only", default="", metavar="PREFIX")
    parser.add_argument("-v", "--verbose", action="store_true")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="postfix-") as place:
        try:
            with running(Path(place)) as server:
                results = [report.run(server, one) for one in report.selected(said.only)]
        except RunError as error:
            print(error, file=sys.stderr)
            return 2
    print(report.table(results, verbose=said.verbose))
    print(f"\nPostfix {version()}: {report.summary(results)}")
    return 0


def _settings(mailbox: Path, auth: int) -> dict[str, str]:
    """Debian's defaults, and what its master.cf proposes for the submission service; mail ends in the mailbox."""
    owner = pwd.getpwnam("postfix")
    return {
        "mynetworks": "",
        "smtputf8_enable": "yes",
        "virtual_mailbox_domains": f"{RECIPIENT.partition('@')[2]} {SENDER.partition('@')[2]}",
        "virtual_mailbox_base": str(mailbox),
        "virtual_mailbox_maps": "static:all/",
        "virtual_uid_maps": f"static:{owner.pw_uid}",
        "virtual_gid_maps": f"static:{owner.pw_gid}",
        "virtual_minimum_uid": "1",
        "virtual_alias_maps": f"inline:{{ {{postmaster=postmaster@{SENDER.partition('@')[2]}}} }}",
        "smtpd_peername_lookup": "no",
        "smtpd_tls_security_level": "encrypt",
        "smtpd_tls_auth_only": "yes",
        "smtpd_sasl_auth_enable": "yes",
        "smtpd_sasl_type": "dovecot",
        "smtpd_sasl_path": f"inet:127.0.0.1:{auth}",
        "smtpd_recipient_restrictions": "",
        "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
        "smtpd_client_connection_rate_limit": "0",
        "milter_macro_daemon_name": "ORIGINATING",
    }


if __name__ == "__main__":
    raise SystemExit(main())
