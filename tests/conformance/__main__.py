"""``python -m tests.conformance``: the suite against a server."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.conformance import report
from tests.conformance.case import Level
from tests.conformance.delivered import Maildir
from tests.conformance.report import Verdict
from tests.conformance.server import Server, Tls


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description="Runs an SMTP submission server through the conformance cases. It really sends mail: use a "
        "sender and a recipient of your own. Ends with 0 when no MUST failed.",
    )
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, default=587)
    parser.add_argument("--tls", choices=[one.value for one in Tls], default=Tls.STARTTLS.value)
    parser.add_argument("--implicit-port", type=int, default=0, help="the port of RFC 8314, to be looked at, too")
    parser.add_argument("--name", default="", help="the name in the certificate, if it is not the host")
    parser.add_argument("--authority", default="", metavar="FILE", help="certificates to trust (PEM); none: any")
    parser.add_argument("--user", default="", help="without one nobody signs in")
    parser.add_argument("--password-file", type=Path)
    parser.add_argument("--password-env", metavar="NAME", help="the environment variable that has the password")
    parser.add_argument("--from", dest="sender", required=True, metavar="ADDRESS")
    parser.add_argument("--to", dest="recipient", required=True, metavar="ADDRESS")
    parser.add_argument(
        "--spool", type=Path, metavar="DIR", help="the Maildir that mail to the domain of --to ends in"
    )
    parser.add_argument("--only", default="", metavar="PREFIX", help="such as RFC5321-4.1, or RFC5321-4.1.1.9/noop")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="for one reply")
    parser.add_argument("--list", action="store_true", help="print the cases, run nothing")
    parser.add_argument("--strict", action="store_true", help="a SHOULD that failed counts as a MUST")
    parser.add_argument("-v", "--verbose", action="store_true", help="with the last lines of sessions that failed")
    return parser.parse_args()


def password(said: argparse.Namespace) -> str:
    if said.password_file:
        return str(said.password_file.read_text().rstrip("\n"))
    return os.environ.get(said.password_env, "") if said.password_env else ""


def main() -> int:
    if "--list" in sys.argv:
        for one in report.selected():
            print(f"{one.id:<62} {one.level:<6} {one.requirement}")
        return 0
    said = options()
    server = Server(
        host=said.host,
        port=said.port,
        tls=Tls(said.tls),
        sender=said.sender,
        recipient=said.recipient,
        user=said.user,
        password=password(said),
        name=said.name,
        authority=said.authority,
        implicit_port=said.implicit_port,
        timeout=said.timeout,
        delivered=Maildir(said.spool) if said.spool else None,
    )
    results = []
    for one in report.selected(said.only):
        results.append(report.run(server, one))
        if sys.stderr.isatty():
            print(f"\r{len(results)} {one.id:<70.70}", end="", file=sys.stderr, flush=True)
    print(report.table(results, verbose=said.verbose))
    print(f"\n{report.summary(results)}")
    failed = [one for one in results if one.verdict is Verdict.FAIL and (said.strict or one.case.level is Level.MUST)]
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
