"""``python -m tests.conformance.relay``: the suite against this relay, and a Postfix beside it where it can run.

The suite's client blocks, as clients do; so the relay, and the Internet around it, run on a thread of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from tests.conformance import postfix, report
from tests.conformance.delivered import Arrived
from tests.conformance.report import Result, Verdict
from tests.conformance.server import Server, Tls
from tests.harness.postfix import version
from tests.harness.processes import RunError
from tests.integration.relay.running import Running
from tests.integration.relay.site import HOSTNAME, Key, Site, World

from malote_relay.submission.guard import Guard

T = TypeVar("T")


class Background:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)


class AtTheSink:
    """What the recipients' host has received: the suite's view of the other end."""

    def __init__(self, world: World) -> None:
        self._world = world

    def messages(self) -> Sequence[Arrived]:
        return [Arrived(one.content, one.mail_from, one.recipients) for one in list(self._world.mx.messages)]


class Judged:
    """The relay and the suite's way to it."""

    def __init__(self, relay: Running, server: Server) -> None:
        self.relay = relay
        self.server = server

    def forgive(self) -> None:
        """Forget failed sign-ins: a case is to meet the relay as it is, not as the case before has made it."""
        server: Any = self.relay.relay.server
        server.guard = Guard()

    def run(self, case: Any) -> Result:
        self.forgive()
        return report.run(self.server, case)


@contextmanager
def running(key: Key, directory: Path) -> Iterator[Judged]:
    """The relay in the directory, while the block lasts."""
    background = Background()
    world = World(key)
    background.run(world.start())
    world.dns.set("xn--nandu-pta.example", "MX", "10 mx.dest.example.")
    site = Site(directory, world)
    site.change(
        plan={"messages_per_hour": 1_000_000, "max_message_bytes": 1_000_000},
        limits={"max_connections_without_sign_in_per_minute": 1_000_000},  # all cases may run within one
    )
    relay = background.run(_made(site))
    background.run(relay.relay.start())
    listening = relay.relay.server
    server = Server(
        host="127.0.0.1",
        port=listening.submission_port,
        implicit_port=listening.submissions_port,
        tls=Tls.STARTTLS,
        sender="ana@acme.example",
        recipient="bob@dest.example",
        user="app@acme",
        password=site.password,
        name=HOSTNAME,
        authority=str(site.authority_file),
        timeout=30.0,
        seen_within=60.0,
        delivered=AtTheSink(world),
    )
    try:
        yield Judged(relay, server)
    finally:
        background.run(relay.stop())
        background.run(world.stop())
        background.stop()


async def _made(site: Site) -> Running:
    return Running(site)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.relay", description=(__doc__ or "").strip())
    parser.add_argument("--only", default="", metavar="PREFIX")
    parser.add_argument("--alone", action="store_true", help="no Postfix")
    parser.add_argument("-v", "--verbose", action="store_true")
    said = parser.parse_args()
    cases = report.selected(said.only)
    with tempfile.TemporaryDirectory(prefix="conformance-") as place, running(Key(), Path(place)) as judged:
        ours = [judged.run(one) for one in cases]
    print(report.table(ours, verbose=said.verbose))
    columns: dict[str, Sequence[Result]] = {"Malote": ours}
    if not said.alone:
        with tempfile.TemporaryDirectory(prefix="postfix-") as place:
            try:
                with postfix.running(Path(place)) as server:
                    columns[f"Postfix {version()}"] = [report.run(server, one) for one in cases]
            except RunError as error:
                print(f"\nNot compared: {error}", file=sys.stderr)
    if len(columns) > 1:
        print(f"\nWhere they differ\n{report.compare(columns)}")
    print()
    for name, results in columns.items():
        print(f"{name}: {report.summary(results)}")
    return 1 if any(one.verdict is Verdict.FAIL for one in ours) else 0


if __name__ == "__main__":
    raise SystemExit(main())
